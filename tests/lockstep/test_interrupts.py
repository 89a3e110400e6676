"""Ctrl-C and SIGTERM finish or undo the release that is under way, and say which."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import (
    AT_THE_GATE,
    add_note,
    at,
    catalogs,
    end_started,
    gate,
    joined,
    mark,
    no_lock_left,
    rewrite,
    settings,
    start,
    until,
    waiting,
)

from federation.lockstep import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


@pytest.fixture
def patient(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the first; a run waits for locks without end."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        settings(tmp_path, lock_timeout="10min")
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0001")
        add_note(deployment)
        yield deployment
        end_started()


def gated(deployment: Deployment, side: str) -> None:
    """0002's step waits at the gate of ``side``, before it does anything."""
    up, down = {"local": three.LOCAL, "cloud": three.CLOUD}[side]["0002"]
    rewrite(deployment, {side: {"0002": (joined(AT_THE_GATE, up), joined(AT_THE_GATE, down))}})


def at_the_gate(deployment: Deployment, side: str) -> bool:
    return bool(waiting(deployment, side, lock="advisory"))


def expect(deployment: Deployment, whole: str) -> None:
    assert at(deployment) == (whole, whole)
    assert mark(deployment) == whole
    assert no_lock_left(deployment)


@SIGNALS
@pytest.mark.parametrize("side", ["local", "cloud"])
def test_in_the_middle_of_a_half_the_release_is_undone(patient: Deployment, side: str, number: signal.Signals) -> None:
    gated(patient, side)
    before = catalogs(patient)
    with gate(patient, side):
        runner = start(patient, "upgrade", "0002")
        until(lambda: at_the_gate(patient, side) or runner.poll() is not None, "the run does not reach the gate")
        runner.send_signal(number)
        _, said = runner.communicate()  # the gate is still closed
    assert runner.returncode == 130, said
    assert f"{side}: 0002: interrupted; the upgrade of 0002 is undone; both databases are at 0001" in said
    expect(patient, "0001")
    assert catalogs(patient) == before


@SIGNALS
@pytest.mark.parametrize("side", ["local", "cloud"])
def test_on_the_way_down_too(patient: Deployment, side: str, number: signal.Signals) -> None:
    upgrade(patient.config, "0002")
    gated(patient, side)
    before = catalogs(patient)
    with gate(patient, side):
        runner = start(patient, "downgrade", "base", "--yes", "--json")
        until(lambda: at_the_gate(patient, side) or runner.poll() is not None, "the run does not reach the gate")
        runner.send_signal(number)
        out, said = runner.communicate()
    assert runner.returncode == 130, said
    error = json.loads(out)
    assert error["error"] == "Interrupted"
    assert error["message"] == "interrupted; the downgrade of 0002 is undone; both databases are at 0002"
    expect(patient, "0002")
    assert catalogs(patient) == before


@SIGNALS
def test_a_release_that_is_whole_is_left_finished(patient: Deployment, number: signal.Signals) -> None:
    """The verification waits for a table that somebody has locked since."""
    gated(patient, "cloud")
    with patient.superuser("local") as dba:
        with gate(patient, "cloud"):
            runner = start(patient, "upgrade")
            until(lambda: at_the_gate(patient, "cloud") or runner.poll() is not None, "the run does not reach the gate")
            dba.autocommit = False
            dba.execute("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
        until(lambda: waiting(patient, "local") or runner.poll() is not None, "the verification does not wait")
        runner.send_signal(number)
        _, said = runner.communicate()
        dba.rollback()
    assert runner.returncode == 130, said
    assert "the upgrade of 0002 is finished, and not verified; both databases are at 0002" in said
    expect(patient, "0002")


@SIGNALS
def test_a_second_one_does_not_stop_the_undoing(patient: Deployment, number: signal.Signals) -> None:
    gated(patient, "cloud")
    before = catalogs(patient)
    with patient.superuser("local") as app:
        with gate(patient, "cloud"):
            runner = start(patient, "upgrade", "0002")
            until(lambda: at_the_gate(patient, "cloud") or runner.poll() is not None, "the run does not reach the gate")
            app.autocommit = False
            app.execute("SELECT FROM note")
            runner.send_signal(number)
            until(lambda: waiting(patient, "local") or runner.poll() is not None, "the undoing does not wait")
            for again in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                runner.send_signal(again)
            assert waiting(patient, "local")
            assert runner.poll() is None
        app.rollback()
        _, said = runner.communicate()
    assert runner.returncode == 130, said
    assert "interrupted; the upgrade of 0002 is undone; both databases are at 0001" in said
    expect(patient, "0001")
    assert catalogs(patient) == before


def test_a_run_that_waits_for_another_one_has_nothing_to_undo(patient: Deployment) -> None:
    gated(patient, "cloud")
    with gate(patient, "cloud"):
        first = start(patient, "upgrade", "0002")
        until(lambda: at_the_gate(patient, "cloud") or first.poll() is not None, "the run does not reach the gate")
        second = start(patient, "upgrade", "--wait")
        until(
            lambda: (
                waiting(patient, "local", "LOCK TABLE federation.run%", lock="relation") or second.poll() is not None
            ),
            "the second does not wait",
        )
        second.send_signal(signal.SIGINT)
        _, said = second.communicate()
        assert (second.returncode, "interrupted" in said) == (130, True), said
    first.communicate()
    assert first.returncode == 0
    expect(patient, "0002")


def test_with_on_failure_stop_the_half_is_left_and_named(patient: Deployment) -> None:
    gated(patient, "cloud")
    with gate(patient, "cloud"):
        runner = start(patient, "upgrade", "0002", "--on-failure=stop")
        until(lambda: at_the_gate(patient, "cloud") or runner.poll() is not None, "the run does not reach the gate")
        runner.send_signal(signal.SIGINT)
        _, said = runner.communicate()
    assert runner.returncode == 4, said
    assert "interrupted; local is at 0002, cloud at 0001" in said
    assert "federation upgrade 0002" in said
    assert patient.federation("upgrade", "0002").returncode == 0
    expect(patient, "0002")
