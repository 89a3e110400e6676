"""IMPORT FOREIGN SCHEMA and changes of foreign tables as Alembic operations, with named columns.

IMPORT succeeds while importing nothing, and it brings columns that the release does not know; a foreign table with
such a column sends NULL for it on INSERT. So a release names its columns: what arrives must hold each of them with
the same type and nullability, and a surplus is dropped from the foreign table. The comparison is SQL, so that online
and ``--sql`` are the same: a temporary table made from the declaration says how the server spells the types.

https://www.postgresql.org/docs/current/sql-importforeignschema.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from psycopg import sql
from sqlalchemy import Column

from federation.operations.statements import column_definition, column_definitions, execute

Columns = tuple[Column[Any], ...]


@Operations.register_operation("import_foreign_schema")
@dataclass(eq=False)
class ImportForeignSchemaOp(MigrateOperation):
    """Make foreign tables of named tables at the hospital, with named columns."""

    remote_schema: str
    server: str
    into: str
    tables: Mapping[str, Columns]

    @classmethod
    def import_foreign_schema(
        cls,
        operations: Operations,
        remote_schema: str,
        *,
        server: str,
        into: str,
        tables: Mapping[str, Sequence[Column[Any]]],
    ) -> None:
        """Import ``tables`` (name to columns) of ``remote_schema`` into the schema ``into``.

        Every statistics target is 0, and nobody is granted anything. The database raises ZF007 (exit code 7), naming
        table and column, when the hospital lacks one or has it with another type or nullability.

            op.import_foreign_schema("public", server="hospital", into="federation_link",
                                     tables={"hospital_patients": [sa.Column("id", sa.UUID, nullable=False)]})
        """
        operations.invoke(cls(remote_schema, server, into, {name: tuple(columns) for name, columns in tables.items()}))

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
        """``op.drop_foreign_tables("federation_link", "hospital_patients")``; refused while a view reads one."""
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
    """Give a foreign table columns that the hospital's table has by now, or take some away."""

    table: str
    schema: str
    add: Columns = ()
    drop: Columns = ()

    @classmethod
    def alter_foreign_table(
        cls,
        operations: Operations,
        table: str,
        *,
        schema: str,
        add: Sequence[Column[Any]] = (),
        drop: Sequence[Column[Any]] = (),
    ) -> None:
        """Add and drop columns of a foreign table. Adding asks the hospital, dropping does not.

        The database raises ZF007 (exit code 7), naming table and column, when the hospital lacks an added one.

            op.alter_foreign_table("hospital_patients", schema="federation_link", add=[sa.Column("phone", sa.Text)])
        """
        operations.invoke(cls(table, schema, tuple(add), tuple(drop)))

    def reverse(self) -> AlterForeignTableOp:
        return AlterForeignTableOp(self.table, self.schema, self.drop, self.add)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        names = tuple(tuple(column.name for column in columns) for columns in (self.add, self.drop))
        return ("alter_foreign_table", self.schema, self.table, *names)


def _expect(declared: Columns, table: str, schema: str) -> sql.Composed:
    """A block that raises unless ``schema.table`` holds the declared columns as declared."""
    return _EXPECT.format(
        definitions=sql.Literal(column_definitions(declared).as_string(None)),
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
            USING ERRCODE = 'ZF007', HINT = 'upgrade the local database first: federation upgrade';
    END IF;
    EXECUTE 'CREATE TEMPORARY TABLE federation_declared (' || {definitions} || ') ON COMMIT DROP';
    SELECT string_agg(
        CASE WHEN a.attname IS NULL THEN format('column %s.%s is missing at the hospital', {table}, d.attname)
             ELSE format('column %s.%s is %s at the hospital and declared %s', {table}, d.attname,
                format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                format_type(d.atttypid, d.atttypmod) || CASE WHEN d.attnotnull THEN ' NOT NULL' ELSE '' END)
        END, '; ' ORDER BY d.attnum)
    INTO wrong
    FROM pg_catalog.pg_attribute AS d
    LEFT JOIN pg_catalog.pg_attribute AS a
        ON a.attrelid = arrived AND a.attname = d.attname AND a.attnum > 0 AND NOT a.attisdropped
    WHERE d.attrelid = 'pg_temp.federation_declared'::regclass AND d.attnum > 0
        AND (a.atttypid, a.atttypmod, a.attnotnull) IS DISTINCT FROM (d.atttypid, d.atttypmod, d.attnotnull);
    DROP TABLE pg_temp.federation_declared;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong
            USING ERRCODE = 'ZF007', HINT = 'bring the local database to this release: federation upgrade';
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
        origin.schema, origin.name, origin.server);
