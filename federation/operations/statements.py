"""One way to send composed SQL, the same text online and in ``--sql``, and one way to spell a declared column."""

from __future__ import annotations

import re
from typing import Any

from alembic.operations import Operations
from psycopg import sql
from sqlalchemy import Column, Computed, Enum, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.sql.elements import ClauseElement, TextClause
from sqlalchemy.types import TypeEngine

from federation.databases import asking, ddl
from federation.operations.locks import Locks
from federation.operations.run import found

Columns = tuple[Column[Any], ...]

DIALECT: Dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
"""How declarations are spelled; any other paramstyle would double a ``%`` in a name. Made once: it is slow to make."""


def execute(
    operations: Operations,
    statement: sql.Composable,
    *,
    asks_hospital: bool = False,
    seconds: float = 0,
    locks: Locks | None = None,
) -> None:
    """Send ``statement``, which psycopg.sql has quoted.

    ``asks_hospital``: it waits for the hospital, which has ``seconds`` for its answer, or `link_timeout`.
    ``locks``: what a block locks; those of a single SQL command are known by its kind.
    """
    context = operations.migration_context
    if context.as_sql:  # Alembic's own way there would make four spaces of a tab inside a value
        write(operations, statement.as_string(None).strip().rstrip(";") + ";", locks)
    else:
        operations.execute(asking(statement, seconds) if asks_hospital else ddl(statement))


def write(operations: Operations, text: str, locks: Locks | None = None) -> None:
    """Write ``text`` to the script of ``--sql``, and note what it locks."""
    run = found(operations.migration_context)
    if locks is not None and run is not None:
        run.locks.append((text, locks))
    operations.migration_context.impl.static_output(text)


def type_sql(type_: TypeEngine[Any]) -> sql.SQL:
    """A declared type as PostgreSQL spells it, with its schema where one is given, and its collation."""
    return sql.SQL(type_.compile(dialect=DIALECT))


def key(type_: Enum | postgresql.DOMAIN) -> tuple[str | None, str]:
    """What tells a declared enum or domain from others: schema, where one is declared, and name."""
    return type_.schema, str(type_.name)


def expression(clause: ClauseElement | str) -> sql.SQL:
    r"""A declared expression for PostgreSQL: a ``:x`` in text is no bind parameter, ``\:x`` stands for it too."""
    if isinstance(clause, TextClause):
        return sql.SQL(_read(clause.text))
    if isinstance(clause, str):
        return sql.SQL(clause)
    compiled = clause.compile(
        dialect=DIALECT,
        compile_kwargs={"literal_binds": True},
    )
    return sql.SQL(str(compiled))


_BIND = re.compile(r"(?<![:\w\\]):\w+(?!:)")
_ESCAPE = re.compile(r"\\(:\w*)(?![:\w])")
"""What ``sa.text()`` takes for a bind parameter, and for a colon that is none."""


def _read(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


def as_text(clause: ClauseElement | str) -> str:
    """A declared expression as ``sa.text()`` takes it, and no ``:x`` in it is a bind parameter."""
    if isinstance(clause, TextClause):
        return _BIND.sub(r"\\\g<0>", clause.text)
    return escaped(expression(clause).as_string(None))


def escaped(expression: str) -> str:
    r"""SQL as ``sa.text()`` takes it: no ``:x`` in it is a bind parameter, and no ``\:`` loses its backslash.

    As it is where that does no harm, so that a migration reads as the SQL that it is.
    """
    harmless = _read(expression) == expression and not _BIND.search(expression)
    return expression if harmless else expression.replace(":", r"\:")


def reflected(column: ReflectedColumn) -> ReflectedColumn:
    """A column that the inspector has read, with the expression of a generated one as ``sa.Computed`` takes it.

    SQLAlchemy itself takes what the database says for ``sa.text()`` as it is. The inspector keeps what it has read, so
    that this is a copy.
    """
    generated = column.get("computed")
    if generated is None:
        return column
    return column | {"computed": generated | {"sqltext": escaped(generated["sqltext"])}}


def is_serial(column: Column[Any]) -> bool:
    """Whether the hospital's default for ``column`` is its sequence: SQLAlchemy makes it serial.

    In a release, where a column stands alone, ``autoincrement=True`` says it; in a table SQLAlchemy's own rule does.

    https://docs.sqlalchemy.org/en/21/core/metadata.html#sqlalchemy.schema.Column.params.autoincrement
    """
    if column.identity is not None or column.default is not None:
        return False
    if isinstance(column.table, Table):
        return column is column.table.autoincrement_column
    return column.autoincrement is True


def is_numbered(column: Column[Any]) -> bool:
    """Whether the hospital gives ``column`` its numbers: an identity or a serial column."""
    return column.identity is not None or is_serial(column)


def remade(columns: Columns) -> Columns:
    """Return the columns that must be made again after an import, in the form that the foreign table needs.

    That is those that the hospital numbers. As no expression may name a column that is generated itself, those of
    ``sa.Computed`` beside one say nothing but their type.
    """
    if not any(map(is_numbered, columns)):
        return ()
    return tuple(_of_its_type(column) for column in columns if is_numbered(column) or column.computed is not None)


def _of_its_type(column: Column[Any]) -> Column[Any]:
    if column.computed is None:
        return column
    computed = Computed(as_text(f"COALESCE(NULL::{type_sql(column.type).as_string(None)})"), persisted=True)
    return Column(column.name, column.type, computed, nullable=column.nullable)


def column_definitions(columns: Columns) -> sql.Composed:
    """``name type [NOT NULL], …`` of declared columns, without defaults, keys and expressions: the hospital's."""
    return sql.Composed([column_definition(column) for column in columns]).join(", ")


def column_definition(column: Column[Any]) -> sql.Composed:
    """``name type [NOT NULL]`` of one declared column."""
    parts: list[sql.Composable] = [sql.Identifier(column.name), type_sql(column.type)]
    if not column.nullable:
        parts.append(sql.SQL("NOT NULL"))
    return sql.Composed(parts).join(" ")


def foreign_column_definition(column: Column[Any]) -> sql.Composed:
    """``name type [NOT NULL] [GENERATED ALWAYS AS (…) STORED]``: as a foreign table has the declared column.

    postgres_fdw sends no value of a generated column and reads the hospital's, so that the expression does not matter;
    of a column that the hospital numbers it is NULL.
    """
    generated: sql.Composable
    if column.computed is not None:
        generated = expression(column.computed.sqltext)
    elif is_numbered(column):
        generated = sql.SQL("NULL::{}").format(type_sql(column.type))
    else:
        return column_definition(column)
    return sql.SQL("{} GENERATED ALWAYS AS ({}) STORED").format(column_definition(column), generated)
