"""Columns of foreign tables that are no longer declared: they go after the views have let go of them."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.survey import Survey
from federation.operations.foreign_tables import AlterForeignTableOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Drop surplus columns of foreign tables: an INSERT would send NULL for them."""
    for table in survey.declared.tables:
        there = survey.foreign_table(table.name)
        if there is None:
            continue
        declared = {column.name for column in table.columns}
        drop = tuple(survey.reflected[table.name][name] for name in there.columns if name not in declared)
        if drop:
            yield AlterForeignTableOp(table.name, survey.config.tables.link_schema, drop=drop)
