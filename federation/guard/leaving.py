"""A migration that leaves its transaction (``autocommit_block``) commits what it has done, and lets go of its locks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alembic.runtime.migration import MigrationContext


def _nothing() -> None:
    return None


@contextmanager
def around_leaving(
    context: MigrationContext, *, before: Callable[[], None] = _nothing, after: Callable[[], None] = _nothing
) -> Iterator[None]:
    """Call ``before`` ahead of each block outside the transaction, and ``after`` once a new one has begun.

    https://alembic.sqlalchemy.org/en/latest/api/runtime.html (MigrationContext.autocommit_block)
    """
    original = context.autocommit_block

    @contextmanager
    def leave() -> Iterator[None]:
        before()
        with original():
            yield
        after()

    context.autocommit_block = leave  # type: ignore[method-assign]
    try:
        yield
    finally:
        context.autocommit_block = original  # type: ignore[method-assign]
