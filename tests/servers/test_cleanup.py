"""Nothing is left, however the process ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from waiting import until

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


PATIENCE = 60
"""Seconds; what is left over is left for ever."""


def at_work(folder: Path) -> list[psutil.Process]:
    """The guardians and servers of the folders below ``folder``, which is a word or a part of one in their commands."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


def until_nothing_is_left(folder: Path) -> None:
    """No process first: a guardian that has just begun makes its folder later."""
    until(lambda: not at_work(folder))
    until(lambda: not list(folder.iterdir()))


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
        assert at_work(world_writable), "nobody is found: nothing is tested"
        os.killpg(process.pid, number)  # as a terminal does: to the whole foreground group
        process.wait(PATIENCE)
        until_nothing_is_left(world_writable)
        assert not any(map(listening, ports))


def data_directories(folder: Path) -> set[int]:
    """Inodes of those below ``folder``, which are the keys of their servers' shared memory segments."""
    return {data.stat().st_ino & 0xFFFFFFFF for data in folder.glob("*/data")}


def shared_memory() -> set[int]:
    """Keys of the System V segments that there are."""
    table = Path("/proc/sysvipc/shm")
    lines = table.read_text().splitlines()[1:] if table.exists() else []
    return {int(line.split()[0]) & 0xFFFFFFFF for line in lines}


@pytest.mark.parametrize("delay", [0, 0.1, 0.2])
def test_killed_while_starting_nothing_is_left(binaries: Binaries, delay: float, world_writable: Path) -> None:
    with owner(binaries, world_writable) as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: list(world_writable.iterdir()))
        time.sleep(delay)  # not a wait for a condition: the moment is the parameter
        process.kill()
        process.wait(PATIENCE)
        made = data_directories(world_writable)
        until_nothing_is_left(world_writable)
        assert not made & shared_memory()
