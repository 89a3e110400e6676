"""Valid rows for the hospital's tables: what a test does not care about is filled in from the catalog.

A column that is not given is left to its default, or NULL where it may be. Of the others the site's column holds the
site, a foreign key points at a row (made, if there is none), a CHECK that lists values gets the first of them, a uuid
that is the caller's by default is the site's account, and the rest is made up by type.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from federation.config import Config
from federation.errors import FederationError, PreconditionMissing

Row: TypeAlias = Mapping[str, object]
NO_ROWS: Mapping[str, Row] = {}

_MADE_UP = {
    "bool": "false",
    "bytea": "",
    "char": "x",
    "cidr": "127.0.0.0/8",
    "date": "2000-01-01",
    "inet": "127.0.0.1",
    "interval": "1 day",
    "json": "{}",
    "jsonb": "{}",
    "time": "12:00",
    "timestamp": "2000-01-01 12:00",
    "timestamptz": "2000-01-01 12:00+00",
    "timetz": "12:00+00",
}
_NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric", "money", "oid"}
_TEXTS = {"text", "varchar", "bpchar", "name", "citext"}

# Of a domain, its base type; of an enum, its first label. length: of varchar(n) and char(n). of_caller: the default
# calls a function of schema auth, and past the link there is no caller.
_COLUMNS = """
    SELECT c.relname AS table, a.attname AS column, b.typname AS type, b.typcategory = 'A' AS is_array,
        a.attnotnull OR t.typnotnull AS required,
        a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default,
        a.attgenerated <> '' OR a.attidentity <> ''
            OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%%', false) AS is_generated,
        a.attgenerated <> '' AS is_computed,
        a.attgenerated = '' AND EXISTS (SELECT FROM pg_depend AS dep JOIN pg_proc AS p ON p.oid = dep.refobjid
            WHERE dep.classid = 'pg_attrdef'::regclass AND dep.objid = d.oid AND dep.refclassid = 'pg_proc'::regclass
                AND p.pronamespace = to_regnamespace('auth')) AS of_caller,
        CASE WHEN b.typname IN ('varchar', 'bpchar') AND greatest(a.atttypmod, t.typtypmod) > 4
            THEN greatest(a.atttypmod, t.typtypmod) - 4 END AS length,
        (SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = b.oid ORDER BY e.enumsortorder LIMIT 1) AS label
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    JOIN pg_type AS b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
    WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind IN ('r', 'p')
        AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum
"""

_CONSTRAINTS = """
    SELECT c.relname AS table, k.contype::text AS kind, pg_get_constraintdef(k.oid) AS definition,
        ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS key (number, position)
            JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = key.number ORDER BY position) AS columns,
        f.relname AS parent,
        ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS key (number, position)
            JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = key.number ORDER BY position) AS of_parent
    FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid LEFT JOIN pg_class AS f ON f.oid = k.confrelid
    WHERE k.connamespace = to_regnamespace(%(schema)s) AND k.contype IN ('c', 'f', 'p')
    ORDER BY c.relname, k.conname
