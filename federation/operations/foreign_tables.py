"""IMPORT FOREIGN SCHEMA and changes of foreign tables as Alembic operations, with named columns.

IMPORT succeeds while importing nothing, and it brings columns that the release does not know; a foreign table with
such a column sends NULL for it on INSERT. So a release names its columns: what arrived must hold each of them with
the same type, collation and nullability, and a surplus is dropped from the foreign table. The comparison is SQL, so
that online and ``--sql`` are the same: a temporary table made from the declaration says how the server spells the
types.

Of a declared column counts what a foreign table has: name, type, collation, nullability, and whether it is generated
(``sa.Computed``: postgres_fdw then sends no value). Identity columns (``sa.Identity``) are left out, since
INSERT would send NULL for them; keys, defaults and checks are the hospital's. A VIRTUAL generated column (PostgreSQL
18) arrives as an ordinary one, for which INSERT would send a value that the hospital refuses: a release leaves it out.

https://www.postgresql.org/docs/current/sql-importforeignschema.html
https://www.postgresql.org/docs/current/sql-alterforeigntable.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql
from sqlalchemy import Column

from federation.config import IMPORTED
from federation.operations.rendering import call, given
from federation.operations.statements import (
    Columns,
    column_definition,
    column_definitions,
    execute,
    named,
    type_sql,
)

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


@Operations.register_operation("import_foreign_schema")
@dataclass(eq=False)
class ImportForeignSchemaOp(MigrateOperation):
    """Make foreign tables of named tables at the hospital, with named columns."""

    remote_schema: str
    server: str
    into: str
    tables: Mapping[str, Columns]
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def import_foreign_schema(
        cls,
        operations: Operations,
        remote_schema: str,
        *,
        server: str,
        into: str,
        tables: Mapping[str, Sequence[Column[Any]]],
        options: Mapping[str, str] = {},
    ) -> None:
        """Import ``tables`` (name to columns) of ``remote_schema`` into the schema ``into``.

        ``options`` are IMPORT's own (``import_collate``: ``"false"`` where the cloud lacks a collation). Every
        statistics target is 0, ANALYZE brings the row count, and nobody is granted anything. The database raises
        ZF007 (exit code 7), naming table and column, when the hospital lacks one or has it with another type,
        collation or nullability.

            op.import_foreign_schema("public", server="hospital", into="federation_link",
                                     tables={"hospital_patients": [sa.Column("id", sa.UUID, nullable=False)]})

        https://www.postgresql.org/docs/current/sql-importforeignschema.html
        """
        declared = {name: tuple(columns) for name, columns in tables.items()}
        operations.invoke(cls(remote_schema, server, into, declared, options))

    def reverse(self) -> DropForeignTablesOp:
        return DropForeignTablesOp(self.into, tuple(self.tables), self)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("import_foreign_schema", self.server, self.remote_schema, self.into, tuple(self.tables))


@Operations.register_operation("drop_foreign_tables")
@dataclass(eq=False)
class DropForeignTablesOp(MigrateOperation):
    """Forget foreign tables; the hospital's tables stay as they are."""

    schema: str
    tables: tuple[str, ...]
    was: ImportForeignSchemaOp | None = None

    @classmethod
    def drop_foreign_tables(cls, operations: Operations, schema: str, *tables: str) -> None:
        """Drop foreign tables of ``schema``; PostgreSQL refuses while a view reads one.

        op.drop_foreign_tables("federation_link", "hospital_patients")

        https://www.postgresql.org/docs/current/sql-dropforeigntable.html
        """
        operations.invoke(cls(schema, tables))

    def reverse(self) -> ImportForeignSchemaOp:
        if self.was is None:
            raise NotImplementedError(f"the foreign tables {', '.join(self.tables)} were dropped without their columns")
        return self.was

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("drop_foreign_tables", self.schema, self.tables)


