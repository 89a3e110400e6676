"""The history of both databases, merged by what each step came after."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Row

from federation import guard
from federation.config import Config
from federation.databases import SIDES, connect
from federation.errors import Side


@dataclass(frozen=True)
class Entry:
    """One step that was committed: who took it, from which machine, where it led, how long it took.

    ``result`` is upgraded, downgraded, undone (after a failure), stamped, repaired, or by hand. ``override`` says why
    the guard was told to let the step pass, ``refusal`` what it would have said. ``started_at`` is by the clock of its
    side.
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
        """Return it for JSON."""
        return dataclasses.asdict(self) | {"started_at": self.started_at.isoformat()}


def read_history(config: Config) -> list[Entry]:
    """Every step of both databases, in the order in which they were taken."""
    rows: dict[Side, Sequence[Row[Any]]] = {}
    for side in SIDES:
        with connect(config, side) as connection:
            rows[side] = guard.history_rows(connection)
    return [Entry(side, *tuple(row)[2:]) for side, row in _merged(rows["local"], rows["cloud"])]


def _merged(local: Sequence[Row[Any]], cloud: Sequence[Row[Any]]) -> Iterator[tuple[Side, Row[Any]]]:
    """Both sides' rows: each side's in its own order, and each row after those of the other side that it has seen.

    The two clocks decide only between steps that knew nothing of each other.
    """
    left: dict[Side, deque[Row[Any]]] = {"local": deque(local), "cloud": deque(cloud)}
    while left["local"] and left["cloud"]:
        first: Side = "local" if left["local"][0].started_at <= left["cloud"][0].started_at else "cloud"
        for side, other in (("local", "cloud"), ("cloud", "local")):
            if (left[side][0].seen or 0) >= left[other][0].id:  # type: ignore[index]
                first = other  # type: ignore[assignment]
        yield first, left[first].popleft()
    for side in SIDES:
        yield from ((side, row) for row in left[side])
