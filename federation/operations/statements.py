"""One way to send composed SQL: the same text online and in ``--sql``."""

from __future__ import annotations

from typing import Any

from alembic.operations import Operations
from psycopg import sql
from sqlalchemy import Column
from sqlalchemy.dialects import postgresql

from federation.databases import ddl


def execute(operations: Operations, statement: sql.Composable) -> None:
    """Send ``statement``, which psycopg.sql has quoted."""
    operations.execute(ddl(statement))


def column_definitions(columns: tuple[Column[Any], ...]) -> sql.Composed:
    """``name type [NOT NULL], …`` of declared columns, without defaults and keys: those are the hospital's."""
    return sql.Composed([column_definition(column) for column in columns]).join(", ")


def column_definition(column: Column[Any], options: sql.Composable | None = None) -> sql.Composed:
    """``name type [OPTIONS (…)] [NOT NULL]`` of one declared column."""
    kind = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    parts: list[sql.Composable] = [sql.Identifier(column.name), sql.SQL(kind)]
    if options is not None:
        parts.append(options)
    if not column.nullable:
        parts.append(sql.SQL("NOT NULL"))
    return sql.Composed(parts).join(" ")