@Operations.register_operation("alter_foreign_table")
@dataclass(eq=False)
class AlterForeignTableOp(MigrateOperation):
    """Bring a foreign table to what the hospital's table is by now: columns added, taken away and changed.

    ``ask`` says whether what the hospital has is compared. Undoing a change of a column cannot ask: downgrading, the
    cloud goes first and the hospital still has the newer column.
    """

    table: str
    schema: str
    add: Columns = ()
    drop: Columns = ()
    alter: tuple[tuple[Column[Any], Column[Any]], ...] = ()
    ask: bool = True
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for old, new in self.alter:
            if old.name != new.name:
                raise ValueError(f"{self.table}: column {old.name} cannot become {new.name}: drop it and add it")
            if (old.computed is None) != (new.computed is None):
                raise ValueError(f"{self.table}.{old.name}: a column becomes generated by dropping and adding it")

    @classmethod
    def alter_foreign_table(
        cls,
        operations: Operations,
        table: str,
        *,
        schema: str,
        add: Sequence[Column[Any]] = (),
        drop: Sequence[Column[Any]] = (),
        alter: Sequence[tuple[Column[Any], Column[Any]]] = (),
        ask: bool = True,
        options: Mapping[str, str] = {},
    ) -> None:
        """Add, drop and alter (old column, new column) columns of a foreign table.

        Adding and altering ask the hospital, dropping does not; where the cloud goes first (the downgrade of an
        altered column) ``ask=False``. ``options`` are IMPORT's own, since that is how it is asked. The database
        raises ZF007 (exit code 7), naming table and column, when the hospital does not have a column as declared; a
        column whose type a view depends on is refused (exit code 8), naming the dependents: drop the view, alter, and
        create the view again.

            op.alter_foreign_table("hospital_patients", schema="federation_link", add=[sa.Column("phone", sa.Text)])
            op.alter_foreign_table("hospital_patients", schema="federation_link",
                                   alter=[(sa.Column("age", sa.Integer), sa.Column("age", sa.SmallInteger))])

        https://www.postgresql.org/docs/current/sql-alterforeigntable.html
        """
        operations.invoke(cls(table, schema, tuple(add), tuple(drop), tuple(alter), ask, options))

    def reverse(self) -> AlterForeignTableOp:
        back = tuple((new, old) for old, new in self.alter)
        ask = not self.ask if back else True
        return AlterForeignTableOp(self.table, self.schema, self.drop, self.add, back, ask, self.options)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        columns = (self.add, self.drop, tuple(new for _, new in self.alter))
        names = tuple(tuple(column.name for column in part) for part in columns)
        return ("alter_foreign_table", self.schema, self.table, *names)


@Operations.register_operation("set_statistics_target")
@dataclass(eq=False)
class SetStatisticsTargetOp(MigrateOperation):
    """Say how much ANALYZE may keep of a foreign table's columns; 0 is nothing, -1 the server's default."""

    table: str
    schema: str
    columns: tuple[str, ...]
    target: int = 0
    was: int = -1

    @classmethod
    def set_statistics_target(
        cls,
        operations: Operations,
        table: str,
        columns: Sequence[str],
        *,
        schema: str,
        target: int = 0,
        was: int = -1,
    ) -> None:
        """Set the statistics target of ``columns``; ``was`` is what reversing needs.

        Above 0, ANALYZE of a foreign table copies sample values (patients' names) into the cloud's pg_statistic.

            op.set_statistics_target("hospital_patients", ["name"], schema="federation_link")

        https://www.postgresql.org/docs/current/sql-alterforeigntable.html
        """
        operations.invoke(cls(table, schema, tuple(columns), target, was))

    def reverse(self) -> SetStatisticsTargetOp:
        return SetStatisticsTargetOp(self.table, self.schema, self.columns, self.was, self.target)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("set_statistics_target", self.schema, self.table, self.columns, self.target)


