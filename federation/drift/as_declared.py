"""What an object was, in the terms of its declaration: what a release needs to be undone."""

from __future__ import annotations

import re
from dataclasses import replace

from sqlalchemy import Table

from federation.drift.catalog import Relation
from federation.drift.survey import Survey
from federation.operations.deployment import Role
from federation.operations.grants import Privilege
from federation.operations.views import RLSView

_ROW_PRIVILEGES: tuple[Privilege, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE")


def view_was(survey: Survey, table: Table, there: Relation) -> RLSView:
    """The view as it is, in the terms of its declaration."""
    declared = survey.view(table)
    return replace(
        declared,
        columns=tuple(there.columns),
        predicate=_predicate(there.definition or "") or declared.predicate,
        defaults={name: facts.default for name, facts in there.columns.items() if facts.default is not None},
        grants={} if survey.config.tables.view_grants is None else _grants(survey, there),
        comment=there.comment,
    )


def _grants(survey: Survey, there: Relation) -> dict[Role, tuple[Privilege, ...]]:
    """What the managed roles hold; others keep theirs whatever the release does."""
    held = {role: there.grants.get(role, frozenset()) for role in survey.declared.view_roles}
    return {
        role: tuple(p for p in _ROW_PRIVILEGES if p in privileges) for role, privileges in held.items() if privileges
    }


def _predicate(definition: str) -> str | None:
    """The WHERE of a view's body as the server prints it, on a line of its own."""
    match = re.search(r"\n\s+WHERE (.*);\s*$", definition, flags=re.DOTALL)
    return match.group(1) if match else None
