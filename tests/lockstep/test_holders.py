"""Whoever gives up waiting for a lock says who holds it, and quotes no value of that session's statement."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import psycopg
import pytest
from runs import add_note, at, rewrite, settings

from federation.administration import accounts, link
from federation.databases import patience, run_lock
from federation.databases.holders import first_words
from federation.errors import LockHeld, ReleasesDiffer
from federation.lockstep import upgrade
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

VALUE = "Asha Verma"
READS = f"SELECT text FROM note WHERE text = '{VALUE}'"


@pytest.fixture
def second(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the second of them, a row, and short turns."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        settings(deployment.root, lock_timeout="400ms", lock_attempts=2)
        file = deployment.root / "federation.toml"
        file.write_text(f"{file.read_text()}\n[link]\nlock_timeout = '400ms'\n")
        link.apply(deployment.config)
        add_note(deployment, text=VALUE)
        rewrite(
            deployment,
            {
                "local": {"0003": ("op.execute('ALTER TABLE note ADD extra integer')", "pass")},
                "cloud": {"0003": ("op.execute('SELECT count(*) FROM federation_link.note')", "pass")},
            },
        )
        yield deployment


@contextmanager
def holding(session: psycopg.Connection[Any], statement: str) -> Iterator[int]:
    """An application's transaction that stays open; its process id."""
    session.autocommit = False
    with session:
        session.execute("SET application_name = 'clinic'")
        session.execute(statement)  # type: ignore[call-overload]
        yield session.info.backend_pid
        session.rollback()


def refused(deployment: Deployment) -> LockHeld:
    with pytest.raises(LockHeld) as raised:
        upgrade(deployment.config)
    assert VALUE.split()[0] not in f"{raised.value}"
    assert at(deployment) == ("0002", "0002")
    return raised.value


def test_a_session_of_the_owner_is_named_with_the_words_of_its_statement(second: Deployment) -> None:
    with holding(second.owner("local"), READS) as pid:
        error = refused(second)
    assert f"the lock on public.note is held in the local database by pid {pid} (role hospital_owner" in error.message
    assert "application clinic" in error.message
    assert "UTC, statement SELECT text FROM note WHERE text …)" in error.message
    assert f"SELECT pg_terminate_backend({pid})" in str(error.hint)


def test_a_session_of_another_role_is_named_with_its_statement_where_the_owner_has_pg_read_all_stats(
    second: Deployment,
) -> None:
    """`bootstrap local` grants it."""
    with holding(second.superuser("local"), READS):
        assert "statement SELECT text FROM note WHERE text …" in refused(second).message


def test_without_pg_read_all_stats_process_and_role_are_told(second: Deployment) -> None:
    second.look("local", "REVOKE pg_read_all_stats FROM hospital_owner")
    try:
        with holding(second.superuser("local"), READS) as pid:
            assert f"by pid {pid} (role postgres, application clinic)" in refused(second).message
    finally:
        second.look("local", "GRANT pg_read_all_stats TO hospital_owner")


def test_a_lock_of_the_hospitals_that_the_cloud_meets_over_the_link_is_told_as_such(second: Deployment) -> None:
    assert second.alembic("local", "upgrade", "0003").returncode == 0
    with (
        holding(second.superuser("local"), "LOCK TABLE note IN ACCESS EXCLUSIVE MODE") as pid,
        pytest.raises(ReleasesDiffer) as raised,
    ):
        upgrade(second.config)
    told = f"the lock on public.note is held at the hospital, over the link by pid {pid} (role postgres"
    assert told in raised.value.message


def test_the_control_when_nobody_looks_nobody_is_named(second: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "naming_holders", lambda *_: nullcontext())
    with holding(second.owner("local"), READS) as pid:
        assert str(pid) not in str(refused(second))


def test_link_apply_and_accounts_name_the_holder(second: Deployment) -> None:
    alter = "ALTER SERVER hospital OPTIONS (SET connect_timeout '9')"
    with holding(second.owner("cloud"), alter) as pid, pytest.raises(LockHeld, match=f"by pid {pid} .role postgres"):
        link.apply(second.config)
    locks = "LOCK TABLE federation.account IN ACCESS EXCLUSIVE MODE"
    with (
        holding(second.owner("local"), locks) as pid,
        pytest.raises(LockHeld, match=f"the lock on federation.account is held in the local database by pid {pid}"),
    ):
        accounts.list_(second.config)
    assert [str(account["sub"]) for account in accounts.list_(second.config)] == [SITE_ID]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (READS, "SELECT text FROM note WHERE text"),
        (f"  insert into note (id, text) values ('{VALUE}')", "insert into note (id, text) values ("),
        (f"SET app.patient TO {VALUE.split()[0]}", "SET app.patient"),
        (f"/* {VALUE} */ SELECT 1", ""),
        (f"-- {VALUE}\nSELECT 1", ""),
        ("SELECT 4711", "SELECT"),
        (f"DO $$ {VALUE} $$", "DO"),
        (f"SELECT E'{VALUE}'", "SELECT E"),
        ("<insufficient privilege>", ""),
        ("a b c d e f g h i j", "a b c d e f g h"),
    ],
)
def test_the_words_end_before_the_first_literal(statement: str, words: str) -> None:
    assert first_words(statement) == words


def test_a_held_run_lock_names_its_holder(second: Deployment) -> None:
    with run_lock(second.config) as lock:
        pid = lock.held[0][2].server_pid
        stopped = second.federation("upgrade")
    assert stopped.returncode == 5
    assert f"another federation run is under way; its lock is held by pid {pid} (role hospital_owner" in stopped.stderr
    assert "application federation, from 127.0.0.1, since " in stopped.stderr
