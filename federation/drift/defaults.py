"""Defaults and generated columns of the local tables, where Alembic's own way changes or misreads an expression.

Alembic compiles an expression before it writes it into a migration, which doubles a ``%`` and leaves a ``:x`` to be
taken for a bind parameter; and it compares defaults by having the server evaluate both, which fails on a quote
inside a string and tells two volatile functions apart at every call.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Computed, DefaultClause, TextClause

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
    context: MigrationContext, _there: Column[Any], declared: Column[Any], *_defaults: object
) -> bool | None:
    """Whether an exported table's default differs, both as the server spells them; None leaves it to Alembic."""
    survey = context.opts.get("federation_survey")
    if survey is None or not isinstance(declared.server_default, (sa.DefaultClause, type(None))):
        return None
    spelled, there = survey.spelled.get(declared.table.name), survey.table(declared.table.name)
    if spelled is None or there is None or declared.name not in there.columns:
        return None
    found = there.columns[declared.name]
    if found.generated or (found.default or "").startswith("nextval("):  # a serial column's is not declared
        return None
    return bool(spelled.columns[declared.name].default != found.default)
