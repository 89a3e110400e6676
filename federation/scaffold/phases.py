"""Which operations add and which remove: a release that removes something runs in the cloud first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from alembic.operations import MigrateOperation
from alembic.operations.ops import DropColumnOp, DropConstraintOp, DropIndexOp, DropTableOp, ModifyTableOps

from federation.operations.foreign_tables import AlterForeignTableOp
from federation.operations.views import ReplaceRLSViewOp


@dataclass
class Phases:
    """The operations of an expand release and those of a contract release after it."""

    expand: list[MigrateOperation] = field(default_factory=list)
    contract: list[MigrateOperation] = field(default_factory=list)


def split(operations: Iterable[MigrateOperation]) -> Phases:
    """Put each operation, or each half of one, where it belongs; order is kept."""
    phases = Phases()
    for op in operations:
        if isinstance(op, ModifyTableOps):
            _split_table(op, phases)
        elif isinstance(op, ReplaceRLSViewOp) and set(op.was.columns) - set(op.view.columns):
            _split_view(op, phases)
        elif isinstance(op, DropTableOp) or (isinstance(op, AlterForeignTableOp) and op.drop):
            phases.contract.append(op)
        else:
            phases.expand.append(op)
    return phases


def _split_table(op: ModifyTableOps, phases: Phases) -> None:
    """A table's dropped columns, and with them the constraints and indexes that go away."""
    removes = any(isinstance(inner, DropColumnOp) for inner in op.ops)
    going = [
        inner
        for inner in op.ops
        if isinstance(inner, DropColumnOp) or (removes and isinstance(inner, (DropConstraintOp, DropIndexOp)))
    ]
    staying = [inner for inner in op.ops if inner not in going]
    for part, where in ((staying, phases.expand), (going, phases.contract)):
        if part:
            where.append(ModifyTableOps(op.table_name, part, schema=op.schema))


def _split_view(op: ReplaceRLSViewOp, phases: Phases) -> None:
    """A view that loses columns: first it gains what is new, with the old ones still there."""
    added = tuple(name for name in op.view.columns if name not in op.was.columns)
    between = replace(op.was, grants=op.view.grants)  # privileges change in the expand release
    if added:
        between = replace(
            op.view,
            columns=(*op.was.columns, *added),
            defaults={**op.was.defaults, **op.view.defaults},
        )
        phases.expand.append(ReplaceRLSViewOp(between, op.was))
    phases.contract.append(ReplaceRLSViewOp(op.view, between))
