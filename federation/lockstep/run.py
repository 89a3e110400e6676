"""The runner: pairs of single transactions, and what was done of a release undone when the rest of it fails.

The pair of version rows is the journal: each step commits together with its own, so that whatever stops a run, the
databases are at one release or one step apart, and the next run reads from the rows what is left to do.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, TypeAlias

from alembic.util import CommandError
from sqlalchemy.engine import Connection

from federation import guard, verification
from federation.config import Config
from federation.databases import DATABASE_ERRORS, SIDES, asked, connect, ddl, patiently, run_lock
from federation.environments import run_step
from federation.environments.rewrites import Rewritten
from federation.environments.set_aside import drop_set_aside
from federation.errors import (
    FederationError,
    Interrupted,
    Missing,
    ReleasesDiffer,
    Side,
    Unreachable,
    VerificationFailed,
    from_database,
)
from federation.lockstep import preflight, repair, room
from federation.lockstep.ahead import Ahead
from federation.lockstep.expected import Expected, absent
from federation.lockstep.kept_out import kept_out
from federation.lockstep.plan import Direction, Step, steps_down, steps_up
from federation.lockstep.planned import PlannedStep, plan_of
from federation.lockstep.release import Releases
from federation.operations.run import Run

_LOG = logging.getLogger("federation")

OnFailure: TypeAlias = Literal["rollback", "stop"]


@dataclass
class Outcome:
    """What a run did: its steps, each with its seconds, and the release that both databases are at."""

    release: str | None
    steps: list[tuple[Step, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "release": self.release or "base",
            "steps": [
                {
                    "release": step.release,
                    "side": step.side,
                    "direction": step.direction.value,
                    "seconds": round(seconds, 3),
                }
                for step, seconds in self.steps
            ],
        }


Progress: TypeAlias = Callable[[Step, float], None]
"""Called after each step with its seconds."""

Approve: TypeAlias = Callable[[Sequence[PlannedStep]], None]
"""Called with what a run is about to do, before it changes anything; what it raises ends the run."""


def upgrade(
    config: Config,
    target: str = "head",
    *,
    on_failure: OnFailure = "rollback",
    wait: bool = False,
    progress: Progress | None = None,
    approve: Approve | None = None,
) -> Outcome:
    """Bring both databases up to release ``target``.

    When a release fails, what this run did of it is undone (``rollback``) or left for a later run (``stop``). Raises
    the failure, or ReleasesDiffer chained to it when the databases end up apart; VerificationFailed at the end for what
    was broken before and is still; LockHeld while another run is under way, unless it is to ``wait``.
    """
    return _Run(config, on_failure, progress, approve).go(target, Direction.UP, wait=wait)


def downgrade(
    config: Config,
    target: str,
    *,
    on_failure: OnFailure = "rollback",
    wait: bool = False,
    progress: Progress | None = None,
    approve: Approve | None = None,
) -> Outcome:
    """Bring both databases down to release ``target`` (``base``, an id, or ``-n``: n releases below)."""
    return _Run(config, on_failure, progress, approve).go(target, Direction.DOWN, wait=wait)


class _Run:
    """One run: a session on each side, reopened after a failure."""

    def __init__(
        self, config: Config, on_failure: OnFailure, progress: Progress | None, approve: Approve | None
    ) -> None:
        self.config, self.on_failure, self.progress, self.approve = config, on_failure, progress, approve
        self.releases = Releases.load(config)
        self.expected = Expected(config, self.releases)
        self.stack = ExitStack()
        self.sessions: dict[Side, Connection] = {}
        self.ahead = Ahead(config, self.releases, self.sessions)
        self.lost_lock: Callable[[], Unreachable | None] = lambda: None
        """Why this run is no longer the only one, if it is not: then it takes no step, and undoes none."""
        self.committed: Step | None = None
        """The step whose COMMIT was answered last."""
        self.broken: VerificationFailed | Unreachable | None = None
        """What verification finds broken since before the run: no release is undone for it."""
        self.unmarked = False
        """Whether the hospital has no mark: its first step makes one, of a cloud at base."""
        self.to_base = False
        """Whether all goes away: then what a step drops and somebody has dropped before is made for it."""

    def go(self, target: str, direction: Direction, *, wait: bool) -> Outcome:
        with run_lock(self.config, wait=wait) as lock, self.stack:
            self.lost_lock = lock.lost
            self.open()
            local, cloud = self.positions()
            position = self.releases.resolve(target, local, cloud)
            plan = steps_up if direction is Direction.UP else steps_down
            steps = plan(self.releases, local, cloud, position)
            self.unmarked = local == 0 and guard.mark(self.sessions["local"]) is None
            preflight.check(
                self.config, self.expected, steps, self.sessions, at_base=local == 0, no_hospital_yet=self.unmarked
            )
            if self.approve is not None:
                self.approve(plan_of(self.config, self.releases, self.sessions, steps))
            drop_set_aside(self.config, self.sessions["local"])  # what a killed run has left
            self.to_base = direction is Direction.DOWN and position == 0
            if direction is Direction.DOWN and steps and not self.to_base:
                self.expected.require(self.sessions, local, cloud)
            if local == cloud and (steps or direction is Direction.UP):
                self.verify(direction, before=True)
            elif direction is Direction.UP:
                self.note_missing(local, cloud)
            outcome = Outcome(self.releases.at(position))
            try:
                for _, halves in groupby(steps, key=lambda step: step.release):
                    self.walk(list(halves), outcome)
            except KeyboardInterrupt as error:
                raise Interrupted("interrupted between two releases, of which none was begun") from error
            self.patiently(lambda: guard.renew(self.sessions["local"], self.sessions["cloud"]))
            if direction is Direction.UP:
                self.note_rewritten()
            if direction is Direction.UP and self.broken is not None:
                raise VerificationFailed(
                    f"{self.broken.message}; both databases are at {outcome.release or 'base'}",
                    side=self.broken.side,
                    hint="it was so before this run, so no release was undone for it; "
                    f"{self.broken.hint or 'see `federation status`'}",
                ) from self.broken
            return outcome

    def open(self) -> None:
        """A session on each side, new ones in place of any that a failure broke; the mark set to what is true.

        Raises Refused or PreconditionMissing for databases that are not the run's, or cannot be written.
        """
        self.stack.close()
        self.ahead.relations.clear()
        for side in SIDES:
            self.sessions[side] = self.stack.enter_context(connect(self.config, side))
        preflight.require_databases(self.config, self.sessions)
        cloud = self.sessions["cloud"]
        cloud.exec_driver_sql("SET federation.keep_mark = 'on'")  # the mark is set from here, not over the link
        cloud.commit()
        self.patiently(lambda: guard.settle(self.sessions["local"], cloud))
        room.take(self.config, self.sessions)

    def positions(self) -> tuple[int, int]:
        local, cloud = (
            self.releases.position(guard.current_release(self.sessions[side], side), side) for side in SIDES
        )
        return local, cloud

    def walk(self, halves: list[Step], outcome: Outcome) -> None:
        """Take a release's halves (one, where the other is done already) and verify it once it is whole."""
        done: list[Step] = []
        step = halves[0]
        try:
            for step in halves:
                if self.to_base:
                    self.make_missing(step.side)
                seconds = self.take(step)
                done.append(step)
                outcome.steps.append((step, seconds))
                self.tell(step, seconds)
            self.verify(halves[0].direction)
        except (Exception, KeyboardInterrupt) as error:
            with _undisturbed():
                raise self.undo(step, done, _as_ours(error, step)) from error

    def verify(self, direction: Direction, *, before: bool = False) -> None:
        """Verify the release that both databases are at.

        On upgrade a failure fails the release, unless it was there ``before`` the run: the release may be the one that
        mends it. A downgrade reports a failure and goes on, so that nobody is kept from going back. After a backup was
        restored, the databases do not fit each other until the last step.
        """
        positions = self.positions()
        if not self.releases.fit(*positions):
            return
        try:
            self.expected.require(self.sessions, *positions)
            self.patiently(lambda: verification.verify(self.config, self.sessions))
        except (VerificationFailed, Unreachable) as failed:
            tolerated = before or self.broken is not None
            if direction is Direction.UP and (not tolerated or isinstance(failed, Unreachable)):
                raise
            _LOG.warning("federation: not as it should be, and no reason to stop: %s", failed.message)
            self.broken = failed
            self.open()
        else:
            self.broken = None

    def note_rewritten(self) -> None:
        """Say which tables somebody has rewritten beside the steps, once."""
        local = self.sessions["local"]
        if names := [name for name, _ in guard.storage.rewritten(local, self.config)]:
            _LOG.warning(
                "federation: rewritten since the last step (CLUSTER, VACUUM FULL or TRUNCATE): %s; requests that "
                "waited for that were shown no rows (docs/releases.md)",
                ", ".join(names),
            )
            with asked(local, "local"):
                local.execute(ddl(guard.storage.note(self.config)))
                local.commit()

    def note_missing(self, local: int, cloud: int) -> None:
        """Tell what is missing before the run, where the two cannot be verified; no release is undone for it."""
        try:
            self.expected.require(self.sessions, local, cloud)
        except Missing as missing:
            _LOG.warning("federation: not as it should be, and no reason to stop: %s", missing.message)
            self.broken = missing

    def make_missing(self, side: Side) -> None:
        """Make what the next step down on ``side`` expects, so that it can be undone as it is written."""
        position = self.releases.position(guard.current_release(self.sessions[side], side), side)
        keys = self.expected.missing(self.sessions[side], side, position)
        if keys:
            _LOG.warning("federation: %s; made, to be undone as the releases say", absent(keys, side).message)
            repair.make(self.config, self.sessions[side], side, self.releases.at(position), self.expected, keys)

    def tell(self, step: Step, seconds: float) -> None:
        """A line that cannot be printed must not stop a release half-way."""
        if self.progress is not None:
            with suppress(Exception):
                self.progress(step, seconds)

    def take(self, step: Step, *, undoing: bool = False) -> float:
        """Run one half of a release in its own transaction; seconds it took."""
        if (lost := self.lost_lock()) is not None:
            raise lost
        started = time.perf_counter()
        ahead = self.ahead.of(step)
        seen = guard.last_row(self.sessions["cloud" if step.side == "local" else "local"])

        def run(kept_out: Callable[[], None] | None = None) -> None:
            run_step(
                Run(
                    self.config,
                    step.side,
                    connection=self.sessions[step.side],
                    first=ahead.take,
                    kept_out=kept_out,
                    seen=seen,
                    undoing=undoing,
                ),
                self.releases.directories[step.side],
                self.releases.script(step.side, step.release),
                up=step.direction is Direction.UP,
            )

        def run_alone(tables: tuple[str, ...]) -> None:
            with kept_out(self.config, self.sessions["cloud"], self.sessions["local"], tables) as still:
                run(still)

        try:
            self.patiently(lambda: run_alone(ahead.rewrites) if ahead.rewrites else run())
        except Rewritten as found:
            tables = found.tables
            self.patiently(lambda: run_alone(tables))
        self.committed = step
        if step.side == "cloud" or self.unmarked:
            self.patiently(lambda: guard.settle(self.sessions["local"], self.sessions["cloud"]))
            self.unmarked = False
        if step.side == "local":
            drop_set_aside(self.config, self.sessions["local"])
        return time.perf_counter() - started

    def patiently(self, ask: Callable[[], None]) -> None:
        patiently(self.config, self.sessions, ask)

    def explained(self, failure: FederationError, step: Step) -> FederationError:
        """``failure``, or what explains it: the step needs something that somebody has dropped."""
        session = self.sessions[step.side]
        position = self.releases.position(guard.current_release(session, step.side), step.side)
        keys = self.expected.missing(session, step.side, position) if type(failure) is FederationError else []
        if not keys:
            return failure
        missing = absent(keys, step.side)
        missing.message += f", and the step failed ({failure.message})"
        missing.hint = f"{missing.hint}; then run the command again"
        missing.release, missing.__cause__ = failure.release, failure
        return missing

    def is_in_place(self, step: Step) -> bool:
        """Whether the step's side is where the step led."""
        return guard.current_release(self.sessions[step.side], step.side) == step.to

    def reopen(self) -> None:
        """Open the sessions again, with patience for a server that has crashed and is starting."""
        deadline = time.monotonic() + self.config.database.connect_timeout
        while True:
            try:
                return self.open()
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def undo(self, step: Step, done: list[Step], failure: FederationError) -> FederationError:
        """Undo what this run did of the failed release; what to raise."""
        finished = False
        try:
            self.reopen()  # which waits until a COMMIT whose answer was lost has ended
            unanswered = isinstance(failure, (Unreachable, Interrupted))  # otherwise it is somebody else's
            if step not in done and (unanswered or step == self.committed) and self.is_in_place(step):
                done = [*done, step]
            local, cloud = self.positions()
            finished = isinstance(failure, Interrupted) and local == cloud and bool(done)
            undoing = done if self.on_failure == "rollback" and not finished else []
            if undoing and self.lost_lock() is not None:
                failure.message += "; nothing is undone, since another run may be under way"
            else:
                for half in filter(self.is_in_place, reversed(undoing)):  # a DBA may have undone one
                    opposite = _opposite(half, self.releases)
                    self.tell(opposite, self.take(opposite, undoing=True))
            failure = self.explained(failure, step)
            local, cloud = self.positions()
        except Exception as error:  # whatever it is, the first failure is the one to tell
            ours = _as_ours(error, step)
            # With a database that does not answer, nobody knows where it is, unless its own answer was the failure.
            unknown = isinstance(ours, Unreachable) and isinstance(failure, (Unreachable, Interrupted))
            told = (Unreachable if unknown else ReleasesDiffer)(
                f"{failure.message}; what was done of {step.release} could not be undone ({ours.message})",
                side=failure.side,
                release=step.release,
                hint="; ".join(filter(None, (ours.hint, "see `federation status`"))),
            )
            told.__cause__ = failure
            return told
        if local == cloud:
            if isinstance(failure, Interrupted):
                how = "is finished, and not verified" if finished else "is undone"
                failure.message += f"; the {step.direction.value} of {step.release} {how}"
            failure.message += f"; both databases are at {self.releases.at(local) or 'base'}"
            return failure
        at = {side: self.releases.at(n) or "base" for side, n in zip(SIDES, (local, cloud), strict=True)}
        return ReleasesDiffer(
            f"{failure.message}; local is at {at['local']}, cloud at {at['cloud']}",
            side=failure.side,
            release=step.release,
            hint=f"when the cause is gone: {self.releases.closing(local, cloud)}"
            + ("" if step.direction is Direction.UP else ", or the same command again"),
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the release is undone: a second one must not leave it half undone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _opposite(step: Step, releases: Releases) -> Step:
    direction = Direction.DOWN if step.direction is Direction.UP else Direction.UP
    position = releases.position(step.release)
    return Step(step.release, step.side, direction, releases.at(position - (direction is Direction.DOWN)))


def _as_ours(error: BaseException, step: Step) -> FederationError:
    if isinstance(error, FederationError):
        error.release = error.release or step.release
        return error
    if isinstance(error, DATABASE_ERRORS):
        return from_database(error, side=step.side, release=step.release)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", side=step.side, release=step.release)
    # Alembic's own reads as a sentence. What a migration raises, its environment has made an error of the toolkit's.
    text = str(error) if isinstance(error, CommandError) else f"the run failed ({type(error).__name__}: {error})"
    return FederationError(text, side=step.side, release=step.release)
