"""What a block of an operation locks: its operation says so, since the block's text does not."""

from __future__ import annotations

from dataclasses import dataclass

ACCESS_EXCLUSIVE, SHARE_UPDATE_EXCLUSIVE = "ACCESS EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"

Relation = tuple[str, str]
"""Schema and name."""


@dataclass(frozen=True)
class Locks:
    """The locks of a statement that is more than one SQL command."""

    on: tuple[tuple[Relation, str], ...] = ()
    """Relations, each with its mode."""
    views_over: Relation | None = None
    """A foreign table whose views are locked in ACCESS EXCLUSIVE mode."""
    sends: tuple[str, ...] = ()
    """Commands that it runs."""
    makes_schema: str | None = None
    """A schema that it makes."""


NOTHING = Locks()
"""It reads the catalogs and the toolkit's own books, or changes privileges."""
