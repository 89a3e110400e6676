"""A run waits for a lock in short turns, lets the app through between them, and gives up after a few."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import psycopg
import pytest
from runs import (
    AT_THE_GATE,
    add_note,
    at,
    catalogs,
    gate,
    joined,
    mark,
    no_lock_left,
    rewrite,
    settings,
    until,
    waiting,
)

from federation.errors import LockHeld
from federation.lockstep import downgrade, upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

    from federation.servers import Server

TURN = "200ms"
"""How long the runner waits at a time; on the link, too."""

PATIENCE = "4s"
"""How long the app does: many turns."""

ATTEMPTS = 3


@pytest.fixture
def quick(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the first of them, a row, and short turns."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        limits(deployment, 100)
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0001")
        limits(deployment, ATTEMPTS)
        add_note(deployment)
        yield deployment


def limits(deployment: Deployment, attempts: int) -> None:
    settings(deployment.root, lock_timeout=TURN, lock_attempts=attempts)
    file = deployment.root / "federation.toml"
    file.write_text(f"{file.read_text()}\n[link]\nlock_timeout = {TURN!r}\n")


@contextmanager
def holding(connection: psycopg.Connection[Any], statement: str) -> Iterator[None]:
    """A transaction that stays open, as an app's does that has read something."""
    connection.autocommit = False
    with connection:
        connection.execute(statement)  # type: ignore[call-overload]
        try:
            yield
        finally:
            connection.rollback()


def server(deployment: Deployment, side: str) -> Server:
    return deployment.pair.local if side == "local" else deployment.pair.cloud


@contextmanager
def counting_timeouts(deployment: Deployment, side: str) -> Iterator[list[int]]:
    """How many statements gave up waiting for a lock on a server while the block ran."""
    found: list[int] = []
    before = server(deployment, side).log_text().count("lock timeout")
    yield found
    found.append(server(deployment, side).log_text().count("lock timeout") - before)


class App:
    """Sessions that read the table one after the other, each with more patience than one of the runner's turns."""

    def __init__(self, deployment: Deployment, side: str, statement: str) -> None:
        self.deployment, self.side, self.statement = deployment, side, statement
        self.read, self.stop = 0, threading.Event()
        self.thread = ThreadPoolExecutor(1)

    def __enter__(self) -> App:
        self.running: Future[None] = self.thread.submit(self._work)
        until(lambda: self.read or self.running.done(), "the app does not read")
        return self

    def _work(self) -> None:
        with self.deployment.superuser(self.side) as session:
            session.execute(f"SET lock_timeout = '{PATIENCE}'")  # type: ignore[call-overload]
            while not self.stop.is_set():
                session.execute(self.statement)  # type: ignore[call-overload]
                self.read += 1

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.shutdown()

    def result(self) -> None:
        """Raises what its session raised."""
        self.stop.set()
        self.running.result()


READS_IN_THE_CLOUD = "EXPLAIN SELECT FROM federation_link.note"
"""Has the lock of a query, and nothing of the hospital."""

HELD = {
    "at the hospital": ("local", "SELECT FROM note"),
    "in the cloud": ("cloud", READS_IN_THE_CLOUD),
}


@pytest.mark.parametrize("where", HELD)
def test_a_session_that_reads_the_table_does_not_make_the_app_queue_behind_the_run(
    quick: Deployment, where: str
) -> None:
    side, statement = HELD[where]
    before = catalogs(quick)
    with (
        holding(quick.superuser(side), statement),
        App(quick, side, statement) as app,
        counting_timeouts(quick, side) as timeouts,
        pytest.raises(LockHeld, match="both databases are at 0001") as raised,
    ):
        try:
            upgrade(quick.config, "0002")
        finally:
            app.result()
    assert (raised.value.exit_code, raised.value.side, raised.value.release) == (5, side, "0002")
    assert timeouts == [ATTEMPTS]
    assert (at(quick), mark(quick)) == (("0001", "0001"), "0001")
    assert catalogs(quick) == before
    assert no_lock_left(quick)


@pytest.mark.parametrize("where", HELD)
def test_an_alter_table_that_waits_without_end_makes_the_app_fail(quick: Deployment, where: str) -> None:
    """The control of the test above."""
    side, statement = HELD[where]
    alter = {"local": "ALTER TABLE note ADD x text", "cloud": "ALTER FOREIGN TABLE federation_link.note ADD x text"}[
        side
    ]
    with quick.superuser(side) as dba, ThreadPoolExecutor(1) as thread:
        with holding(quick.superuser(side), statement), App(quick, side, statement) as app:
            altered = thread.submit(dba.execute, alter)  # type: ignore[arg-type]
            with pytest.raises(psycopg.errors.LockNotAvailable):
                app.running.result()
        altered.result()


ASKS = "op.execute('ANALYZE federation_link.note')"
"""What fetches the table's rows, and so waits for its lock at the hospital."""


