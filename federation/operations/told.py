"""What the operations of a chain tell while it is only read: themselves, and nothing is done.

`federation.operations.objects` makes of it what must be there at a release. SQL that a release sends itself tells
nothing: a view that it drops by ``op.execute`` counts as missing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from alembic.operations import MigrateOperation, Operations

from federation.operations.run import found

Op = TypeVar("Op", bound=MigrateOperation)


def tells(implementation: Callable[[Operations, Op], None]) -> Callable[[Operations, Op], None]:
    """``implementation``; while the chain is only read, the operation is noted instead."""

    @wraps(implementation)
    def noted(operations: Operations, op: Op) -> None:
        run = found(operations.migration_context)
        told = run.told if run is not None else None
        if told is None:
            implementation(operations, op)
        else:
            told.append(op)

    return noted
