"""upgrade, check and analyze end in time when the hospital is frozen or silent, and work again when it is not.

Where the cloud's server waits for the hospital: our own session at the hospital has libpq's connect_timeout.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chains_of_three
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from frozen import frozen
from psycopg import sql
from waiting import until

from federation import databases
from federation.administration import link
from federation.administration.analyze import analyze
from federation.check import check
from federation.config import Config
from federation.databases import sessions
from federation.errors import ReleasesDiffer, Unreachable
from federation.lockstep import read_status, upgrade
from federation.operations.statements import execute
from federation.servers.proxy import Proxy

if TYPE_CHECKING:
    from deployments import Deployment, Deployments

CONNECT = 2
"""Seconds."""
TIMEOUT = 2 * CONNECT
SLACK = 20
"""Seconds, for a machine that is busy; the half minute that the cloud's server waits by itself is more (from 17 on)."""

COMMANDS: dict[str, Callable[[Config], Any]] = {"check": check, "analyze": analyze}

WAITS = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
    "AND (query LIKE '%%IMPORT FOREIGN SCHEMA%%' OR query = 'COMMIT') AND pid <> pg_backend_pid() "
    "AND clock_timestamp() - query_start > make_interval(secs => %s)"
)
"""The cloud's sessions that wait for the hospital so many seconds."""

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds the backends in /proc")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CLEANUP", 1.0)
    monkeypatch.setattr(sessions, "SLACK", 1.0)
    # The cloud's server is looked at when the client is gone, which it would find out within 10 s.
    monkeypatch.setattr(sessions, "CLIENT_CHECK", "0")


@pytest.fixture
def proxy(deployments: Deployments) -> Iterator[Proxy]:
    with Proxy(deployments.pair.local.port) as proxy:
        yield proxy


def over(proxy: Proxy | None, deployment: Deployment) -> Config:
    """The configuration with short limits, and the link by way of the proxy."""
    config = deployment.config
    limits: dict[str, object] = {"connect_timeout": CONNECT} | ({"port": proxy.port} if proxy else {})
    return Config.model_validate(
        {
            **config.model_dump(by_alias=True),
            "link": {**config.link.model_dump(), **limits},
            "database": {
                **config.database.model_dump(),
                "connect_timeout": CONNECT,
                "lock_timeout": "500ms",
                "lock_attempts": 3,
            },
        }
    )


def refused_in(seconds: float, command: Callable[[], object]) -> Unreachable:
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        command()
    assert time.monotonic() - began < seconds + SLACK
    assert caught.value.exit_code == 6
    return caught.value


@pytest.mark.parametrize("name", COMMANDS)
def test_a_silent_hospital_ends_the_command_in_time(federated: Deployment, proxy: Proxy, name: str) -> None:
    config = over(proxy, federated)
    link.apply(config)
    proxy.silence()
    error = refused_in(TIMEOUT, lambda: COMMANDS[name](config))
    assert error.side == "cloud"
    assert "does not reach the hospital" in str(error)
    proxy.speak()
    COMMANDS[name](config)


def test_a_silent_hospital_ends_an_upgrade_in_time_and_its_first_half_is_undone(
    deployment: Deployment, proxy: Proxy
) -> None:
    config = over(proxy, deployment)
    proxy.silence()
    error = refused_in(TIMEOUT, lambda: upgrade(config))
    assert (error.side, error.release) == ("cloud", "0001")
    assert "does not reach the hospital" in str(error)
    status = read_status(config)
    assert (status.local, status.cloud) == (None, None)
    proxy.speak()
    assert upgrade(config).release == status.head


@needs_proc
@pytest.mark.parametrize("name", COMMANDS)
def test_a_frozen_hospital_ends_the_command_in_time(federated: Deployment, name: str) -> None:
    config = over(None, federated)
    with frozen(federated.pair.local) as freeze:
        freeze()
        error = refused_in(TIMEOUT, lambda: COMMANDS[name](config))
    assert error.side == ("local" if name == "check" else "cloud")
    COMMANDS[name](config)


@needs_proc
def test_a_frozen_hospital_ends_an_upgrade_before_its_first_step(deployment: Deployment) -> None:
    config = over(None, deployment)
    with frozen(deployment.pair.local) as freeze:
        freeze()
        assert refused_in(TIMEOUT, lambda: upgrade(config)).side == "local"
    assert upgrade(config).steps


