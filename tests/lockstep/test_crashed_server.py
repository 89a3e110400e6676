"""A server that crashes in the middle of a release: what the run says and its exit code are what the databases say."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import psutil
import psycopg
import pytest
from deployments import Deployment, Deployments
from runs import AT_THE_GATE, GATE, at, end_started, joined, rewrite, start, until, waiting

from federation.lockstep import upgrade
from federation.servers import Binaries, Pair

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

each_side = pytest.mark.parametrize("side", ["local", "cloud"])


@pytest.fixture
def own_servers(binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases at the first, on servers that can be killed."""
    settings = {"synchronous_commit": "on"}  # or a crash takes what was committed just before
    with (
        Pair(binaries, settings=settings) as pair,
        Deployments(pair) as databases,
        databases.at_base(three.write(tmp_path)) as deployment,
    ):
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0001")
        yield deployment
        end_started()


def crash(deployment: Deployment, side: str, *, starts_again: bool = True) -> None:
    """``kill -9`` of the postmaster, and a start as a service manager does it."""
    server = deployment.pair.local if side == "local" else deployment.pair.cloud
    deployment.close()
    data = str(server.folder / "data")
    psutil.Process(server.pid).kill()
    # A server does not start while a process of the last one uses its memory, one that it has just begun among them.
    until(
        lambda: all(process.info["cwd"] != data for process in psutil.process_iter(["cwd"])),
        "a process of the killed server stays",
    )
    if starts_again:
        server.start()


@contextmanager
def in_the_step(deployment: Deployment, half: str) -> Iterator[tuple[subprocess.Popen[str], psycopg.Connection[Any]]]:
    """An upgrade to 0002 that waits in one half of it, until the session that is given lets it go on."""
    up, down = {"local": three.LOCAL, "cloud": three.CLOUD}[half]["0002"]
    rewrite(deployment, {half: {"0002": (joined(AT_THE_GATE, up), down)}})
    with psycopg.connect(deployment.superuser_url(half), autocommit=True) as keeper:
        keeper.execute("SELECT pg_advisory_lock(%s)", [GATE])
        runner = start(deployment, "upgrade", "0002")
        until(lambda: runner.poll() is not None or waiting(deployment, half, lock="advisory"), "the step does not run")
        yield runner, keeper


@each_side
@pytest.mark.parametrize("half", ["local", "cloud"])
def test_the_exit_code_is_what_the_databases_say(own_servers: Deployment, side: str, half: str) -> None:
    """Killed in either half, on either side."""
    with in_the_step(own_servers, half) as (runner, keeper):
        crash(own_servers, side)
        if half != side:
            keeper.execute("SELECT pg_advisory_unlock_all()")
        _, said = runner.communicate()
    local, cloud = at(own_servers)
    # Without fsync a crash may lose what the hospital has committed: then both are where they were.
    assert runner.returncode in ({6, 7} if local == cloud else {4}), said
    if local == cloud:
        assert f"both databases are at {local}" in said
    status = own_servers.federation("status")
    assert status.returncode == (0 if local == cloud else 4)
    assert own_servers.federation("upgrade", "0002").returncode == 0
    assert at(own_servers) == ("0002", "0002")


def test_of_a_server_that_does_not_come_back_nothing_is_claimed(own_servers: Deployment) -> None:
    """The control: the run knows where the databases are because it waits for the server and asks it."""
    with in_the_step(own_servers, "cloud") as (runner, _):
        crash(own_servers, "cloud", starts_again=False)
        _, said = runner.communicate()
    assert runner.returncode == 6, said
    assert "could not be undone" in said
    assert "both databases are at" not in said
    own_servers.pair.cloud.start()  # its databases are dropped