@Operations.register_operation("set_foreign_table_options")
@dataclass(eq=False)
class SetForeignTableOptionsOp(MigrateOperation):
    """Options of a foreign table that stand before the server's, such as ``fetch_size``."""

    table: str
    schema: str
    options: Mapping[str, str]
    was: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def set_foreign_table_options(
        cls,
        operations: Operations,
        table: str,
        options: Mapping[str, str],
        *,
        schema: str,
        was: Mapping[str, str] = {},
    ) -> None:
        """Set the options of a foreign table to ``options``; ``was`` is what they were.

        ``schema_name`` and ``table_name`` are the import's: ValueError. With ``use_remote_estimate`` a caller's plan
        says how many rows of others there are.

            op.set_foreign_table_options("hospital_prescriptions", {"fetch_size": "200"}, schema="federation_link")

        https://www.postgresql.org/docs/current/postgres-fdw.html#POSTGRES-FDW-OPTIONS
        """
        operations.invoke(cls(table, schema, options, was))

    def __post_init__(self) -> None:
        if own := {*self.options, *self.was} & IMPORTED:
            raise ValueError(f"{self.table}: {', '.join(sorted(own))} is what the import has set")

    def reverse(self) -> SetForeignTableOptionsOp:
        return SetForeignTableOptionsOp(self.table, self.schema, self.was, self.options)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("set_foreign_table_options", self.schema, self.table, dict(self.options))


def _expect(declared: Columns, table: str, schema: str) -> sql.Composed:
    """A block that raises unless ``schema.table`` holds the declared columns as declared."""
    return _EXPECT.format(
        definitions=sql.Literal(column_definitions(declared).as_string(None)),
        generated=sql.Literal([column.name for column in declared if column.computed is not None]),
        remedy=sql.Literal("the hospital goes first: federation upgrade, on the way down federation downgrade"),
        schema=sql.Literal(schema),
        table=sql.Literal(table),
    )


_EXPECT = sql.SQL(
    """
DO $federation$
DECLARE
    arrived CONSTANT regclass := to_regclass(format('%I.%I', {schema}, {table}));
    wrong text;
BEGIN
    IF arrived IS NULL THEN
        RAISE EXCEPTION 'the hospital has no table %', {table}
            USING ERRCODE = 'ZF007', HINT = {remedy};
    END IF;
    EXECUTE 'CREATE TEMPORARY TABLE federation_declared (' || {definitions} || ') ON COMMIT DROP';
    WITH side AS (
        SELECT a.attrelid = arrived AS hospital, a.attname, a.attnum,
            format_type(a.atttypid, a.atttypmod)
            || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END
            || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
            || CASE WHEN CASE WHEN a.attrelid = arrived THEN a.attgenerated <> ''
                              ELSE a.attname = ANY ({generated}::text[]) END THEN ' GENERATED' ELSE '' END AS spelling
        FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid IN (arrived, 'pg_temp.federation_declared'::regclass) AND a.attnum > 0 AND NOT a.attisdropped
    )
    SELECT string_agg(
        CASE WHEN a.attname IS NULL THEN format('column %s.%s is missing at the hospital', {table}, d.attname)
             ELSE format('column %s.%s is %s at the hospital and declared %s',
                {table}, d.attname, a.spelling, d.spelling)
        END, '; ' ORDER BY d.attnum)
    INTO wrong
    FROM side AS d LEFT JOIN side AS a ON a.hospital AND a.attname = d.attname
    WHERE NOT d.hospital AND a.spelling IS DISTINCT FROM d.spelling;
    DROP TABLE pg_temp.federation_declared;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong
            USING ERRCODE = 'ZF007', HINT = {remedy};
    END IF;
END $federation$
"""
)

_DROP_SURPLUS = sql.SQL(
    """
DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER FOREIGN TABLE %s DROP COLUMN %I', attrelid::regclass, attname)
        FROM pg_catalog.pg_attribute
        WHERE attrelid = to_regclass(format('%I.%I', {schema}, {table})) AND attnum > 0 AND NOT attisdropped
            AND attname <> ALL ({columns}::text[])
        ORDER BY attnum
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$
"""
)

