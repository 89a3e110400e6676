"""What an object was, in the terms of its declaration: what a release needs to be undone."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Table

from federation.drift.catalog import ColumnFacts, Relation
from federation.drift.survey import Survey
from federation.operations.views import RLSView


class Spelled(sa.types.UserDefinedType[Any]):
    """A type by the name that the server gives it: what a column was, when a release is undone."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """The name."""
        return self.name


def column_was(facts: ColumnFacts) -> Column[Any]:
    """A column as it is, so that a change of it can be reversed."""
    return Column(facts.name, Spelled(facts.type), nullable=not facts.not_null)


def view_was(survey: Survey, table: Table, there: Relation) -> RLSView:
    """The view as it is, in the terms of its declaration."""
    declared = survey.declared.view(table)
    return replace(
        declared,
        columns=tuple(there.columns),
        predicate=_predicate(there.definition or "") or declared.predicate,
        defaults={name: facts.default for name, facts in there.columns.items() if facts.default is not None},
        comment=there.comment,
    )


def _predicate(definition: str) -> str | None:
    """The WHERE of a view's body as the server prints it, on a line of its own."""
    match = re.search(r"\n\s+WHERE (.*);\s*$", definition, flags=re.DOTALL)
    return match.group(1) if match else None
