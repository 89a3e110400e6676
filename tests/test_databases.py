"""Sessions: one server session each or none, the same whatever lies between, and no engine made twice."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from federation import databases
from federation.config import Config
from federation.databases import connect, run_lock, sessions
from federation.errors import LockHeld, PreconditionMissing, Side
from federation.servers.processes import server_user, start

if TYPE_CHECKING:
    from deployments import Deployment

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
SECONDS = 30

Mode = Literal["session", "transaction"]


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def pooler(url: str, mode: Mode, **settings: object) -> Iterator[str]:
    """pgbouncer in front of ``url``; its own URL of the same database."""
    server = make_url(url)
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as reserved:
        folder, port = Path(name), reserved.getsockname()[1]
        reserved.close()
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": folder / "users",
            "pool_mode": mode,
            **settings,
        }
        (folder / "users").write_text(f'"{server.username}" "{server.password}"\n')
        lines = [f"{key} = {value}" for key, value in given.items()]
        target = f"* = host={server.host} port={server.port}"
        (folder / "ini").write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))
        if user := server_user():
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user.pw_uid)
        assert PGBOUNCER is not None
        with start([PGBOUNCER, folder / "ini"]) as process:
            try:
                deadline = time.monotonic() + SECONDS
                while not answers(port):
                    assert time.monotonic() < deadline, "pgbouncer did not start"
                    assert process.poll() is None, "pgbouncer has ended"
                    time.sleep(0.01)
                yield server.set(port=port).render_as_string(hide_password=False)
            finally:
                process.terminate()


def through(deployment: Deployment, side: Side, url: str, *, admin: bool = False) -> Config:
    variable = f"FEDERATION_{side.upper()}_{'ADMIN_' if admin else ''}URL"
    return Config.load(deployment.root / "federation.toml", deployment.environ | {variable: url})


def use_several_sessions(url: str, number: int) -> None:
    """As the app does: afterwards the pool holds so many idle ones."""
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(psycopg.connect(url)).execute("SELECT")


@needs_pgbouncer
@pytest.mark.parametrize("used", [0, 1, 3])
@pytest.mark.parametrize("round_robin", [0, 1])
@pytest.mark.parametrize("side", ["local", "cloud"])
def test_a_transaction_pooler_is_refused(deployment: Deployment, side: Side, round_robin: int, used: int) -> None:
    direct = deployment.environ[f"FEDERATION_{side.upper()}_URL"]
    with pooler(direct, "transaction", server_round_robin=round_robin) as url:
        use_several_sessions(url, used)
        with (
            pytest.raises(PreconditionMissing, match="transaction pooler") as caught,
            connect(through(deployment, side, url), side),
        ):
            pytest.fail("a session was given out")
    assert (caught.value.side, caught.value.exit_code) == (side, 9)
    assert f"FEDERATION_{side.upper()}_URL" in str(caught.value)
    assert "session pooler" in str(caught.value.hint)


@needs_pgbouncer
def test_an_administrators_transaction_pooler_is_refused_by_the_name_of_its_variable(deployment: Deployment) -> None:
    with pooler(deployment.environ["FEDERATION_LOCAL_ADMIN_URL"], "transaction") as url:
        config = through(deployment, "local", url, admin=True)
        with (
            pytest.raises(PreconditionMissing, match="FEDERATION_LOCAL_ADMIN_URL leads to"),
            connect(config, "local", admin=True),
        ):
            pytest.fail("a session was given out")


@needs_pgbouncer
def test_a_pool_of_one_session_is_refused_too_and_not_waited_for(deployment: Deployment) -> None:
    with pooler(deployment.environ["FEDERATION_CLOUD_URL"], "transaction", default_pool_size=1) as url:
        config = through(deployment, "cloud", url)
        with pytest.raises(PreconditionMissing, match="transaction pooler"), connect(config, "cloud"):
            pytest.fail("a session was given out")


@needs_pgbouncer
def test_a_refused_pooler_keeps_nothing_of_ours(deployment: Deployment) -> None:
    """The next transaction of the app has the same server session."""
    with pooler(deployment.environ["FEDERATION_CLOUD_URL"], "transaction") as url:
        with pytest.raises(PreconditionMissing), connect(through(deployment, "cloud", url), "cloud"):
            pass
        with psycopg.connect(url) as app:
            assert app.execute("SHOW lock_timeout").fetchone() == ("0",)
            assert app.execute("SHOW client_min_messages").fetchone() == ("notice",)


@needs_pgbouncer
def test_without_the_refusal_a_second_run_would_have_the_same_lock(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: two runs at once, through one server session."""
    monkeypatch.setattr(sessions, "_refuse_transaction_pooler", lambda *_, **__: None)
    with pooler(deployment.environ["FEDERATION_CLOUD_URL"], "transaction") as url:
        config = through(deployment, "cloud", url)
        take = sa.select(sa.func.pg_try_advisory_lock(databases.RUN_LOCK))
        with connect(config, "cloud") as one, connect(config, "cloud") as other:
            assert one.scalar(take)
            one.rollback()
            assert other.scalar(take)