"""

_FIRST_VALUE = re.compile(r"(?:= ANY \(+ARRAY\[|= )'((?:[^']|'')*)'")
"""Of a CHECK (status = ANY (ARRAY['pending'::text, …])), or of one that admits a single value."""


@dataclass
class _Column:
    column: str
    type: str
    is_array: bool
    required: bool
    has_default: bool
    is_generated: bool
    """By the hospital, numbers of identity and serial columns included: through the cloud no value goes there."""
    is_computed: bool
    """From other columns: no value goes there at all."""
    of_caller: bool
    """By its default, which is NULL where nobody is bound."""
    length: int | None
    label: str | None
    listed: str | None = None
    """The first value that a CHECK of this column alone lists."""


@dataclass
class Table:
    """One of the hospital's tables: its columns, its primary key and its foreign keys."""

    columns: dict[str, _Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    parents: list[tuple[tuple[str, ...], str, tuple[str, ...]]] = field(default_factory=list)
    """Columns, the table that they point at, and its columns."""


class Rows:
    """Makes rows, by a superuser's connection to the hospital's database, in the schema of the exported tables."""

    def __init__(self, connection: psycopg.Connection[Any], config: Config) -> None:
        self.connection, self.config = connection, config
        self.schema = config.tables.schema_
        self.tables: defaultdict[str, Table] = defaultdict(Table)
        self._numbers = itertools.count(1)
        self._last: dict[str, dict[str, Any]] = {}
        cursor = connection.cursor(row_factory=dict_row)
        for row in cursor.execute(_COLUMNS, {"schema": self.schema}).fetchall():
            table = self.tables[row.pop("table")]
            table.columns[row["column"]] = _Column(**row)
        for row in cursor.execute(_CONSTRAINTS, {"schema": self.schema}).fetchall():
            table, columns = self.tables[row["table"]], tuple(row["columns"])
            if row["kind"] == "p":
                table.key = columns
            elif row["kind"] == "f":
                table.parents.append((columns, row["parent"], tuple(row["of_parent"])))
            elif len(columns) == 1 and (found := _FIRST_VALUE.search(row["definition"])):
                table.columns[columns[0]].listed = found[1].replace("''", "'")

    def load(self, rows: Mapping[str, int | Iterable[Row]]) -> dict[str, list[dict[str, Any]]]:
        """Insert ``rows``, by table, in their order; a number stands for so many. Returns them as they are stored."""
        return {
            table: [self.insert(table, row) for row in ([{}] * given if isinstance(given, int) else given)]
            for table, given in rows.items()
        }

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Whatever is inserted in the block is gone after it."""
        before = dict(self._last)
        try:
            with self.connection.transaction(force_rollback=True):
                yield
        finally:
            self._last = before

    @contextmanager
    def without(self, table: str, key: Row) -> Iterator[None]:
        """The row of ``key`` is not there in the block, for every session, and then as it was.

        What points at it stays, and no trigger runs.
        """
        name, stored = sql.Identifier(self.schema, table), self.tables[table].columns
        columns = sql.SQL(", ").join(sql.Identifier(name) for name, column in stored.items() if not column.is_computed)
        found = sql.SQL("FROM {} WHERE {}").format(name, equal(key))
        kept = sql.SQL("SELECT {} FROM pg_temp.kept").format(columns)
        self._unwatched(
            (sql.SQL("CREATE TEMP TABLE kept AS SELECT {} {}").format(columns, found), list(key.values())),
            (sql.SQL("DELETE {}").format(found), list(key.values())),
        )
        try:
            yield
        finally:
            self._unwatched(
                (sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {}").format(name, columns, kept), []),
                (sql.SQL("DROP TABLE {}").format(sql.Identifier("pg_temp", "kept")), []),
            )

    def _unwatched(self, *commands: tuple[sql.Composed, list[object]]) -> None:
        """In one transaction in which neither foreign keys nor triggers act."""
        with self.connection.transaction():
            self.connection.execute("SET LOCAL session_replication_role = replica")
            for command, values in commands:
                self.connection.execute(command, values)

    def insert(self, table: str, given: Row, parents: Mapping[str, Row] = NO_ROWS) -> dict[str, Any]:
        """Insert one row and return it; its foreign keys point at ``parents`` (by table) where it needs such a row.

        FederationError, naming the constraint, where no valid row could be made up.
        """
        values = self.complete(table, given, parents)
        name = sql.Identifier(self.schema, table)
        statement = sql.SQL("{} RETURNING *").format(insert_into(name, values, own_numbers=True))
        try:
            with self.connection.transaction(), self.connection.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(statement, list(values.values())).fetchone()
        except psycopg.Error as error:
            constraint = f"; its constraint is {error.diag.constraint_name}" if error.diag.constraint_name else ""
            raise FederationError(
                f"no row could be made for {self.schema}.{table} ({error.diag.message_primary}){constraint}",
                side="local",
                hint=f"give the columns that it is about, as in pair.load({{{table!r}: [{{…}}]}})",
            ) from error
        if row is None:
            raise FederationError(f"a trigger of {self.schema}.{table} has swallowed the row", side="local")
        self._last[table] = row
        return row

    def complete(self, table: str, given: Row, parents: Mapping[str, Row] = NO_ROWS) -> dict[str, object]:
        """``given``, and what a valid row needs besides; a foreign key's row is inserted if there is none."""
        if table not in self.tables:
            known = ", ".join(sorted(self.tables)) or "none"
            raise PreconditionMissing(
                f"there is no table {self.schema}.{table} at this release", side="local", hint=f"the tables are {known}"
            )
        columns = self.tables[table].columns
        if unknown := given.keys() - columns.keys():
            raise PreconditionMissing(
                f"{self.schema}.{table} has no column {', '.join(sorted(unknown))} at this release",
                side="local",
                hint=f"its columns are {', '.join(columns)}",
            )
        values = {name: _adapted(columns[name], value) for name, value in given.items()}
        site = self.config.tables.site_column
        if site in columns and site not in values:
            values[site] = str(self.config.site())
        needed = [
            c.column
            for c in columns.values()
            if c.required and not c.is_generated and (not c.has_default or (c.of_caller and c.type == "uuid"))
        ]
        for keys, parent, of_parent in self.tables[table].parents:
            if any(name in needed and name not in values for name in keys):
                row = self._parent(parent, parents)
                values |= {name: row[of] for name, of in zip(keys, of_parent, strict=True) if name not in values}
        return values | {name: self._made_up(table, columns[name]) for name in needed if name not in values}

    def _parent(self, table: str, parents: Mapping[str, Row]) -> Row:
        """The one of ``parents``, else the row that was inserted last, else any, else a new one."""
        if table in parents:
            return parents[table]
        if table not in self._last:
            query = sql.SQL("SELECT * FROM {} LIMIT 1").format(sql.Identifier(self.schema, table))
            found = self.connection.cursor(row_factory=dict_row).execute(query).fetchone()
            self._last[table] = found or self.insert(table, {}, parents)
        return self._last[table]

    def _made_up(self, table: str, column: _Column) -> object:
        number = next(self._numbers)
        if column.listed is not None or column.label is not None:
            return column.listed if column.listed is not None else column.label
        if column.of_caller:
            return self.config.site()
        if column.is_array:
            return "{}"
        if column.type == "uuid":
            return uuid4()
        if column.type in _NUMBERS:
            return str(number)
        if column.type in _TEXTS:
            return f"{column.column} {number}" if column.length is None else str(number)[-column.length :]
        if column.type in _MADE_UP:
            return _MADE_UP[column.type]
        raise PreconditionMissing(
            f"no value can be made up for {self.schema}.{table}.{column.column} of type {column.type}",
            side="local",
            hint=f"give one: pair.load({{{table!r}: [{{{column.column!r}: …}}]}})",
        )


def _adapted(column: _Column, value: object) -> object:
    """JSON may be given as what it is in Python."""
    return Jsonb(value) if column.type in {"json", "jsonb"} and not isinstance(value, (str, Jsonb)) else value


def insert_into(name: sql.Composable, columns: Collection[str], *, own_numbers: bool = False) -> sql.Composed:
    """Write an INSERT with a placeholder for each column; ``own_numbers`` are also those of an identity column.

    Without a column it inserts the defaults, since ``() VALUES ()`` is no SQL.
    """
    if not columns:
        return sql.SQL("INSERT INTO {} DEFAULT VALUES").format(name)
    return sql.SQL("INSERT INTO {} ({}) {}VALUES ({})").format(
        name,
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL("OVERRIDING SYSTEM VALUE " if own_numbers else ""),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
    )


def equal(row: Row) -> sql.Composed:
    """A condition that the values of ``row`` fill in, in their order."""
    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT DISTINCT FROM %s").format(sql.Identifier(name)) for name in row)