END $federation$
"""
)


@Operations.implementation_for(ImportForeignSchemaOp)
def _import(operations: Operations, op: ImportForeignSchemaOp) -> None:
    execute(
        operations,
        sql.SQL("IMPORT FOREIGN SCHEMA {} LIMIT TO ({}) FROM SERVER {} INTO {}").format(
            sql.Identifier(op.remote_schema),
            sql.SQL(", ").join(map(sql.Identifier, op.tables)),
            sql.Identifier(op.server),
            sql.Identifier(op.into),
        ),
    )
    for table, columns in op.tables.items():
        names = [column.name for column in columns]
        execute(operations, _expect(columns, table, op.into))
        execute(
            operations,
            _DROP_SURPLUS.format(schema=sql.Literal(op.into), table=sql.Literal(table), columns=sql.Literal(names)),
        )
        actions = [sql.SQL("ALTER COLUMN {} SET STATISTICS 0").format(sql.Identifier(name)) for name in names]
        execute(operations, _alter(op.into, table, actions))


@Operations.implementation_for(DropForeignTablesOp)
def _drop(operations: Operations, op: DropForeignTablesOp) -> None:
    tables = sql.SQL(", ").join(sql.Identifier(op.schema, table) for table in op.tables)
    execute(operations, sql.SQL("DROP FOREIGN TABLE {}").format(tables))


@Operations.implementation_for(AlterForeignTableOp)
def _alter_table(operations: Operations, op: AlterForeignTableOp) -> None:
    if op.add:
        execute(operations, _IMPORT_BESIDE.format(schema=sql.Literal(op.schema), table=sql.Literal(op.table)))
        execute(operations, _expect(op.add, op.table, "federation_import"))
        execute(operations, sql.SQL("DROP SCHEMA federation_import CASCADE"))
    actions = [sql.SQL("DROP COLUMN {}").format(sql.Identifier(column.name)) for column in op.drop]
    for column in op.add:
        option = sql.SQL("OPTIONS (column_name {})").format(sql.Literal(column.name))
        definition = column_definition(column, option)
        actions += [
            sql.SQL("ADD COLUMN {}").format(definition),
            sql.SQL("ALTER COLUMN {} SET STATISTICS 0").format(sql.Identifier(column.name)),
        ]
    if actions:
        execute(operations, _alter(op.schema, op.table, actions))


def _alter(schema: str, table: str, actions: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL("ALTER FOREIGN TABLE {} {}").format(sql.Identifier(schema, table), sql.SQL(", ").join(actions))


def _render_columns(context: AutogenContext, columns: Columns) -> str:
    context.imports.add("import sqlalchemy as sa")
    return "[" + ", ".join(_render_column(column) for column in columns) + "]"


def _render_column(column: Column[Any]) -> str:
    return f"sa.Column({column.name!r}, sa.{column.type!r}, nullable={column.nullable!r})"


@renderers.dispatch_for(ImportForeignSchemaOp)
def _render_import(context: AutogenContext, op: ImportForeignSchemaOp) -> str:
    tables = ", ".join(f"{name!r}: {_render_columns(context, columns)}" for name, columns in op.tables.items())
    return (
        f"op.import_foreign_schema({op.remote_schema!r}, server={op.server!r}, into={op.into!r}, tables={{{tables}}})"
    )


@renderers.dispatch_for(DropForeignTablesOp)
def _render_drop(_context: object, op: DropForeignTablesOp) -> str:
    return f"op.drop_foreign_tables({', '.join(map(repr, (op.schema, *op.tables)))})"


@renderers.dispatch_for(AlterForeignTableOp)
def _render_alter(context: AutogenContext, op: AlterForeignTableOp) -> str:
    return (
        f"op.alter_foreign_table({op.table!r}, schema={op.schema!r}, "
        f"add={_render_columns(context, op.add)}, drop={_render_columns(context, op.drop)})"
    )