_IMPORT_BESIDE = sql.SQL(
    """
DO $federation$
DECLARE
    origin record;
BEGIN
    SELECT s.srvname AS server,
        (SELECT o.option_value FROM pg_options_to_table(t.ftoptions) AS o
         WHERE o.option_name = 'schema_name') AS schema,
        (SELECT o.option_value FROM pg_options_to_table(t.ftoptions) AS o
         WHERE o.option_name = 'table_name') AS name
    INTO STRICT origin
    FROM pg_catalog.pg_foreign_table AS t JOIN pg_catalog.pg_foreign_server AS s ON s.oid = t.ftserver
    WHERE t.ftrelid = format('%I.%I', {schema}, {table})::regclass;
    CREATE SCHEMA federation_import;
    EXECUTE format('IMPORT FOREIGN SCHEMA %I LIMIT TO (%I) FROM SERVER %I INTO federation_import',
        origin.schema, origin.name, origin.server) || {options};
END $federation$
"""
)


# A link that has been re-pointed leads to somebody's tables all the same.
_REQUIRE_HOSPITAL = sql.SQL(
    """
DO $federation$
BEGIN
    IF to_regprocedure('federation_private.require_hospital()') IS NOT NULL THEN
        PERFORM federation_private.require_hospital();
    END IF;
END $federation$
"""
)


def _import_options(options: Mapping[str, str]) -> sql.Composed:
    """What follows INTO; empty without options."""
    if not options:
        return sql.Composed([])
    pairs = (sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in options.items())
    return sql.SQL(" OPTIONS ({})").format(sql.SQL(", ").join(pairs))


# With targets of 0 it brings the row count, without which the planner fetches whole tables. A hospital that does not
# let the service role read a table keeps its count; that is no reason to stop a release.
_ANALYZE = sql.SQL(
    """
DO $federation$
BEGIN
    EXECUTE {statement};
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'no row count: %', SQLERRM;
END $federation$
"""
)


@Operations.implementation_for(ImportForeignSchemaOp)
def _import(operations: Operations, op: ImportForeignSchemaOp) -> None:
    execute(operations, _REQUIRE_HOSPITAL)
    execute(
        operations,
        sql.SQL("IMPORT FOREIGN SCHEMA {} LIMIT TO ({}) FROM SERVER {} INTO {}{}").format(
            sql.Identifier(op.remote_schema),
            sql.SQL(", ").join(map(sql.Identifier, op.tables)),
            sql.Identifier(op.server),
            sql.Identifier(op.into),
            _import_options(op.options),
        ),
    )
    for table, columns in op.tables.items():
        declared = named(columns)
        names = [column.name for column in declared]
        execute(operations, _expect(declared, table, op.into))
        execute(
            operations,
            _DROP_SURPLUS.format(schema=sql.Literal(op.into), table=sql.Literal(table), columns=sql.Literal(names)),
        )
        execute(operations, _alter(op.into, table, _statistics(names, 0)))
        name = sql.Identifier(op.into, table)
        execute(operations, _ANALYZE.format(statement=sql.Literal(sql.SQL("ANALYZE {}").format(name).as_string(None))))


@Operations.implementation_for(DropForeignTablesOp)
def _drop(operations: Operations, op: DropForeignTablesOp) -> None:
    tables = sql.SQL(", ").join(sql.Identifier(op.schema, table) for table in op.tables)
    execute(operations, sql.SQL("DROP FOREIGN TABLE {}").format(tables))


@Operations.implementation_for(AlterForeignTableOp)
def _alter_table(operations: Operations, op: AlterForeignTableOp) -> None:
    added = named(op.add)
    asked = (*added, *named(new for _, new in op.alter))
    if asked and op.ask:
        options = sql.Literal(_import_options(op.options).as_string(None))
        beside = _IMPORT_BESIDE.format(schema=sql.Literal(op.schema), table=sql.Literal(op.table), options=options)
        execute(operations, _REQUIRE_HOSPITAL)
        execute(operations, beside)
        execute(operations, _expect(asked, op.table, "federation_import"))
        execute(operations, sql.SQL("DROP SCHEMA federation_import CASCADE"))
    actions: list[sql.Composable] = [
        sql.SQL("DROP COLUMN {}").format(sql.Identifier(column.name)) for column in named(op.drop)
    ]
    for old, new in op.alter:
        actions += _altered(old, new)
    for column in added:
        name = sql.Identifier(column.name)
        actions += [
            sql.SQL("ADD COLUMN {}").format(column_definition(column, column.computed)),
            # As IMPORT has it. An action of its own: inside ADD COLUMN it would have to stand before COLLATE.
            sql.SQL("ALTER COLUMN {} OPTIONS (ADD column_name {})").format(name, sql.Literal(column.name)),
            *_statistics([column.name], 0),
        ]
    if actions:
        execute(operations, _alter(op.schema, op.table, actions))


