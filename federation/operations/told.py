"""What the operations of a chain tell while it is only read: themselves, and nothing is done.

`federation.operations.objects` makes of it what must be there at a release. SQL that a release sends itself tells
nothing: a view that it drops by ``op.execute`` counts as missing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from alembic.operations import MigrateOperation, Operations

TOLD = "federation_told"
"""The option of the migration context that holds the list to which operations add themselves."""

Op = TypeVar("Op", bound=MigrateOperation)


def tells(implementation: Callable[[Operations, Op], None]) -> Callable[[Operations, Op], None]:
    """``implementation``; while the chain is only read, the operation is noted instead."""

    @wraps(implementation)
    def noted(operations: Operations, op: Op) -> None:
        told: list[MigrateOperation] | None = operations.migration_context.opts.get(TOLD)
        if told is None:
            implementation(operations, op)
        else:
            told.append(op)

    return noted
