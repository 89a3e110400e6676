"""What a server is while it runs."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import ordinary_user
import psycopg
import pytest

import federation
from federation.errors import FederationError
from federation.servers import Binaries, Pair, Server, find_binaries
from federation.servers.processes import server_user
from federation.servers.server import PORTS

ROOT = str(Path(federation.__file__).parents[1])


def test_it_is_the_version_that_was_asked_for(pair: Pair, binaries: Binaries) -> None:
    for server in (pair.local, pair.cloud):
        with server.connect() as connection:
            assert connection.info.server_version // 10_000 == binaries.major


def test_a_password_is_required_and_kept_as_scram(pair: Pair) -> None:
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(pair.local.url(pair.local.superuser))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(pair.local.url(pair.local.superuser, "wrong"))
    with pair.cloud.connect() as connection:
        methods = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        kept = connection.execute("SELECT left(rolpassword, 14) FROM pg_authid WHERE rolpassword <> ''").fetchall()
    assert methods == [("scram-sha-256",)]
    assert kept == [("SCRAM-SHA-256$",)] * 3


def test_it_listens_on_loopback_only_and_on_no_socket(pair: Pair) -> None:
    with pair.local.connect() as connection:
        (addresses,) = connection.execute("SHOW listen_addresses").fetchone() or ()
        (sockets,) = connection.execute("SHOW unix_socket_directories").fetchone() or ()
    assert (addresses, sockets) == ("127.0.0.1", "")


def test_it_runs_as_an_ordinary_user(pair: Pair) -> None:
    # PostgreSQL insists that the data directory is of the user it runs as.
    data = (pair.local.folder / "data").stat()
    user = server_user()
    assert data.st_uid == (user.pw_uid if user else os.geteuid()) != 0
    assert data.st_mode & 0o777 == pair.local.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_a_pair_runs_for_a_user_who_is_not_root() -> None:
    script = (
        "from federation.servers import Pair\nwith Pair() as pair: print((pair.local.folder / 'data').stat().st_uid)"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([ROOT, *sys.path])}
    done = ordinary_user.run(["-c", script], Path("/"), environ)
    assert (done.stdout, done.stderr) == ("65534\n", "")


def test_the_two_servers_of_a_pair_may_be_of_different_versions() -> None:
    oldest, *_, newest = sorted(find_binaries() * 2, key=lambda found: found.major)
    with Pair(oldest, cloud_binaries=newest) as pair:
        assert (pair.local.binaries, pair.cloud.binaries) == (oldest, newest)
        with pair.cloud.connect() as connection:
            assert connection.info.server_version // 10_000 == newest.major


def test_no_password_is_logged_or_left_in_a_file_or_an_argument(pair: Pair) -> None:
    urls = [pair.cloud.url(), pair.authenticator_url(), pair.environment()["FEDERATION_CLOUD_URL"]]
    secrets = [str(psycopg.conninfo.conninfo_to_dict(url)["password"]).encode() for url in urls]
    texts = [path.read_bytes() for path in pair.cloud.folder.iterdir() if path.is_file()]
    arguments = Path(f"/proc/{pair.cloud.pid}/cmdline")
    texts += [arguments.read_bytes()] if arguments.exists() else []
    assert "create role authenticator" in pair.cloud.log_text()  # every statement is logged
    assert not [secret for secret in secrets for text in texts if secret in text]


def test_our_environment_does_not_reach_the_server(binaries: Binaries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("FEDERATION_LINK_PASSWORD", "a secret")
    with Server(binaries) as server:
        environment = Path(f"/proc/{server.pid}/environ")
        assert not environment.exists() or b"FEDERATION" not in environment.read_bytes()
        server.connect().close()


def test_settings_and_odd_names_are_quoted(binaries: Binaries) -> None:
    odd = "o'Brien \"%@/:\\ü"
    with Server(binaries, superuser="Ad min@/", settings={"cluster_name": "it's \\ here"}) as server:
        server.create_database(odd)
        server.set_password(server.superuser, server.password)
        with psycopg.connect(server.url(dbname=odd)) as connection:
            row = connection.execute("SELECT current_user::text, current_database(), current_setting('cluster_name')")
            assert row.fetchone() == ("Ad min@/", odd, "it's \\ here")


def test_a_database_is_cloned_and_dropped_although_somebody_is_connected(pair: Pair) -> None:
    pair.local.create_database("original")
    with pair.local.connect("original") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    pair.local.create_database("copy", owner=pair.local.superuser, template="original")
    with pair.local.connect("copy") as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
        pair.local.drop_database("copy")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT n FROM kept")
    pair.local.drop_database("original")
    pair.local.drop_database("original")


def test_it_stops_and_starts_again_at_the_same_address_with_its_rows(binaries: Binaries) -> None:
    with Server(binaries) as server:
        url, pid = server.url(), server.pid
        with server.connect() as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        for mode in ("fast", "immediate"):
            server.stop(mode)
            server.stop(mode)
            with pytest.raises(FederationError, match="does not run"):
                _ = server.pid
            with pytest.raises(psycopg.OperationalError, match="refused"):
                psycopg.connect(url)
            server.start()
            server.start()
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
        assert server.pid != pid


def test_it_stops_while_a_client_that_came_last_says_nothing(binaries: Binaries) -> None:
    """PostgreSQL 15 waits for such a client until its `authentication_timeout`, by default longer than we wait."""
    with Server(binaries) as server, ExitStack() as clients:
        os.kill(server.pid, signal.SIGSTOP)
        for _ in range(20):
            clients.enter_context(socket.create_connection((server.host, server.port)))
        os.kill(server.pid, signal.SIGQUIT)
        os.kill(server.pid, signal.SIGCONT)
        server.stop("immediate")


def test_it_takes_another_port_when_one_is_taken(binaries: Binaries, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1], PORTS[4321]]
        monkeypatch.setattr("secrets.choice", lambda _ports: ports.pop(0))
        with Server(binaries) as server:
            server.connect().close()
            assert server.port == PORTS[4321]


def test_a_setting_that_postgresql_refuses_is_named_and_nothing_is_left(binaries: Binaries) -> None:
    server = Server(binaries, settings={"max_connections": "many"})
    with pytest.raises(FederationError, match=r"did not start .*"), server:
        pass
    assert not server.folder.exists()


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(pair: Pair) -> None:
    for server in (pair.local, pair.cloud):
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)
