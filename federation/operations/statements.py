"""One way to send composed SQL, the same text online and in ``--sql``, and one way to spell a declared column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alembic.operations import Operations
from psycopg import sql
from sqlalchemy import Column, Computed
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.elements import ClauseElement, TextClause
from sqlalchemy.types import TypeEngine

from federation.databases import ddl

Columns = tuple[Column[Any], ...]

DIALECT: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
"""How declarations are spelled; any other paramstyle would double a ``%`` in a name. Made once: it is slow to make."""


def execute(operations: Operations, statement: sql.Composable) -> None:
    """Send ``statement``, which psycopg.sql has quoted."""
    context = operations.migration_context
    if context.as_sql:  # Alembic's own way there would make four spaces of a tab inside a value
        context.impl.static_output(statement.as_string(None).strip().rstrip(";") + ";")
    else:
        operations.execute(ddl(statement))


def type_sql(type_: TypeEngine[Any]) -> sql.SQL:
    """A declared type as PostgreSQL spells it, with its schema where one is given, and its collation."""
    return sql.SQL(type_.compile(dialect=DIALECT))


def expression(clause: ClauseElement | str) -> sql.SQL:
    r"""A declared expression as it was written: a ``:x`` in text is no bind parameter, ``\:x`` stands for it too."""
    if isinstance(clause, TextClause):
        return sql.SQL(clause.text.replace(r"\:", ":"))
    if isinstance(clause, str):
        return sql.SQL(clause)
    compiled = clause.compile(
        dialect=DIALECT,
        compile_kwargs={"literal_binds": True},
    )
    return sql.SQL(str(compiled))


def named(columns: Iterable[Column[Any]]) -> Columns:
    """The columns that a foreign table has.

    An identity column is left out: postgres_fdw sends every column of the foreign table on INSERT, and NULL is
    refused where the hospital would have given a number.
    """
    return tuple(column for column in columns if column.identity is None)


def column_definitions(columns: Columns) -> sql.Composed:
    """``name type [NOT NULL], …`` of declared columns, without defaults, keys and expressions: the hospital's."""
    return sql.Composed([column_definition(column) for column in columns]).join(", ")


def column_definition(column: Column[Any], computed: Computed | None = None) -> sql.Composed:
    """``name type [NOT NULL] [GENERATED ALWAYS AS (…) STORED]`` of one declared column."""
    parts: list[sql.Composable] = [sql.Identifier(column.name), type_sql(column.type)]
    if not column.nullable:
        parts.append(sql.SQL("NOT NULL"))
    if computed is not None:
        parts.append(sql.SQL("GENERATED ALWAYS AS ({}) STORED").format(expression(computed.sqltext)))
    return sql.Composed(parts).join(" ")
