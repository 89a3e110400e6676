"""Row-level security of the local tables: on, whatever else."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.survey import Survey
from federation.operations.policies import EnableRowLevelSecurityOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """An exported table without row-level security shows every row to the link roles."""
    for table in survey.declared.tables:
        there = survey.table(table.name)
        if there is None or not there.row_security:
            yield EnableRowLevelSecurityOp(table.name, survey.config.tables.schema_)