def _altered(old: Column[Any], new: Column[Any]) -> list[sql.Composed]:
    """The actions that make ``old`` to ``new``."""
    actions, name = [], sql.Identifier(new.name)
    if type_sql(old.type) != type_sql(new.type):
        actions.append(sql.SQL("ALTER COLUMN {} TYPE {}").format(name, type_sql(new.type)))
    if old.nullable != new.nullable:
        verb = sql.SQL("DROP" if new.nullable else "SET")
        actions.append(sql.SQL("ALTER COLUMN {} {} NOT NULL").format(name, verb))
    return actions


@Operations.implementation_for(SetStatisticsTargetOp)
def _set_statistics(operations: Operations, op: SetStatisticsTargetOp) -> None:
    if op.columns:
        execute(operations, _alter(op.schema, op.table, _statistics(op.columns, op.target)))


@Operations.implementation_for(SetForeignTableOptionsOp)
def _set_options(operations: Operations, op: SetForeignTableOptionsOp) -> None:
    changes: list[sql.Composable] = [
        sql.SQL("{} {} {}").format(sql.SQL("SET" if key in op.was else "ADD"), sql.Identifier(key), sql.Literal(value))
        for key, value in op.options.items()
        if op.was.get(key) != value
    ]
    changes += [sql.SQL("DROP {}").format(sql.Identifier(key)) for key in op.was if key not in op.options]
    if changes:
        options = sql.SQL("OPTIONS ({})").format(sql.SQL(", ").join(changes))
        execute(operations, _alter(op.schema, op.table, [options]))


def _statistics(columns: Sequence[str], target: int) -> list[sql.Composed]:
    return [
        sql.SQL("ALTER COLUMN {} SET STATISTICS {}").format(sql.Identifier(column), sql.SQL(str(int(target))))
        for column in columns
    ]


def _alter(schema: str, table: str, actions: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL("ALTER FOREIGN TABLE {} {}").format(sql.Identifier(schema, table), sql.SQL(", ").join(actions))


@renderers.dispatch_for(ImportForeignSchemaOp)
def _render_import(context: AutogenContext, op: ImportForeignSchemaOp) -> str:
    tables = {name: list(columns) for name, columns in op.tables.items()}
    more = given(options=dict(op.options))
    return call(
        context, "import_foreign_schema", op.remote_schema, server=op.server, into=op.into, tables=tables, **more
    )


@renderers.dispatch_for(DropForeignTablesOp)
def _render_drop(context: AutogenContext, op: DropForeignTablesOp) -> str:
    return call(context, "drop_foreign_tables", op.schema, *op.tables)


@renderers.dispatch_for(AlterForeignTableOp)
def _render_alter(context: AutogenContext, op: AlterForeignTableOp) -> str:
    changes = given(add=list(op.add), drop=list(op.drop), alter=list(op.alter), options=dict(op.options))
    if not op.ask:
        changes["ask"] = False
    return call(context, "alter_foreign_table", op.table, schema=op.schema, **changes)


@renderers.dispatch_for(SetStatisticsTargetOp)
def _render_statistics(context: AutogenContext, op: SetStatisticsTargetOp) -> str:
    return call(
        context,
        "set_statistics_target",
        op.table,
        list(op.columns),
        schema=op.schema,
        target=op.target,
        was=op.was,
    )


@renderers.dispatch_for(SetForeignTableOptionsOp)
def _render_options(context: AutogenContext, op: SetForeignTableOptionsOp) -> str:
    more = given(was=dict(op.was))
    return call(context, "set_foreign_table_options", op.table, dict(op.options), schema=op.schema, **more)
