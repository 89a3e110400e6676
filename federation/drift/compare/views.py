"""The app's views: body as the server stores it, options, owner, defaults, comment. Their grants are in grants."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation
from sqlalchemy import Table

from federation.drift.catalog import Relation
from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.drift.was import view_was
from federation.operations.views import CreateRLSViewOp, ReplaceRLSViewOp, RLSView

OPTIONS = frozenset({"security_invoker=true", "check_option=cascaded"})


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """A view that differs is replaced as a whole, with everything that it should have."""
    for table in survey.declared.tables:
        declared, there = survey.view(table), survey.table(table.name)
        if there is None:
            yield CreateRLSViewOp(declared)
        elif there.kind != "v":
            yield Finding("table", str(declared), "is in the way of the view", f"ALTER TABLE {declared} SET SCHEMA …")
        elif _differs(survey, table, declared, there):
            yield ReplaceRLSViewOp(declared, view_was(survey, table, there))
        elif not there.owned:
            yield Finding("view", str(declared), f"belongs to {there.owner}", f"ALTER VIEW {declared} OWNER TO …")


def _differs(survey: Survey, table: Table, declared: RLSView, there: Relation) -> bool:
    spelled = survey.spelled[table.name]
    defaults = {name: spelled.columns[name].default for name in declared.columns}
    return (
        survey.bodies.get(table.name) != there.definition
        or there.options != OPTIONS
        or {name: facts.default for name, facts in there.columns.items()} != defaults
        or there.comment != declared.comment
    )
