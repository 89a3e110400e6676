"""Ten runs started at once, two of them going down: one works, the others wait or say so."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import (
    AT_THE_GATE,
    PAST_THE_LOCK,
    at,
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

UP, DOWN = ("upgrade",), ("downgrade", "0001", "--yes")
TEN = (UP, UP, UP, DOWN, UP, UP, UP, DOWN, UP, UP)

WITHOUT_ITS_LOCK = """
import contextlib, types
import federation.lockstep.run
free = types.SimpleNamespace(lost=lambda: None, let_go_of_tables=lambda: None)
federation.lockstep.run.run_lock = lambda config, wait: contextlib.nullcontext(free)
from federation.cli import main
main()
"""


@pytest.fixture
def middle(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Both databases at the second of three releases; steps up and down of the cloud wait at the gate."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        settings(tmp_path, lock_timeout="10min")
        chain = {
            "0002": (three.CLOUD["0002"][0], joined(AT_THE_GATE, three.CLOUD["0002"][1])),
            "0003": (joined(AT_THE_GATE, three.CLOUD["0003"][0]), three.CLOUD["0003"][1]),
        }
        rewrite(deployment, {"cloud": chain})
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        yield deployment
        end_started()


def ended(runners: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    return [runner for runner in runners if runner.poll() is not None]


def close(runners: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit codes, and what was said."""
    return [(runner.returncode, said) for runner, (_, said) in ((one, one.communicate()) for one in runners)]


def at_the_gate(deployment: Deployment) -> list[str]:
    return waiting(deployment, "cloud", "%shared%", lock="advisory")


def test_one_of_ten_works_and_the_others_are_told_at_once(middle: Deployment) -> None:
    with gate(middle, "cloud"):
        runners = [start(middle, *arguments) for arguments in TEN]
        until(lambda: len(ended(runners)) == 9, "more than one run waits")
        until(lambda: len(at_the_gate(middle)) == 1 or len(ended(runners)) > 9, "the run that is left does not work")
        refused = close(ended(runners))
    worked = close([runner for runner in runners if runner.poll() is None])
    assert [code for code, _ in worked] == [0], worked
    for code, said in refused:
        assert (code, "another federation run is under way" in said) == (5, True), said
    whole = at(middle)
    assert whole in {("0003", "0003"), ("0001", "0001")}
    assert mark(middle) == whole[0]
    assert no_lock_left(middle)


def test_ten_that_wait_work_one_after_the_other(middle: Deployment) -> None:
    with gate(middle, "cloud"):
        runners = [start(middle, *arguments, "--wait") for arguments in TEN]
        lock = "LOCK TABLE federation.run%"
        until(
            lambda: (
                (len(waiting(middle, "local", lock, lock="relation")), len(at_the_gate(middle))) == (9, 1)
                or ended(runners)
            ),
            "not one works while the others wait",
        )
        assert not ended(runners)
    assert [code for code, _ in close(runners)] == [0] * 10
    whole = at(middle)
    assert whole in {("0003", "0003"), ("0001", "0001")}
    assert mark(middle) == whole[0]
    assert no_lock_left(middle)
    with middle.owner("local") as owner:
        steps = owner.execute("SELECT from_release, to_release FROM federation.history ORDER BY id").fetchall()
    ends = [before[1] == after[0] for before, after in pairwise(steps)]
    assert all(ends), "each began where the last one ended"


def test_without_the_lock_they_work_at_once(middle: Deployment) -> None:
    """The control of the tests above."""
    with gate(middle, "cloud"):
        runners = [start(middle, *UP, code=WITHOUT_ITS_LOCK) for _ in range(2)]
        until(lambda: len(at_the_gate(middle)) + len(ended(runners)) == 2, "a run does neither work nor end")
    codes = sorted(code for code, _ in close(runners))
    assert codes not in ([0, 0], [0, 5])


def test_plain_alembic_in_between_is_told_that_a_run_is_under_way(middle: Deployment) -> None:
    with gate(middle, "cloud"):
        runner = start(middle, "upgrade")
        until(lambda: at_the_gate(middle) or ended([runner]), "the run does not reach the gate")
        plain = middle.alembic("local", "downgrade", "0001")
        assert plain.returncode == 5
        assert "another federation run is under way" in plain.stderr
    assert [code for code, _ in close([runner])] == [0]
    assert at(middle) == ("0003", "0003")


def test_who_takes_no_lock_in_between_is_caught_by_the_guard(middle: Deployment) -> None:
    """It may undo the half that the cloud does not need yet, and then the cloud's half is refused."""
    with gate(middle, "cloud"):
        runner = start(middle, "upgrade")
        until(lambda: at_the_gate(middle) or ended([runner]), "the run does not reach the gate")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
        plain = subprocess.run(
            [sys.executable, "-c", PAST_THE_LOCK, "-n", "local", "downgrade", "0001"],
            cwd=middle.root,
            env=clean | middle.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert plain.returncode == 8
        assert "the cloud is at 0002 and needs release 0002 here" in plain.stderr
    ((code, said),) = close([runner])
    assert code == 8
    assert "release 0003 needs the hospital at 0003, which is at 0002" in said
    assert "both databases are at 0002" in said
    assert (at(middle), mark(middle)) == (("0002", "0002"), "0002")
    assert no_lock_left(middle)
