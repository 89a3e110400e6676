"""A run that has lost its lock, with the session that held it, stops: whatever it did next, another could be doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import AT_THE_GATE, RUN_LOCKS, at, end_started, gate, joined, mark, rewrite, start, until, waiting

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
