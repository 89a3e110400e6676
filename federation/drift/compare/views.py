"""The app's views: body as the server stores it, options, owner, defaults, comment. Their grants are in grants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alembic.operations import MigrateOperation
from sqlalchemy import Table

from federation.drift.as_declared import view_was
from federation.drift.catalog import Relation
from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.views import CreateRLSViewOp, ReplaceRLSViewOp, RLSView

OPTIONS = frozenset({"security_invoker=true", "check_option=cascaded"})


@dataclass(eq=False)
class ReplaceDifferingView(ReplaceRLSViewOp):
    """A replacement that says what differs."""

    differing: tuple[str, ...]

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return Alembic's tuple, with what differs."""
        return (*super().to_diff_tuple(), self.differing)


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Replace a view that differs as a whole, with everything that is declared for it."""
    for table in survey.declared.tables:
        declared, there = survey.view(table), survey.table(table.name)
        if there is None:
            yield CreateRLSViewOp(declared)
        elif there.kind != "v":
            yield CreateRLSViewOp(declared)
            yield Finding("table", str(declared), "is in the way of the view", f"ALTER TABLE {declared} SET SCHEMA …")
        elif differing := tuple(_differing(survey, table, declared, there)):
            yield ReplaceDifferingView(declared, view_was(survey, table, there), differing)
        elif not there.owned:
            yield Finding("view", str(declared), f"belongs to {there.owner}", f"ALTER VIEW {declared} OWNER TO …")
        if there is not None and there.kind == "v":
            for trigger in sorted(there.triggers):
                detail = "stands between the app and the hospital: what it does is not known"
                yield Finding("trigger", f"{declared}.{trigger}", detail, f"DROP TRIGGER {trigger} ON {declared}")


def _differing(survey: Survey, table: Table, declared: RLSView, there: Relation) -> Iterator[str]:
    spelled = survey.spelled[table.name]
    if list(there.columns) != list(declared.columns):
        yield "columns"
    elif survey.bodies.get(table.name) != there.definition:
        yield "body"
    if there.options != OPTIONS:
        yield "options"
    if any(
        facts.default != spelled.columns[name].default
        for name, facts in there.columns.items()
        if name in spelled.columns
    ):
        yield "defaults"
    if there.comment != declared.comment:
        yield "comment"