@contextmanager
def silent_in_the_middle(proxy: Proxy, moment: str = "statement") -> Iterator[None]:
    """The link falls silent in release 0002, which imports twice; between two releases it would be connected anew."""
    imports = itertools.count(1)

    def second(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "IMPORT FOREIGN SCHEMA" in statement and next(imports) == 3:
            if moment == "statement":
                proxy.silence()
            else:
                sa.event.listen(sa.Engine, "commit", lambda _connection: proxy.silence(), once=True)

    sa.event.listen(sa.Engine, "before_cursor_execute", second)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", second)


def test_a_hospital_that_falls_silent_in_the_middle_of_a_step_ends_the_upgrade_too(
    deployment: Deployment, proxy: Proxy
) -> None:
    """The cloud's server waits half a minute more, before 17 without end; the command does not."""
    config = over(proxy, deployment)
    with silent_in_the_middle(proxy):
        error = refused_in(TIMEOUT + sessions.CLEANUP + sessions.SLACK, lambda: upgrade(config))
    assert (error.side, error.release) == ("cloud", "0002")
    assert "no answer from foreign server hospital" in str(error)
    with deployment.superuser("cloud") as superuser:
        assert superuser.execute(WAITS, [0]).fetchall(), "the cloud's server has not waited: nothing is tested"
        status = read_status(config)
        assert (status.local, status.cloud) == ("0001", "0001")
        proxy.speak()
        until(lambda: not superuser.execute(WAITS, [0]).fetchall())
    assert upgrade(config).release == status.head


def test_a_hospital_that_falls_silent_at_commit_ends_the_upgrade_too(deployment: Deployment, proxy: Proxy) -> None:
    """The half that is done cannot be undone meanwhile: the link's session at the hospital still has its locks."""
    config, began = over(proxy, deployment), time.monotonic()
    with silent_in_the_middle(proxy, "COMMIT"), pytest.raises((Unreachable, ReleasesDiffer)) as caught:
        upgrade(config)
    assert time.monotonic() - began < TIMEOUT + sessions.CLEANUP + sessions.SLACK + SLACK
    assert "no answer from foreign server hospital" in str(caught.value)
    with deployment.superuser("cloud") as superuser:
        assert superuser.execute(WAITS, [0]).fetchall(), "the cloud's server has not waited: nothing is tested"
        proxy.speak()
        until(lambda: not superuser.execute(WAITS, [0]).fetchall())
    assert upgrade(config).release == read_status(config).head


def test_without_that_the_upgrade_waits_as_long_as_the_hospital_is_silent(
    deployment: Deployment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control, which ends well when the silence does."""
    monkeypatch.setattr(sessions, "_answered", lambda *_: nullcontext())
    bound = TIMEOUT + sessions.CLEANUP + sessions.SLACK
    config = over(proxy, deployment)
    with ThreadPoolExecutor(1) as pool, deployment.superuser("cloud") as superuser, silent_in_the_middle(proxy):
        running = pool.submit(upgrade, config)
        until(lambda: running.done() or superuser.execute(WAITS, [bound + 1]).fetchall())
        assert not running.done()
        proxy.speak()
        assert running.result().release == read_status(config).head


def test_a_silence_before_the_commit_of_a_step_that_imports_nothing_ends_the_upgrade_too(
    deployments: Deployments, proxy: Proxy, tmp_path: Path
) -> None:
    """The guard asks at COMMIT, where statement_timeout does not count."""
    with deployments.at_base(root=chains_of_three.write(tmp_path)) as deployment:
        config = over(proxy, deployment)
        upgrade(config, "0002")
        proxy.silence()
        began = time.monotonic()
        with pytest.raises((Unreachable, ReleasesDiffer)):
            upgrade(config, "0003")
        assert time.monotonic() - began < TIMEOUT + sessions.CLEANUP + sessions.SLACK + SLACK
        proxy.speak()
        with deployment.superuser("cloud") as superuser:
            until(lambda: not superuser.execute(WAITS, [0]).fetchall())
        assert upgrade(config, "0003").release == "0003"


MENTIONS = (
    "IMPORT FOREIGN SCHEMA is done by now",
    "SELECT federation_private.require_hospital()",
    "SET CONSTRAINTS federation.guard_version IMMEDIATE",
    "ANALYZE comes later",
)
LIMIT = "DO $$ BEGIN ASSERT current_setting('statement_timeout') = '{}', current_setting('statement_timeout'); END $$"


def test_a_migrations_own_sql_keeps_its_own_time_whatever_it_mentions(deployments: Deployments, tmp_path: Path) -> None:
    statements = [
        "SET LOCAL statement_timeout = '7min'",
        *(f"/* {text} */ {LIMIT.format('7min')}" for text in MENTIONS),
    ]
    own = "; ".join(f"op.execute({statement!r})" for statement in statements)
    chain = chains_of_three.CLOUD | {"0003": (own, "pass")}
    with deployments.at_base(root=chains_of_three.write(tmp_path, cloud=chain)) as deployment:
        assert upgrade(over(None, deployment)).release == "0003"


@pytest.mark.parametrize(("seconds", "limit"), [(0, f"{TIMEOUT}s"), (90, "90s")])
def test_an_operation_that_asks_the_hospital_has_the_links_time(
    federated: Deployment, seconds: int, limit: str
) -> None:
    """The control of the test above: what is told decides, and no text."""
    with databases.connect(over(None, federated), "cloud") as connection:
        operations = Operations(MigrationContext.configure(connection))
        limited = sql.SQL(LIMIT.format(limit))
        execute(operations, limited, asks_hospital=True, seconds=seconds)
        execute(operations, sql.SQL(LIMIT.format("0")))


@pytest.mark.parametrize("check", ["1s", "0"])
def test_the_clouds_session_of_a_killed_command_ends_only_since_the_cloud_looks(
    federated: Deployment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """0 is the server's default, and the negative control."""
    monkeypatch.setattr(sessions, "CLIENT_CHECK", check)
    config = over(proxy, federated)
    link.apply(config)
    read = "SELECT count(*) FROM federation_link.hospital_patients"
    waits = "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND wait_event_type = 'Extension'"
    session: Any
    with (
        ThreadPoolExecutor(1) as pool,
        federated.superuser("cloud") as superuser,
        pytest.raises(Unreachable),
        databases.connect(config, "cloud") as connection,
    ):
        session = connection.connection.driver_connection
        pid = session.info.backend_pid
        connection.exec_driver_sql(read)
        connection.commit()
        proxy.silence()
        waiting = pool.submit(connection.exec_driver_sql, read)
        until(lambda: superuser.execute(waits, [pid]).fetchall())
        sessions._hang_up(session, threading.Event())
        if check == "0":
            hung_up = superuser.execute("SELECT clock_timestamp()").fetchone()
            until(lambda: superuser.execute("SELECT WHERE clock_timestamp() > %s + interval '4s'", hung_up).rowcount)
            assert superuser.execute(waits, [pid]).fetchall()
        else:
            until(lambda: not superuser.execute(waits, [pid]).fetchall())
        proxy.speak()
        waiting.result()
