"""A run that has lost its lock, with the session that held it, stops: whatever it did next, another could be doing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import chains_of_three as three
import psycopg
import pytest
from alembic import command
from runs import AT_THE_GATE, RUN_LOCKS, at, end_started, gate, joined, mark, rewrite, start, until, waiting

from federation.databases import RUN_LOCK, run_lock
from federation.environments import alembic_config, runtime
from federation.errors import LockHeld
from federation.lockstep import read_status, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

FAILS = "op.execute('SELECT 1/0')"

each_side = pytest.mark.parametrize("side", ["local", "cloud"])


@pytest.fixture
def first(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the first."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0001")
        yield deployment
        end_started()


def gated(deployment: Deployment, side: str, *then: str) -> None:
    """0002's step waits at the gate of ``side``."""
    up, down = {"local": three.LOCAL, "cloud": three.CLOUD}[side]["0002"]
    rewrite(deployment, {side: {"0002": (joined(AT_THE_GATE, up, *then), down)}})


def end_the_lock(deployment: Deployment, side: str) -> None:
    """As a DBA does who tidies up what is idle."""
    ended = deployment.look(side, f"SELECT pg_terminate_backend(l.pid, 60000) {RUN_LOCKS}")
    assert ended == [(True,)]


def upgrade_without_lock(deployment: Deployment, *, half: str, lock: str) -> tuple[int, str]:
    """Exit code and standard error of a run whose lock on side ``lock`` ends while it is in 0002's ``half``."""
    with gate(deployment, half):
        runner = start(deployment, "upgrade")
        until(lambda: runner.poll() is not None or waiting(deployment, half, lock="advisory"), "the step does not run")
        end_the_lock(deployment, lock)
    _, said = runner.communicate()
    return runner.returncode, said


@each_side
def test_between_the_halves_the_release_is_left_to_a_later_run(first: Deployment, side: str) -> None:
    gated(first, "local")
    code, said = upgrade_without_lock(first, half="local", lock=side)
    assert code == 4, said
    assert f"{side}: 0002: the session that holds this run's lock has ended" in said
    assert "nothing is undone, since another run may be under way; local is at 0002, cloud at 0001" in said
    assert at(first) == ("0002", "0001")
    command = str(read_status(first.config).next_command)
    assert command in said
    assert first.federation(*command.split()[1:]).returncode == 0
    assert (at(first), mark(first)) == (("0002", "0002"), "0002")


@each_side
def test_between_two_releases_the_first_of_them_is_left_finished(first: Deployment, side: str) -> None:
    gated(first, "cloud")
    code, said = upgrade_without_lock(first, half="cloud", lock=side)
    assert code == 6, said
    assert "the session that holds this run's lock has ended" in said
    assert "both databases are at 0002" in said
    assert (at(first), mark(first)) == (("0002", "0002"), "0002")


def test_a_half_is_not_undone_without_the_lock(first: Deployment) -> None:
    """With it, it is: test_compensation.py."""
    gated(first, "cloud", FAILS)
    code, said = upgrade_without_lock(first, half="cloud", lock="local")
    assert code == 4, said
    assert "division by zero" in said
    assert "nothing is undone, since another run may be under way; local is at 0002, cloud at 0001" in said
    assert at(first) == ("0002", "0001")


@each_side
def test_a_lock_that_is_kept_stops_nothing(first: Deployment, side: str) -> None:
    """The control: the same run, and another session that ends."""
    gated(first, "local")
    with gate(first, "local"), first.owner(side) as other:
        runner = start(first, "upgrade")
        until(lambda: runner.poll() is not None or waiting(first, "local", lock="advisory"), "the step does not run")
        pid = other.info.backend_pid
        first.look(side, "SELECT pg_terminate_backend(%s, 60000)", [pid])
    _, said = runner.communicate()
    assert runner.returncode == 0, said


TAKE_KEY = f"SELECT pg_advisory_lock({RUN_LOCK})"


def a_caller(deployment: Deployment) -> psycopg.Connection[tuple[object, ...]]:
    """A session of PostgREST's, as who is signed in."""
    session = psycopg.connect(deployment.pair.authenticator_url(deployment.cloud_dbname), autocommit=True)
    session.execute("SET ROLE authenticated")
    return session


@pytest.mark.claim("N18")
def test_a_caller_who_holds_the_advisory_key_stops_no_release(first: Deployment) -> None:
    with a_caller(first) as caller:
        caller.execute(TAKE_KEY)
        ran = first.federation("upgrade", "0002")
        assert ran.returncode == 0, ran.stderr
        assert first.federation("downgrade", "0001", "--yes").returncode == 0
        assert first.alembic("local", "upgrade", "0002").returncode == 0
        assert first.alembic("cloud", "upgrade", "0002").returncode == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            caller.execute("BEGIN; LOCK TABLE federation.run IN ACCESS SHARE MODE")


def test_two_runs_still_exclude_each_other_while_a_caller_holds_the_key(first: Deployment) -> None:
    with a_caller(first) as caller:
        caller.execute(TAKE_KEY)
        with run_lock(first.config), pytest.raises(LockHeld, match="another federation run"), run_lock(first.config):
            pytest.fail("two runs at once")