def test_a_lock_at_the_hospital_that_the_cloud_meets_over_the_link(quick: Deployment) -> None:
    rewrite(quick, {"local": {"0002": ("pass", "pass")}, "cloud": {"0002": (joined(AT_THE_GATE, ASKS), "pass")}})
    with quick.owner("cloud") as owner:
        options = owner.execute("SELECT srvoptions FROM pg_foreign_server").fetchall()[0][0]
    assert any(f"-c lock_timeout={TURN}" in option for option in options)
    before = catalogs(quick)
    with ThreadPoolExecutor(1) as thread, counting_timeouts(quick, "local") as timeouts, ExitStack() as locked:
        with gate(quick, "cloud"):
            run = thread.submit(upgrade, quick.config, "0002")
            until(lambda: run.done() or waiting(quick, "cloud", lock="advisory"), "the cloud's step does not run")
            locked.enter_context(holding(quick.superuser("local"), "LOCK TABLE note IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(LockHeld, match="both databases are at 0001") as raised:
            run.result()
    assert (raised.value.side, raised.value.release) == ("cloud", "0002")
    assert timeouts == [ATTEMPTS]
    assert (at(quick), mark(quick)) == (("0001", "0001"), "0001")
    assert catalogs(quick) == before
    assert no_lock_left(quick)


RELEASED = {
    "at the hospital": ("local", "SELECT FROM note"),
    "in the cloud": ("cloud", READS_IN_THE_CLOUD),
    "over the link": ("local", "SELECT FROM federation.guard FOR UPDATE"),
}


def timed_out(deployment: Deployment, side: str) -> Callable[[], bool]:
    """Whether anybody has given up waiting for a lock since now."""
    before = server(deployment, side).log_text().count("lock timeout")
    return lambda: server(deployment, side).log_text().count("lock timeout") > before


@pytest.mark.parametrize("where", RELEASED)
def test_a_lock_that_is_released_in_time_does_not_keep_the_release(quick: Deployment, where: str) -> None:
    side, statement = RELEASED[where]
    limits(quick, 100)
    up, down = three.CLOUD["0002"]
    rewrite(quick, {"cloud": {"0002": (joined(AT_THE_GATE, up), down)}})
    with ThreadPoolExecutor(1) as thread, ExitStack() as locked:
        met = timed_out(quick, side)
        if where == "at the hospital":
            locked.enter_context(holding(quick.superuser(side), statement))
            run = thread.submit(upgrade, quick.config, "0002")
        else:
            with gate(quick, "cloud"):  # where the hospital's own step is done
                run = thread.submit(upgrade, quick.config, "0002")
                until(lambda: run.done() or waiting(quick, "cloud", lock="advisory"), "the cloud's step does not run")
                locked.enter_context(holding(quick.superuser(side), statement))
        until(lambda: run.done() or met(), "nobody waits")
        assert not run.done()
        locked.close()
        run.result()
    assert (at(quick), mark(quick)) == (("0002", "0002"), "0002")


def test_a_mark_that_cannot_be_lowered_for_a_lock_is_lowered_later(quick: Deployment) -> None:
    """On the way down the cloud's step is committed before the hospital is told."""
    up, down = three.CLOUD["0002"]
    rewrite(quick, {"cloud": {"0002": (up, joined(AT_THE_GATE, down))}})
    limits(quick, 100)
    upgrade(quick.config, "0002")
    met = timed_out(quick, "local")
    with ThreadPoolExecutor(1) as thread, ExitStack() as locked:
        with gate(quick, "cloud"):
            run = thread.submit(downgrade, quick.config, "0001")
            until(lambda: run.done() or waiting(quick, "cloud", lock="advisory"), "the cloud's step does not run")
            locked.enter_context(holding(quick.superuser("local"), "SELECT FROM federation.guard FOR UPDATE"))
        until(lambda: run.done() or met(), "nobody waits")
        assert not run.done()
        locked.close()
        run.result()
    assert (at(quick), mark(quick)) == (("0001", "0001"), "0001")


def test_a_row_that_the_app_has_locked_is_tried_again_by_the_verification(quick: Deployment) -> None:
    limits(quick, 100)
    grant = 'op.grant(("UPDATE",), "note", to=(LINK,))', 'op.revoke(("UPDATE",), "note", from_=(LINK,))'
    more = "op.execute('GRANT UPDATE ON note, federation_link.note TO authenticated')"
    less = "op.execute('REVOKE UPDATE ON note, federation_link.note FROM authenticated')"
    rewrite(quick, {"local": {"0002": grant}, "cloud": {"0002": (more, less)}})
    met = timed_out(quick, "local")
    with ThreadPoolExecutor(1) as thread:
        with holding(quick.superuser("local"), "SELECT FROM note FOR UPDATE"):
            run = thread.submit(upgrade, quick.config, "0002")
            until(lambda: run.done() or met(), "nobody waits")
            assert not run.done()
        run.result()
    assert at(quick) == ("0002", "0002")
