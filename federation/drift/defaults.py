"""Defaults and generated columns of the local tables, where Alembic's own way changes or misreads an expression.

Alembic compiles an expression before it writes it into a migration, which doubles a ``%`` and leaves a ``:x`` to be
taken for a bind parameter; and it compares defaults by having the server evaluate both, which fails on a quote
inside a string and tells two volatile functions apart at every call.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from alembic.operations.ops import AlterColumnOp
from alembic.util import PriorityDispatchResult
from sqlalchemy import Column, Computed, DefaultClause, TextClause

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

_BIND = re.compile(r"(?<![:\w\\]):(?=\w)")
"""What ``sa.text()`` takes for a bind parameter."""


def escaped(expression: str) -> str:
    """``expression`` for ``sa.text()``: no ``:x`` in it is a bind parameter."""
    return _BIND.sub(r"\\:", expression)


def render_item(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """The text of a default or generated column as it is; anything else is left to Alembic."""
    if kind != "server_default":
        return False
    if isinstance(item, Computed) and isinstance(item.sqltext, TextClause):
        return f"sa.Computed({escaped(item.sqltext.text)!r}, persisted={item.persisted!r})"
    if isinstance(item, DefaultClause) and isinstance(item.arg, TextClause):
        return f"sa.text({escaped(item.arg.text)!r})"
    if isinstance(item, DefaultClause) and isinstance(item.arg, str):
        return repr(item.arg)
    return False


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
    relation = None if survey is None else survey.table(table)
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
