"""Row-level security of the local tables: it must be on."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.survey import Survey
from federation.operations.policies import EnableRowLevelSecurityOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Enable row-level security on exported tables: without it, the link roles see every row."""
    for table in survey.declared.tables:
        there = survey.table(table.name)
        if there is None or not there.row_security:
            yield EnableRowLevelSecurityOp(table.name, survey.config.tables.schema_)
