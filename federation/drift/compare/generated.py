"""Generated columns of the hospital's tables: Alembic only warns, and PostgreSQL before 17 changes no expression."""

from __future__ import annotations

from collections.abc import Iterator

from federation.drift.catalog import ColumnFacts
from federation.drift.finding import Finding
from federation.drift.survey import Survey

_HINT = "declare what is there, or write it by hand (DROP COLUMN and ADD COLUMN; from 17 on SET EXPRESSION)"


def compare(survey: Survey) -> Iterator[Finding]:
    """Report columns whose generation expression differs from the declared one, or that only one side generates."""
    for table in survey.declared.tables:
        there, spelled = survey.table(table.name), survey.spelled[table.name].columns
        for name, facts in there.columns.items() if there is not None else ():
            if name in spelled and (facts.generated or spelled[name].generated):
                found, declared = _as_text(facts), _as_text(spelled[name])
                if found != declared:
                    yield Finding("column", f"{table.name}.{name}", f"is {found} and should be {declared}", _HINT)


def _as_text(facts: ColumnFacts) -> str:
    kinds = {"s": "STORED", "v": "VIRTUAL"}
    return f"GENERATED ALWAYS AS ({facts.default}) {kinds[facts.generated]}" if facts.generated else "not generated"
