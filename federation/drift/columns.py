"""Types and defaults of the local tables, compared as the server spells them.

Alembic takes ``numeric`` and ``numeric(9, 2)`` for the same type, as the number of arguments differs. It compares
defaults by having the server evaluate both, which fails on a quote inside a string and tells two volatile functions
apart at every call.

https://alembic.sqlalchemy.org/en/latest/autogenerate.html#compare-types
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.operations.ops import AlterColumnOp
from alembic.util import PriorityDispatchResult
from sqlalchemy import Column, Computed, DefaultClause

from federation.drift.compare.serial import is_other_kind
from federation.drift.survey import survey_of

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

    from federation.drift.catalog import ColumnFacts


def compare_type(
    context: AutogenContext,
    op: AlterColumnOp,
    schema: str | None,
    table: str,
    name: str,
    there: Column[Any],
    declared: Column[Any],
) -> PriorityDispatchResult:
    """An exported table's type; any other is left to Alembic."""
    spelled = _spelled(context, schema, table, name)
    if spelled is None:
        return PriorityDispatchResult.CONTINUE
    op.existing_type = there.type
    if spelled[0].type != spelled[1].type:
        op.modify_type = declared.type
    return PriorityDispatchResult.STOP


def compare_server_default(
    context: AutogenContext,
    op: AlterColumnOp,
    schema: str | None,
    table: str,
    name: str,
    there: Column[Any],
    declared: Column[Any],
) -> PriorityDispatchResult:
    """An exported table's default; what has none to compare is left to Alembic.

    What it would only warn of, or write so that it cannot run, compare/generated.py and compare/serial.py find.
    """
    spelled, defaults = _spelled(context, schema, table, name), (there.server_default, declared.server_default)
    if spelled is None:
        return PriorityDispatchResult.CONTINUE
    if any(isinstance(default, Computed) for default in defaults) or is_other_kind(declared, spelled[0]):
        return PriorityDispatchResult.STOP
    if not all(isinstance(default, DefaultClause | None) for default in defaults):
        return PriorityDispatchResult.CONTINUE
    if (spelled[0].default or "").startswith("nextval("):  # a serial column's is not declared
        return PriorityDispatchResult.CONTINUE
    op.existing_server_default = there.server_default
    if spelled[0].default != spelled[1].default:
        op.modify_server_default = declared.server_default
    return PriorityDispatchResult.STOP


def _spelled(
    context: AutogenContext, schema: str | None, table: str, name: str
) -> tuple[ColumnFacts, ColumnFacts] | None:
    """An exported table's column as it is there and as it is declared."""
    survey = survey_of(context)
    if survey is None or schema not in {None, survey.config.tables.schema_} or table not in survey.spelled:
        return None
    if (relation := survey.table(table)) is None:
        return None
    declared = survey.spelled[table].columns
    return (relation.columns[name], declared[name]) if name in relation.columns and name in declared else None
