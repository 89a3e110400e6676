"""Statistics targets of foreign tables: any other than 0 lets ANALYZE copy patients' values into the cloud."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.survey import Survey
from federation.operations.foreign_tables import SetStatisticsTargetOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Set the target of declared columns to 0; a release that adds a column sets it there."""
    for table in survey.declared.tables:
        there = survey.foreign_table(table.name)
        if there is None:
            continue
        declared = {column.name for column in table.columns}
        loose = tuple(
            name for name, facts in there.columns.items() if name in declared and facts.statistics_target != 0
        )
        if loose:
            yield SetStatisticsTargetOp(table.name, survey.config.tables.link_schema, loose)
