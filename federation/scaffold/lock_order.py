"""A generated step locks what it changes at its beginning, parents before children, as the app does.

A step that changes one table or view needs no such statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alembic.operations import MigrateOperation
from alembic.operations.ops import CreateForeignKeyOp, CreateTableOp, DropTableOp, ModifyTableOps
from sqlalchemy import ForeignKeyConstraint, MetaData

from federation.config import Config
from federation.errors import Side
from federation.operations.indexes import CreateIndexConcurrentlyOp, DropIndexConcurrentlyOp
from federation.operations.locking import LockTablesOp
from federation.operations.policies import (
    AlterPolicyOp,
    CreatePolicyOp,
    DisableRowLevelSecurityOp,
    DropPolicyOp,
    EnableRowLevelSecurityOp,
)
from federation.operations.views import DropRLSViewOp, ReplaceRLSViewOp

_OF_A_TABLE = (CreatePolicyOp, DropPolicyOp, EnableRowLevelSecurityOp, DisableRowLevelSecurityOp)
_CONCURRENT = (CreateIndexConcurrentlyOp, DropIndexConcurrentlyOp)


def locked_first(ops: list[MigrateOperation], config: Config, side: Side, metadata: MetaData) -> list[MigrateOperation]:
    """``ops`` with a LockTablesOp before them where they change several tables or views that are there already."""
    flat = list(_flat(ops))
    made = {op.table_name for op in flat if isinstance(op, CreateTableOp)}
    changed = {name for op in flat for name in _changes(op)} - made
    if len(changed) < 2 or any(isinstance(op, _CONCURRENT) for op in flat):  # which leave the transaction
        return ops
    order = [table.name for table in metadata.sorted_tables] if side == "local" else list(config.tables.exported)
    known = {name: n for n, name in enumerate(order)}
    names = sorted(changed, key=lambda name: (known.get(name, len(order)), name))
    return [LockTablesOp(tuple(names), config.tables.schema_), *ops]


def _flat(ops: Iterable[MigrateOperation]) -> Iterator[MigrateOperation]:
    for op in ops:
        if isinstance(op, ModifyTableOps):
            yield op
            yield from op.ops
        else:
            yield op


def _changes(op: MigrateOperation) -> Iterator[str]:
    """The tables or views that are there and that an operation locks, by name.

    An operation on a foreign table locks the views over it by itself; there may be none, which the release makes.
    """
    match op:
        case CreateTableOp():
            for part in op.columns:
                if isinstance(part, ForeignKeyConstraint):
                    yield part.elements[0].target_fullname.rsplit(".", 2)[-2]
        case CreateForeignKeyOp():
            yield from (op.source_table, op.referent_table)
        case ModifyTableOps() | DropTableOp():
            yield op.table_name
        case ReplaceRLSViewOp() | DropRLSViewOp():
            yield op.view.name
        case AlterPolicyOp():
            yield op.policy.table
        case _ if isinstance(op, _OF_A_TABLE):
            yield op.table