@needs_pgbouncer
@pytest.mark.parametrize("side", ["local", "cloud"])
def test_a_session_pooler_is_as_good_as_the_direct_connection(deployment: Deployment, side: Side) -> None:
    with pooler(deployment.environ[f"FEDERATION_{side.upper()}_URL"], "session") as url:
        config = through(deployment, side, url)
        with connect(config, side) as connection:
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == config.database.lock_timeout
        with run_lock(config), pytest.raises(LockHeld), run_lock(deployment.config):
            pytest.fail("two runs at once")


def test_a_direct_connection_is_told_by_its_process_id(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is asked of it."""

    def asked(*_: object, **__: object) -> None:
        pytest.fail("taken for a pooler")

    monkeypatch.setattr(sessions, "_refuse_transaction_pooler", asked)
    for side in databases.SIDES:
        with connect(deployment.config, side):
            pass


def test_a_session_begins_outside_a_transaction_with_the_settings_of_federation_toml(deployment: Deployment) -> None:
    with connect(deployment.config, "local") as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        assert driver.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        assert not driver.autocommit
        connection.rollback()
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "500ms"
        assert connection.exec_driver_sql("SHOW client_min_messages").scalar_one() == "warning"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "0"


@pytest.mark.parametrize("side", databases.SIDES)
def test_a_session_that_is_idle_is_not_ended_whatever_its_role_has_set(deployment: Deployment, side: Side) -> None:
    """Not the one that holds the run's lock, nor one whose step is at work in Python."""
    name = {"local": deployment.local_dbname, "cloud": deployment.cloud_dbname}[side]
    limits = ("idle_session_timeout", "idle_in_transaction_session_timeout")
    for limit in limits:
        deployment.look(side, f"ALTER DATABASE {name} SET {limit} = '1s'")
    with psycopg.connect(deployment.environ[f"FEDERATION_{side.upper()}_URL"]) as other:
        assert [other.execute(f"SHOW {limit}").fetchone() for limit in limits] == [("1s",), ("1s",)]
    with connect(deployment.config, side) as connection:
        assert [connection.exec_driver_sql(f"SHOW {limit}").scalar_one() for limit in limits] == ["0", "0"]


def test_an_administrators_session_waits_for_locks_as_its_role_does(deployment: Deployment) -> None:
    with connect(deployment.config, "local", admin=True) as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "0"


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("side", databases.SIDES)
def test_two_urls_of_one_database_are_no_other_run_and_nothing_is_waited_for(
    deployment: Deployment, side: Side, wait: bool
) -> None:
    url = deployment.environ[f"FEDERATION_{side.upper()}_URL"]
    both = dict.fromkeys(("FEDERATION_LOCAL_URL", "FEDERATION_CLOUD_URL"), url)
    config = Config.load(deployment.root / "federation.toml", deployment.environ | both)
    with pytest.raises(PreconditionMissing, match="lead to the same database"), run_lock(config, wait=wait):
        pytest.fail("a database was taken for two")


@pytest.mark.parametrize("side", databases.SIDES)
def test_another_run_on_either_side_is_one(deployment: Deployment, side: Side) -> None:
    """The control: a database of its own."""
    with deployment.owner(side) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [databases.RUN_LOCK])
        with pytest.raises(LockHeld) as raised, run_lock(deployment.config):
            pytest.fail("two runs at once")
        assert raised.value.side == side


def test_a_database_has_one_engine_and_no_session_outlives_its_block(deployment: Deployment) -> None:
    with connect(deployment.config, "local") as one, connect(deployment.config, "local") as other:
        assert one.engine is other.engine
        assert one.connection.driver_connection is not other.connection.driver_connection
        with connect(deployment.config, "cloud") as elsewhere:
            assert elsewhere.engine is not one.engine
    with deployment.superuser("local") as superuser:
        deadline = time.monotonic() + SECONDS
        sessions = "SELECT FROM pg_stat_activity WHERE datname = %s AND application_name = 'federation'"
        while superuser.execute(sessions, [deployment.local_dbname]).fetchall():
            assert time.monotonic() < deadline, "a session is still there"
            time.sleep(0.01)
