"""Revision files that were edited after they ran: the history keeps the sha256 of each file that was applied."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy.engine import Connection

from federation import guard
from federation.errors import Side
from federation.lockstep.release import Releases


def edited_files(releases: Releases, side: Side, connection: Connection) -> list[str]:
    """The files of ``side`` whose release is in force, and which are not what they were when it was applied."""
    in_force: dict[str, str | None] = {}
    for row in guard.history_rows(connection):
        if row.result == "upgraded":
            in_force[row.to_release] = row.file_sha256
        elif row.result in {"downgraded", "undone"}:
            in_force.pop(row.from_release, None)
    found = []
    for release, digest in in_force.items():
        if release in releases.ids and digest is not None:
            path = Path(releases.script(side, release).path)
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                found.append(f"versions/{side}/{path.name}")
    return found
