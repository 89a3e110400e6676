"""Where both databases are, and what to type next. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from federation.config import Config
from federation.databases import connect
from federation.errors import FederationError, Side
from federation.guard import current_release, mark, require_own
from federation.lockstep.release import Releases


class State(Enum):
    """How the two databases stand to each other."""

    WHOLE = "at the same release"
    LOCAL_AHEAD = "local is ahead"
    CLOUD_AHEAD = "cloud is ahead"
    UNKNOWN = "a database did not answer"

    def __repr__(self) -> str:
        return f"<State {self.name}: {self.value}>"


@dataclass(frozen=True)
class Status:
    """Both releases (None is base), the newest there is, and what is wrong on a side that did not answer.

    ``mark`` is the cloud's release as the guard at the hospital has it: it may be above it after a failure, and then
    keeps the hospital from undoing what the cloud no longer needs.
    """

    releases: Releases
    local: str | None
    cloud: str | None
    mark: str | None
    errors: tuple[FederationError, ...] = ()

    @property
    def head(self) -> str | None:
        """The newest release."""
        return self.releases.at(len(self.releases.ids))

    @property
    def state(self) -> State:
        """How the two stand to each other."""
        if self.errors:
            return State.UNKNOWN
        local, cloud = self.positions
        return State.WHOLE if local == cloud else State.LOCAL_AHEAD if local > cloud else State.CLOUD_AHEAD

    @property
    def positions(self) -> tuple[int, int]:
        """Where local and cloud stand in the chains; base is 0."""
        return self.releases.position(self.local, "local"), self.releases.position(self.cloud, "cloud")

    @property
    def mark_is_off(self) -> bool:
        """Whether the hospital takes the cloud to be at another release than it is."""
        return self.state is not State.UNKNOWN and self.mark != self.cloud

    @property
    def next_command(self) -> str | None:
        """What to type next; None when there is nothing to do."""
        match self.state:
            case State.UNKNOWN:
                return None
            case State.LOCAL_AHEAD:
                contract = self.releases.contract_in_the_way(*self.positions)
                if contract is not None:
                    return f"federation downgrade {self.releases.at(contract - 1)}"
                return f"federation upgrade {self.local}"
            case State.CLOUD_AHEAD:
                return f"federation upgrade {self.cloud}"
            case State.WHOLE if self.mark_is_off and self.local is None:
                return "federation downgrade base"
            case State.WHOLE if self.mark_is_off:
                return f"federation upgrade {self.local}"
            case State.WHOLE:
                return None if self.local == self.head else "federation upgrade"

    def to_dict(self) -> dict[str, object]:
        """As JSON has it; None for what a side did not say."""
        silent = {error.side for error in self.errors}

        def said(side: Side, release: str | None) -> str | None:
            return release or (None if side in silent else "base")

        return {
            "local": said("local", self.local),
            "cloud": said("cloud", self.cloud),
            "head": self.head or "base",
            "state": self.state.name.lower(),
            "mark": said("local", self.mark),
            "next": self.next_command,
            "errors": [error.to_dict() for error in self.errors],
        }


def read_status(config: Config) -> Status:
    """Ask both databases. One that does not answer, or is another one than it should be, is an entry in ``errors``, so
    that the other is still seen. Whose it is can be told only with the site's id."""
    found: dict[Side, str | None] = {"local": None, "cloud": None}
    errors = []
    marked = None
    releases = Releases.load(config)
    for side in found:
        try:
            with connect(config, side) as connection:
                if config.site_id is not None:
                    require_own(connection, config, side)
                found[side] = current_release(connection, side)
                if side == "local":
                    marked = mark(connection) or None
                releases.position(found[side], side)
        except FederationError as error:
            error.side = error.side or side
            errors.append(error)
    return Status(releases, found["local"], found["cloud"], marked, tuple(errors))
