"""Nothing is left, however the process ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import federation
from federation.errors import FederationError
from federation.servers import Binaries, Pair, Server


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_after_the_block_servers_and_folders_are_gone(binaries: Binaries) -> None:
    with Pair(binaries) as pair:
        folders, ports = [pair.local.folder, pair.cloud.folder], [pair.local.port, pair.cloud.port]
        assert all(map(listening, ports))
    assert not any(map(listening, ports))
    assert not any(map(Path.exists, folders))


def test_after_an_exception_with_clients_connected_too(binaries: Binaries) -> None:
    server = Server(binaries)
    with ExitStack() as block:
        block.enter_context(pytest.raises(ZeroDivisionError))
        block.enter_context(server)
        connection = server.connect()
        _ = 1 / 0
    connection.close()
    assert not listening(server.port)
    assert not server.folder.exists()


def test_if_one_server_does_not_start_the_other_is_gone_too(binaries: Binaries) -> None:
    pair = Pair(binaries)
    pair.cloud._settings["max_connections"] = "many"
    with pytest.raises(FederationError), pair:
        pass
    assert not listening(pair.local.port)
    assert not pair.local.folder.exists()
    assert not pair.cloud.folder.exists()


OWNER = """
import sys
from federation.servers import Binaries, Pair, find_binaries
(binaries,) = (found for found in find_binaries() if found.version == sys.argv[1])
print("about to start", flush=True)
with Pair(binaries) as pair:
    for server in (pair.local, pair.cloud):
        print(server.port, server.folder, flush=True)
    sys.stdin.read()
"""


def owner(binaries: Binaries, folder: Path) -> subprocess.Popen[str]:
    """A process that owns a pair whose folders are below ``folder``."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, binaries.version],
        cwd=Path(federation.__file__).parents[1],
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def until_empty(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while list(folder.iterdir()):
        assert time.monotonic() < deadline, list(folder.iterdir())
        time.sleep(0.02)


@pytest.fixture
def world_writable() -> Iterator[Path]:
    """A directory that the servers' user may write; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_after_a_signal_servers_and_folders_are_gone(
    binaries: Binaries, number: signal.Signals, world_writable: Path
) -> None:
    with owner(binaries, world_writable) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ports = [int(process.stdout.readline().split()[0]) for _ in range(2)]
        assert all(map(listening, ports))
        assert len(list(world_writable.iterdir())) == 2
        os.killpg(process.pid, number)  # as a terminal does: to the whole foreground group
        process.wait(20)
        until_empty(world_writable)
        assert not any(map(listening, ports))


@pytest.mark.parametrize("delay", [0.05, 0.1, 0.2])
def test_killed_while_starting_nothing_is_left(binaries: Binaries, delay: float, world_writable: Path) -> None:
    with owner(binaries, world_writable) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)  # not a wait for a condition: the moment is the parameter
        process.kill()
        process.wait(20)
        until_empty(world_writable)
        time.sleep(0.2)
        until_empty(world_writable)
