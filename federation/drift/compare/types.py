"""Enums and domains that exported columns need, on either side, before the tables."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.survey import Survey
from federation.operations.statements import key
from federation.operations.types import CreateTypeOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """A declared type that is missing is created; others are not managed."""
    for type_ in survey.declared.types:
        if key(type_) not in survey.types:
            yield CreateTypeOp(type_)
