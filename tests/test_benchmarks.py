"""The benchmarks run. How long anything takes is no matter for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from deployments import ALL, ROOT


def run(name: str, *options: str) -> dict[str, Any]:
    """What ``benchmarks/NAME.py`` found."""
    command = [sys.executable, f"benchmarks/{name}.py", *options, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


in_all = pytest.mark.skipif(not ALL, reason="make test-all runs it")


@in_all
def test_every_contender_of_the_lockstep_benchmark_reaches_head() -> None:
    result = run("lockstep", "--rounds", "1")
    assert [len(contender["seconds"]) for contender in result["contenders"]] == [1, 1, 1, 1, 1]
    assert result["many_releases"]["releases_a_second"] > 0
    assert {type(target["met"]) for target in result["targets"]} == {bool}


def test_a_check_sends_no_statement_for_each_table() -> None:
    result = run("drift", "--tables", "20", "--rounds", "1")
    for contender in result["contenders"]:
        if not contender["name"].startswith("plain Alembic"):
            assert contender["statements"] == contender["statements_with_a_tenth"], contender["name"]
    assert type(result["target"]["met"]) is bool


@in_all
def test_the_kits_benchmark_runs_it_beside_plain_pytest_postgresql() -> None:
    result = run("testkit", "--tests", "3", "--rounds", "1")
    for version in result["versions"]:
        assert [len(contender["set_ups"]) for contender in version["contenders"]] == [1, 1]
        assert all(contender["a_test"] > 0 for contender in version["contenders"])
    assert {type(target[name]) for target in result["targets"] for name in ("set_up_met", "a_test_met")} == {bool}


@in_all
def test_every_contender_of_the_pushdown_benchmark_answers_alike() -> None:
    result = run("pushdown", "--scale", "0.01", "--rounds", "1", "--delay", "0", "--part", "shapes")
    assert len(result["shapes"]) > 10
    for shape in result["shapes"]:
        assert [contender["contender"] for contender in shape["contenders"]][:2] == ["direct", "toolkit"]
        assert len({contender["returned"] for contender in shape["contenders"]}) == 1
        assert {type(met) for met in shape["targets"].values()} == {bool}
