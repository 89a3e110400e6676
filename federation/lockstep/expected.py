"""What the two chains say must be there, against what is there."""

from __future__ import annotations

from functools import cache

from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import SIDES, asked
from federation.environments.chain import Position, read_chain
from federation.errors import Missing, Side
from federation.lockstep.release import Releases
from federation.operations.objects import Key, Objects, missing, name
from federation.operations.views import CreateRLSViewOp
from federation.preview import lock_rules
from federation.preview.locks import StepLocks
from federation.preview.relations import Relation, Relations
from federation.preview.tokens import statements_of

HINT = "`federation repair` makes what is missing"


class Expected:
    """What must be there on each side at each release. Each chain is read once, when it is first asked for."""

    def __init__(self, config: Config, releases: Releases) -> None:
        self.releases = releases

        @cache
        def read(side: Side) -> list[Position]:
            scripts = releases.local if side == "local" else releases.cloud
            return read_chain(config, side, releases.directories[side], scripts)

        self._read = read

    def at(self, side: Side, position: int) -> Objects | None:
        """What must be there; None where a release asks its database what it is to make, and it cannot be known."""
        return self._read(side)[position].objects

    def makes(self, side: Side, position: int) -> set[Relation]:
        """The views and tables that the release at ``position`` makes.

        The toolkit's operations tell it. Of other SQL it is read, as far as it can be known.
        """
        release = self._read(side)[position]
        read = StepLocks(Relations())
        for statement in statements_of(release.own_sql):
            lock_rules.read(read, statement)
        return read.made | {(op.view.schema, op.view.name) for op in release.told if isinstance(op, CreateRLSViewOp)}

    def missing(self, session: Connection, side: Side, position: int) -> list[Key]:
        """What of it is not there. Reads only."""
        objects = self.at(side, position)
        if not objects:
            return []
        with asked(session, side):
            return missing(session, objects)

    def require(self, sessions: dict[Side, Connection], local: int, cloud: int) -> None:
        """Raise Missing when something is not there on either side. Reads only."""
        for side, position in zip(SIDES, (local, cloud), strict=True):
            found = self.missing(sessions[side], side, position)
            if found:
                raise absent(found, side)


def absent(keys: list[Key], side: Side) -> Missing:
    """The error that names what is missing."""
    names = [name(key) for key in keys]
    verb = "is" if len(names) == 1 else "are"
    return Missing(f"{', '.join(names)} {verb} missing", side=side, objects=names, hint=HINT)
