"""A cloud's and a hospital's step that contradict each other, crossed at every interleaving, never both commit."""

from __future__ import annotations

import itertools
import re
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from federation.lockstep import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments import Deployment

MOVES = re.compile(r"^(?=UPDATE federation\.alembic_version|COMMIT;)", re.MULTILINE)


class Script:
    """One step of one side, as ``--sql`` writes it, in moves: its statements, its books, COMMIT."""

    def __init__(self, deployment: Deployment, side: str, direction: str, source: str, target: str) -> None:
        result = deployment.alembic(side, direction, f"{source}:{target}", "--sql")
        assert result.returncode == 0, result.stderr
        text = result.stdout[result.stdout.index("-- Running") :]
        self.moves = MOVES.split(text)
        committing = self.moves.pop()
        commit, after = committing.split("COMMIT;", 1)
        assert not commit
        self.moves += ["COMMIT", *([after] if after.strip() else [])]
        self.side = side

    def __len__(self) -> int:
        return len(self.moves)


class Runner:
    """A session that takes a script's moves one after the other, in a thread of its own."""

    def __init__(self, deployment: Deployment, script: Script) -> None:
        self.script, self.next, self.error = script, 0, None
        self.session = deployment.owner(script.side)
        self.thread = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []

    def move(self) -> None:
        text = self.script.moves[self.next]
        self.pending.append(self.thread.submit(self._run, "BEGIN; " + text if self.next == 0 else text))
        self.next += 1

    def _run(self, text: str) -> None:
        if self.error is None:
            try:
                self.session.execute(text)  # type: ignore[call-overload]
            except psycopg.Error as error:
                self.error = error

    @property
    def busy(self) -> bool:
        return any(not pending.done() for pending in self.pending)

    def end(self) -> bool:
        """Whether its transaction was committed."""
        for pending in self.pending:
            pending.result()
        self.thread.shutdown()
        self.session.close()
        return self.error is None


def cross(
    deployment: Deployment, observer: psycopg.Connection[Any], order: tuple[int, ...], scripts: list[Script]
) -> list[bool]:
    """Take the moves in ``order``; a move that waits for the other's lock is left waiting."""
    runners = [Runner(deployment, script) for script in scripts]
    for one in order:
        runners[one].move()
        while runners[one].busy:
            waiting = observer.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
            if waiting is not None and waiting[0]:
                break
    return [runner.end() for runner in runners]


def interleavings(first: int, second: int) -> Iterator[tuple[int, ...]]:
    for places in itertools.combinations(range(first + second), first):
        yield tuple(0 if n in places else 1 for n in range(first + second))


# The local and the cloud step that contradict each other, and the release at which both databases start from.
EXPAND = (("downgrade", "0002", "0001"), ("upgrade", "0001", "0002"))
CONTRACT = (("upgrade", "0003", "0004"), ("downgrade", "0004", "0003"))


@pytest.fixture
def observer(guarded: Deployment) -> Iterator[psycopg.Connection[Any]]:
    with guarded.superuser("local") as connection:
        yield connection


def outcomes(deployment: Deployment, observer: psycopg.Connection[Any], kind: str) -> set[tuple[bool, bool]]:
    """Which of the two committed, over all interleavings; both databases are put back after each."""
    (local_step, cloud_step) = EXPAND if kind == "expand" else CONTRACT
    ahead = "local" if kind == "expand" else "cloud"
    upgrade(deployment.config, "0001" if kind == "expand" else "0003")
    assert deployment.alembic(ahead, "upgrade", "0002" if kind == "expand" else "0004").returncode == 0
    scripts = [Script(deployment, "local", *local_step), Script(deployment, "cloud", *cloud_step)]
    back = {
        side: Script(deployment, side, "downgrade" if direction == "upgrade" else "upgrade", target, source)
        for side, (direction, source, target) in (("local", local_step), ("cloud", cloud_step))
    }
    seen = set()
    for order in interleavings(len(scripts[0]), len(scripts[1])):
        result = cross(deployment, observer, order, scripts)
        seen.add((result[0], result[1]))
        for side, committed in zip(("local", "cloud"), result, strict=True):
            if committed:
                runner = Runner(deployment, back[side])
                for _ in back[side].moves:
                    runner.move()
                assert runner.end(), runner.error
        if all(result):
            break
    return seen


@pytest.mark.parametrize("kind", ["expand", "contract"])
def test_two_steps_that_contradict_each_other_never_both_commit(
    guarded: Deployment, observer: psycopg.Connection[Any], kind: str
) -> None:
    seen = outcomes(guarded, observer, kind)
    assert (True, True) not in seen
    assert {(True, False), (False, True)} <= seen


def test_without_the_guard_they_both_commit(guarded: Deployment, observer: psycopg.Connection[Any]) -> None:
    for side in ("local", "cloud"):
        assert guarded.alembic(side, "upgrade", "0001").returncode == 0
        with guarded.superuser(side) as superuser:
            superuser.execute("ALTER TABLE federation.alembic_version DISABLE TRIGGER guard_version")
    assert (True, True) in outcomes(guarded, observer, "expand")


def test_of_two_scripts_for_one_step_one_commits(guarded: Deployment, observer: psycopg.Connection[Any]) -> None:
    upgrade(guarded.config, "0003")
    for side in ("cloud", "local"):
        assert guarded.alembic(side, "downgrade", "0002").returncode == 0
    script = Script(guarded, "local", "upgrade", "0002", "0003")
    back = Script(guarded, "local", "downgrade", "0003", "0002")
    steps = "SELECT count(*) FROM federation.history WHERE result = 'upgraded' AND to_release = '0003'"
    before = guarded.look("local", steps)[0][0]
    for done, order in enumerate(interleavings(len(script), len(script)), 1):
        assert sorted(cross(guarded, observer, order, [script, script])) == [False, True], order
        assert guarded.look("local", steps)[0][0] == before + done
        runner = Runner(guarded, back)
        for _ in back.moves:
            runner.move()
        assert runner.end(), runner.error
