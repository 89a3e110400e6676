"""The history of both databases, merged by time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from federation import guard
from federation.config import Config
from federation.databases import SIDES, connect
from federation.errors import Side


@dataclass(frozen=True)
class Entry:
    """One step that was committed: who took it, from which machine, where it led, how long it took.

    ``result`` is upgraded, downgraded, undone (after a failure), stamped, or by hand. ``override`` says why the guard
    was told to let the step pass, ``refusal`` what it would have said.
    """

    side: Side
    started_at: datetime
    seconds: float
    from_release: str
    to_release: str
    result: str
    role: str
    client: str | None
    host: str | None
    file_sha256: str | None
    override: str | None
    refusal: str | None

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return dataclasses.asdict(self) | {"started_at": self.started_at.isoformat()}


def read_history(config: Config) -> list[Entry]:
    """Every step of both databases, oldest first."""
    entries = []
    for side in SIDES:
        with connect(config, side) as connection:
            entries += [Entry(side, *tuple(row)) for row in guard.history_rows(connection)]
    return sorted(entries, key=lambda entry: entry.started_at)
