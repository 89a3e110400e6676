"""Defaults of the local tables, compared as the server spells them.

Alembic compares defaults by having the server evaluate both, which fails on a quote inside a string and tells two
volatile functions apart at every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.operations.ops import AlterColumnOp
from alembic.util import PriorityDispatchResult
from sqlalchemy import Column, DefaultClause

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


def compare_server_default(
    context: AutogenContext,
    op: AlterColumnOp,
    _schema: str | None,
    table: str,
    name: str,
    there: Column[Any],
    declared: Column[Any],
) -> PriorityDispatchResult:
    """An exported table's default, both as the server spells them; what has none to compare is left to Alembic."""
    survey = context.migration_context.opts.get("federation_survey")
    if survey is None:
        return PriorityDispatchResult.CONTINUE
    relation = survey.table(table)
    if relation is None or table not in survey.spelled or name not in relation.columns:
        return PriorityDispatchResult.CONTINUE
    found, defaults = relation.columns[name].default, (there.server_default, declared.server_default)
    serial = (found or "").startswith("nextval(")  # its default is not declared
    if serial or not all(isinstance(default, DefaultClause | None) for default in defaults):
        return PriorityDispatchResult.CONTINUE
    op.existing_server_default = there.server_default
    if survey.spelled[table].columns[name].default != found:
        op.modify_server_default = declared.server_default
    return PriorityDispatchResult.STOP
