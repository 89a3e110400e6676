"""The runner: pairs of single transactions, and the half of a release undone when its other half fails.

The pair of version rows is the journal: each step commits together with its own, so that whatever stops a run, the
databases are at one release or one step apart, and the next run reads from the rows what is left to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from alembic import command
from alembic.util import CommandError
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import SIDES, connect, run_lock
from federation.environments import alembic_config
from federation.errors import FederationError, Interrupted, ReleasesDiffer, Side
from federation.guard import current_release
from federation.lockstep import preflight
from federation.lockstep.plan import Direction, Step, steps_down, steps_up
from federation.lockstep.release import Releases

OnFailure: TypeAlias = Literal["rollback", "stop"]


@dataclass
class Outcome:
    """What a run did: its steps, each with its seconds, and the release that both databases are at."""

    release: str | None
    steps: list[tuple[Step, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
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


def upgrade(
    config: Config, target: str = "head", *, on_failure: OnFailure = "rollback", progress: Progress | None = None
) -> Outcome:
    """Bring both databases up to release ``target``.

    When the second half of a release fails, the first is undone if this run did it (``rollback``), or left for a later
    run (``stop``). Raises the failure, or ReleasesDiffer chained to it when the databases end up apart.
    """
    return _Run(config, on_failure, progress).go(target, Direction.UP)


def downgrade(
    config: Config, target: str, *, on_failure: OnFailure = "rollback", progress: Progress | None = None
) -> Outcome:
    """Bring both databases down to release ``target`` (``base``, an id, or ``-n``: n releases below)."""
    return _Run(config, on_failure, progress).go(target, Direction.DOWN)


def resolve(releases: Releases, target: str, local: int, cloud: int) -> int:
    """The position that ``target`` means: a name, or ``-n`` below the last whole release. Raises Refused."""
    if target.startswith("-") and target[1:].isdigit():
        return max(min(local, cloud) - int(target[1:]), 0)
    return releases.position(target)


class _Run:
    """One run: a session on each side, reopened after a failure."""

    def __init__(self, config: Config, on_failure: OnFailure, progress: Progress | None) -> None:
        self.config, self.on_failure, self.progress = config, on_failure, progress
        self.releases = Releases.load(config)
        self.stack = ExitStack()
        self.sessions: dict[Side, Connection] = {}

    def go(self, target: str, direction: Direction) -> Outcome:
        with self.stack:
            self.open()
            with run_lock(self.config):
                local, cloud = self.positions()
                position = resolve(self.releases, target, local, cloud)
                plan = steps_up if direction is Direction.UP else steps_down
                steps = plan(self.releases, local, cloud, position)
                preflight.check(self.config, self.releases, steps, self.sessions, at_base=local == 0)
                return self.walk(steps, Outcome(self.releases.at(position)))

    def open(self) -> None:
        """A session on each side, new ones in place of any that a failure broke."""
        self.stack.close()
        for side in SIDES:
            self.sessions[side] = self.stack.enter_context(connect(self.config, side))

    def positions(self) -> tuple[int, int]:
        local, cloud = (self.releases.position(current_release(self.sessions[side]), side) for side in SIDES)
        return local, cloud

    def walk(self, steps: list[Step], outcome: Outcome) -> Outcome:
        for n, step in enumerate(steps):
            before = steps[n - 1] if n and steps[n - 1].release == step.release else None
            try:
                seconds = self.take(step)
            except (Exception, KeyboardInterrupt) as error:
                raise self.settle(step, before, _as_ours(error, step)) from error
            outcome.steps.append((step, seconds))
            self.tell(step, seconds)
        return outcome

    def tell(self, step: Step, seconds: float) -> None:
        """A line that cannot be printed must not stop a release half-way."""
        if self.progress is not None:
            with suppress(Exception):
                self.progress(step, seconds)

    def take(self, step: Step) -> float:
        """Run one half of a release in its own transaction; seconds it took."""
        started = time.perf_counter()
        alembic = alembic_config(self.config, step.side, connection=self.sessions[step.side])
        run = command.upgrade if step.direction is Direction.UP else command.downgrade
        run(alembic, step.to or "base")
        return time.perf_counter() - started

    def settle(self, step: Step, first_half: Step | None, failure: FederationError) -> FederationError:
        """Undo the first half of the failed release, if this run did it; what to raise."""
        try:
            self.open()
            if first_half is not None and self.on_failure == "rollback" and self.second_half_is_missing(step):
                undo = _opposite(first_half, self.releases)
                self.tell(undo, self.take(undo))
            local, cloud = self.positions()
        except Exception as error:  # whatever it is, the first failure is the one to tell
            told = ReleasesDiffer(
                f"{failure}; and undoing its first half failed ({error})", hint="run `federation status`"
            )
            told.__cause__ = failure
            return told
        if local == cloud:
            return failure
        at = {side: self.releases.at(n) or "base" for side, n in zip(SIDES, (local, cloud), strict=True)}
        close = f"federation {step.direction.value} {step.to or 'base'}"
        return ReleasesDiffer(
            f"{failure.message}; local is at {at['local']}, cloud at {at['cloud']}",
            side=failure.side,
            release=step.release,
            hint=f"when the cause is gone: {close}",
        )

    def second_half_is_missing(self, step: Step) -> bool:
        """Whether the failed step did not commit after all: its COMMIT's answer may have been lost."""
        return current_release(self.sessions[step.side]) != step.to


def _opposite(step: Step, releases: Releases) -> Step:
    direction = Direction.DOWN if step.direction is Direction.UP else Direction.UP
    position = releases.position(step.release)
    return Step(step.release, step.side, direction, releases.at(position - (direction is Direction.DOWN)))


def _as_ours(error: BaseException, step: Step) -> FederationError:
    if isinstance(error, FederationError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", side=step.side, release=step.release)
    own = isinstance(error, CommandError)  # Alembic's, which reads as a sentence
    text = str(error) if own else f"the migration failed ({type(error).__name__}: {error})"
    return FederationError(text, side=step.side, release=step.release)
