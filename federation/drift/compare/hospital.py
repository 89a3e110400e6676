"""The cloud's foreign tables against the hospital's own catalog, over the link.

``count(*)`` through a view works although a column at the hospital was renamed or retyped: only this finds it.
"""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.finding import Finding
from federation.drift.survey import Survey

_HINT = "bring the hospital's table back, or declare the change: federation revision --autogenerate"


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Report columns of foreign tables that are missing or differ at the hospital. A surplus there is allowed."""
    if survey.hospital is None:
        return
    for table in survey.declared.tables:
        here, there = survey.foreign_table(table.name), survey.hospital.get(table.name)
        declared = survey.spelled[table.name].columns
        if here is None:
            continue
        if there is None:
            yield Finding("hospital's table", table.name, "does not exist", _HINT)
            continue
        for name, facts in here.columns.items():
            if name not in declared or str(facts) != str(declared[name]):
                continue  # the cloud's own column differs, which the other comparators say
            found = there.columns.get(name)
            if found is None:
                yield Finding("hospital's column", f"{table.name}.{name}", "does not exist", _HINT)
            elif str(found) != str(facts):
                yield Finding(
                    "hospital's column", f"{table.name}.{name}", f"is {found} there and {facts} in the cloud", _HINT
                )