@pytest.mark.claim("N18")
def test_before_the_first_release_a_caller_who_holds_the_key_is_named(deployment: Deployment) -> None:
    """The control: there is no table to lock yet, and the key alone decides."""
    with a_caller(deployment) as caller:
        caller.execute(TAKE_KEY)
        ran = deployment.federation("upgrade")
        assert ran.returncode == 5
        pid = caller.info.backend_pid
        assert f"no federation run holds the key of its lock; its lock is held by pid {pid} (role authen" in ran.stderr
        assert f"SELECT pg_terminate_backend({pid})" in ran.stderr
        deployment.look("cloud", "SELECT pg_terminate_backend(%s, 60000)", [pid])
    assert deployment.federation("upgrade", "0001").returncode == 0


def test_a_run_that_began_at_base_excludes_one_that_finds_the_table(deployment: Deployment) -> None:
    with run_lock(deployment.config):
        for side in ("local", "cloud"):
            with deployment.owner(side) as owner:
                owner.execute("CREATE SCHEMA federation; CREATE TABLE federation.run ()")
        with pytest.raises(LockHeld, match="another federation run"), run_lock(deployment.config):
            pytest.fail("two runs at once")


@each_side
def test_the_session_of_the_lock_holds_neither_a_snapshot_nor_an_id(first: Deployment, side: str) -> None:
    """It is idle in a transaction; VACUUM goes past it, and an index is built concurrently beside it."""
    with run_lock(first.config) as lock, first.owner(side) as owner:
        assert lock.lost() is None
        pid = next(session.server_pid for held, _, session in lock.held if held == side)
        state = "SELECT state, backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s"
        assert first.look(side, state, [pid]) == [("idle in transaction", None, None)]
        owner.execute("CREATE TABLE plain (x integer)")
        owner.execute("SET lock_timeout = '5s'")
        owner.execute("CREATE INDEX CONCURRENTLY beside ON plain (x)")
        with first.owner(side) as reader:  # the control: a transaction that has a snapshot
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
            owner.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                owner.execute("CREATE INDEX CONCURRENTLY behind ON plain (x)")
            reader.execute("ROLLBACK")


ALEMBIC = "import sys; from alembic.config import main; main(argv=['-n', *sys.argv[1:]])"


@each_side
def test_plain_alembic_does_not_run_beside_a_run(first: Deployment, side: str) -> None:
    gated(first, "local")
    with gate(first, "local"):
        runner = start(first, "upgrade", "0002")
        until(lambda: runner.poll() is not None or waiting(first, "local", lock="advisory"), "the step does not run")
        for words in (("upgrade", "0002"), ("downgrade", "base"), ("stamp", "0003")):
            stopped = first.alembic(side, *words)
            assert stopped.returncode == 5, stopped.stderr
            assert "another federation run is under way; its lock is held by pid" in stopped.stderr
        assert first.alembic(side, "current").returncode == 0
        assert at(first) == ("0001", "0001")
    _, said = runner.communicate()
    assert runner.returncode == 0, said
    assert at(first) == ("0002", "0002")


@each_side
def test_no_run_begins_beside_plain_alembic(first: Deployment, side: str) -> None:
    gated(first, "local")
    with gate(first, "local"):
        alembic = start(first, "local", "upgrade", "0002", code=ALEMBIC)
        until(lambda: alembic.poll() is not None or waiting(first, "local", lock="advisory"), "the step does not run")
        stopped = first.federation("upgrade")
        assert stopped.returncode == 5, stopped.stderr
        assert "another federation run is under way; its lock is held by pid" in stopped.stderr
        assert first.alembic("local", "upgrade", "0002").returncode == 5
    _, said = alembic.communicate()
    assert alembic.returncode == 0, said
    assert first.federation("upgrade", "0002").returncode == 0


def test_a_race_with_plain_alembic_ends_with_one_of_them_refused_or_with_both_done(first: Deployment) -> None:
    for _ in range(4):
        runner, alembic = start(first, "upgrade"), start(first, "local", "upgrade", "head", code=ALEMBIC)
        codes = [process.wait() for process in (runner, alembic)]
        said = [process.communicate()[1] for process in (runner, alembic)]
        assert set(codes) <= {0, 5}, said
        assert first.federation("upgrade").returncode == 0
        assert first.federation("downgrade", "0001", "--yes").returncode == 0


def test_the_control_without_the_lock_plain_alembic_runs_beside_a_run(
    first: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "run_lock", lambda *_, **__: nullcontext())
    gated(first, "cloud")
    with gate(first, "cloud"):
        runner = start(first, "upgrade", "0002")
        until(lambda: runner.poll() is not None or waiting(first, "cloud", lock="advisory"), "the step does not run")
        command.downgrade(alembic_config(first.config, "local"), "0001")
        assert first.look("local", "SELECT version_num FROM federation.alembic_version") == [("0001",)]
    runner.communicate()
    assert runner.returncode != 0
