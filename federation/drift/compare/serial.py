"""Serial columns of the hospital's tables: Alembic leaves their defaults out, and the cloud sends no value for them."""

from __future__ import annotations

from collections.abc import Iterator

from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.statements import is_serial

_HINT = "declare sa.Identity(), or autoincrement=False where the app gives the value"


def compare(survey: Survey) -> Iterator[Finding]:
    """Columns that are declared as serial and take no number there: every INSERT of the app would fail."""
    for table in survey.declared.tables:
        there = survey.table(table.name)
        for column in filter(is_serial, table.columns):
            found = there.columns.get(column.name) if there is not None else None
            if found is not None and not found.numbered:
                yield Finding("column", f"{table.name}.{column.name}", "is declared as serial and is not", _HINT)
