"""Serial columns of the hospital's tables: Alembic leaves their defaults out, and the cloud sends no value for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql
from sqlalchemy import Column

from federation.drift.catalog import ColumnFacts, Relation
from federation.drift.finding import ByHand, Finding
from federation.drift.survey import Survey
from federation.operations.statements import is_numbered, is_serial

_HINT = "declare sa.Identity(), or autoincrement=False where the app gives the value"


def compare(survey: Survey) -> Iterator[Finding]:
    """Report columns declared as serial that have no sequence, and serial ones declared as identities.

    Every INSERT of the app would fail without a number. Alembic makes no identity of a serial column, nor the reverse.
    """
    for table in survey.declared.tables:
        there = survey.table(table.name)
        if there is None:
            continue
        for column in filter(is_numbered, table.columns):
            found, name = there.columns.get(column.name), f"{table.name}.{column.name}"
            if found is None:
                continue
            if is_serial(column) and not found.numbered:
                yield Finding("column", name, "is declared as serial and is not", _HINT)
            elif is_other_kind(column, found) and is_serial(column):
                yield ByHand("column", name, "is an identity column and is declared as serial", "declare sa.Identity()")
            elif is_other_kind(column, found):
                hint = "write it by hand, in an empty release of federation revision: " + _as_identity(column, there)
                yield ByHand("column", name, "is serial and is declared as sa.Identity()", hint)


def is_other_kind(column: Column[Any], there: ColumnFacts) -> bool:
    """Whether one is serial and the other an identity column."""
    takes_from_a_sequence = (there.default or "").startswith("nextval(")
    return there.numbered and (column.identity is not None if takes_from_a_sequence else is_serial(column))


def _as_identity(column: Column[Any], there: Relation) -> str:
    """Return the statements; the numbers go on where they were."""
    named, table = sql.Identifier(column.name), sql.Identifier(there.schema, there.name)
    sequence = there.sequences.get(column.name)
    statements = [sql.SQL("ALTER TABLE {} ALTER {} DROP DEFAULT").format(table, named)]
    if sequence is not None:
        statements.append(sql.SQL("DROP SEQUENCE {}").format(sql.Identifier(sequence.schema, sequence.name)))
    always = sql.SQL("ALWAYS" if column.identity is not None and column.identity.always else "BY DEFAULT")
    statements += [
        sql.SQL("ALTER TABLE {} ALTER {} ADD GENERATED {} AS IDENTITY").format(table, named, always),
        sql.SQL("SELECT setval(pg_get_serial_sequence({}, {}), max({})) FROM {}").format(
            table.as_string(None), column.name, named, table
        ),
    ]
    return sql.SQL("; ").join(statements).as_string(None)
