"""Where both databases are, and what to type next. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum

from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import DATABASE_ERRORS, SIDES, connect
from federation.errors import FederationError, Side, from_database
from federation.guard import Comparison, compare, current_release, mark, require_own
from federation.lockstep.copies import refuse_copy
from federation.lockstep.edited import edited_files
from federation.lockstep.expected import Expected
from federation.lockstep.release import Releases
from federation.operations.objects import name


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
    comparison: Comparison = field(default_factory=Comparison)
    """Whether one of the two was set back; not compared while one does not answer."""
    missing: Mapping[Side, list[str]] = field(default_factory=dict)
    """What the release makes and is not there, by side, where that can be known."""
    edited: tuple[str, ...] = ()
    """The revision files that are not what they were when they ran."""

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
            case _ if self.comparison.set_back:
                return " ".join(("federation repair", *(f"--accept {one.side}" for one in self.comparison.set_back)))
            case _ if self.missing and self.releases.fit(*self.positions):
                return "federation repair"
            case State.LOCAL_AHEAD | State.CLOUD_AHEAD:
                return self.releases.closing(*self.positions)
            case State.WHOLE if self.mark_is_off and self.local is None:
                return "federation downgrade base"
            case State.WHOLE if self.mark_is_off:
                return f"federation upgrade {self.local}"
            case State.WHOLE:
                return None if self.local == self.head else "federation upgrade"

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON, with None for what a side did not say."""
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
            "compared": self.comparison.compared,
            "edited": list(self.edited),
            "set_back": [error.to_dict() for error in self.comparison.set_back],
            "missing": [{"side": side, "object": name} for side, names in self.missing.items() for name in names],
            "errors": [error.to_dict() for error in self.errors],
        }


def read_status(config: Config) -> Status:
    """Ask both databases. One that does not answer, or is another one than it should be, is an entry in ``errors``, so
    that the other is still seen. Whose it is can be told only with the site's id."""
    found: dict[Side, str | None] = dict.fromkeys(SIDES)
    sessions: dict[Side, Connection] = {}
    errors: dict[Side, FederationError] = {}
    edited: list[str] = []
    marked = None
    comparison = Comparison(compared=False)
    missing: dict[Side, list[str]] = {}
    releases = Releases.load(config)
    with ExitStack() as stack:
        for side in SIDES:
            try:
                connection = stack.enter_context(connect(config, side))
                if config.site_id is not None:
                    require_own(connection, config, side)
                found[side] = current_release(connection, side)
                if side == "local":
                    marked = mark(connection) or None
                releases.position(found[side], side)
                edited += edited_files(releases, side, connection)
                sessions[side] = connection
            except (FederationError, *DATABASE_ERRORS) as error:
                ours = error if isinstance(error, FederationError) else from_database(error, side=side)
                ours.side = ours.side or side
                errors[side] = ours
        if not errors:
            try:
                comparison = compare(sessions["local"], sessions["cloud"])
                expected = Expected(config, releases)
                for side, session in sessions.items():
                    if keys := expected.missing(session, side, releases.position(found[side], side)):
                        missing[side] = [name(key) for key in keys]
                refuse_copy(config, sessions["local"], sessions["cloud"])
            except FederationError as error:
                errors[error.side or "local"] = error
    failed = tuple(errors.values())
    return Status(releases, found["local"], found["cloud"], marked, failed, comparison, missing, tuple(edited))
