"""Runs killed at every statement, in four ways, and what one upgrade and one downgrade make of it afterwards.

    python -m pytest tests/lockstep/test_kill_matrix.py                                a seeded sample
    KILL_MATRIX=full python -m pytest -n 2 -rP tests/lockstep/test_kill_matrix.py      all of it
    KILL_MATRIX=every …                                                                and no recovery left out

KILL_MATRIX_SEED repeats a sample. ``full`` kills at every statement in every way and looks at what is left: releases,
status, sessions, locks, catalogs, rows, history. It then recovers at each half's COMMIT, and wherever the databases
are as it has not seen them before. Elsewhere they are the same in everything as where a recovery has been seen;
``every`` recovers there once more.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from deployments import ALL
from kill_chains import CHAINS
from kill_points import (
    DIRECTIONS,
    EVERYWHERE,
    WAYS,
    Point,
    arguments,
    points,
    recordings,
    start,
    step_commits,
    survive,
    turn,
)
from kill_world import Prepared, World

from federation.servers import find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kill_points import Direction, Way

    from federation.servers import Binaries

FULL = os.environ.get("KILL_MATRIX")
SEED = os.environ.get("KILL_MATRIX_SEED") or str(random.randrange(10**6))  # noqa: S311

MANY = 10
"""Failed points after which a test gives up."""

LOST = {1, 2}
"""Exit codes of a runner that was not killed itself and does not know what happened to it."""


@pytest.fixture(scope="module")
def world(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(binaries, tmp_path_factory.mktemp("kills")) as world:
        yield world


def survive_all(world: World, chosen: list[Point], *, everywhere: bool = True) -> str:
    """Kill at each; what failed is told together. Recover ``everywhere``, or where one has to and in turns."""
    failed, codes, recoveries = [], Counter[int](), world.recoveries
    for point in chosen:
        try:
            code = survive(world, point, recover=everywhere or point.of_step)
            codes[code] += 1
            assert code not in LOST, f"{point}: the runner exits with {code}: {world.runner_said}"
        except AssertionError as error:
            failed.append(str(error))
            if len(failed) == MANY:
                break
    assert not failed, f"{len(failed)} of {len(chosen)} points failed, seed {SEED}:\n" + "\n".join(failed)
    return f"killed at {len(chosen)} points, recovered {world.recoveries - recoveries} times, exit codes {dict(codes)}"


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """Lines to be printed with the test's result (``-rP``)."""
    lines = [f"seed {SEED}"]
    yield lines
    sys.stdout.write("\n".join(lines) + "\n")


@pytest.mark.skipif(not FULL, reason="KILL_MATRIX=full runs it; a sample is run below")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", CHAINS)
def test_killed_at_any_statement_a_run_is_recovered_by_one_command(
    world: World, tell: list[str], kind: str, direction: Direction, way: Way
) -> None:
    statements = recordings(world, kind)[direction]
    chosen = list(points(kind, direction, way, statements))
    own = {number for number, statement in enumerate(statements) if statement.way != "link" or turn(number, way)}
    assert {point.number for point in chosen} == own
    for number in step_commits(statements):
        assert {point.phase for point in chosen if point.number == number} == set(EVERYWHERE)
    told = survive_all(world, chosen, everywhere=FULL == "every")
    tell.append(f"{kind} {direction} {way}: {len(statements)} statements, {told}")


@pytest.mark.skipif(bool(FULL), reason="all of it is run above")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", CHAINS)
def test_killed_at_a_commit_or_elsewhere_a_run_is_recovered_by_one_command(
    world: World, tell: list[str], binaries: Binaries, kind: str, direction: Direction
) -> None:
    """Each moment of each half's COMMIT, in one of the ways and on one of the versions; and one more statement."""
    statements = recordings(world, kind)[direction]
    chance = random.Random(f"{SEED} {kind} {direction}")  # noqa: S311
    at_commits, versions = [], find_binaries() if ALL else [binaries]
    for number in sorted(step_commits(statements)):
        for phase in EVERYWHERE:
            version, way = chance.choice(versions), chance.choice(WAYS)
            if version == binaries:
                all_of_way = points(kind, direction, way, statements)
                at_commits += [point for point in all_of_way if (point.number, point.phase) == (number, phase)]
    elsewhere = chance.choice(list(points(kind, direction, chance.choice(WAYS), statements)))
    tell.append(survive_all(world, [*at_commits, elsewhere]))


def test_a_process_that_has_run_commands_sends_the_statements_of_one_that_has_not(world: World) -> None:
    """The forks of the first are the matrix's runners."""
    fresh = Prepared(world.wire)
    try:
        for direction, statements in recordings(world, "contract").items():
            world.clone(start("contract", direction))
            assert world.record("contract", *arguments("contract", direction), prepared=fresh) == statements
    finally:
        fresh.close()


@pytest.mark.parametrize("kind", CHAINS)
def test_each_half_of_a_release_has_at_least_five_statements(world: World, kind: str) -> None:
    for direction, statements in recordings(world, kind).items():
        halves = step_commits(statements)
        assert len(halves) == 2 * (len(CHAINS[kind].releases) - (CHAINS[kind].start != "base"))
        for number in halves:
            way = statements[number].way
            own = [one.text for one in statements[:number] if one.way == way]
            begun = max(n for n, text in enumerate(own) if text.startswith("BEGIN"))
            written = [text for text in own[begun + 1 :] if not text.startswith("SELECT")]
            assert len(written) - len(("version", "history")) >= 5, (direction, written)


# What a broken toolkit would be: each must be found out.

WRONG_SIDE_FIRST = """
import federation.environments.runtime as runtime
from federation.lockstep.release import Releases
right = Releases.order
Releases.order = lambda self, release: right(self, release)[::-1]
runtime._override = lambda: "the guard would refuse"
"""
VERSION_ROW_APART = """
import federation.environments.runtime as runtime
right = runtime._prepared
def prepared(*arguments):
    def generate(heads, context):
        for step in right(*arguments)(heads, context):
            def torn(migration=step.migration_fn, **given):
                migration(**given)
                if not context.as_sql:
                    context.connection.exec_driver_sql("COMMIT")
                    context.connection.exec_driver_sql("BEGIN")
            step.migration_fn = torn
            yield step
    return generate
runtime._prepared = prepared
"""
MARK_LEFT = """
from federation import guard
guard.settle = lambda *_, **__: None
"""


def found_out(world: World, kind: str, direction: Direction, preamble: str, text: str) -> str:
    """What the matrix says of a runner that ``preamble`` breaks, killed where ``text`` begins for the last time."""
    recordings(world, kind)
    broken = Prepared(world.wire, preamble)
    try:
        world.clone(start(kind, direction))
        statements = world.record(kind, *arguments(kind, direction), prepared=broken)
        number = max(n for n, one in enumerate(statements) if one.text.startswith(text))
        point = Point(kind, direction, "runner", number, statements[number], "before")
        with pytest.raises(AssertionError) as raised:
            survive(world, point, broken)
    finally:
        broken.close()
    return str(raised.value)


def test_a_runner_that_takes_the_wrong_side_first_is_found_out(world: World) -> None:
    assert "the wrong side is ahead" in found_out(
        world, "contract", "upgrade", WRONG_SIDE_FIRST, "INSERT INTO federation.history"
    )


def test_a_version_row_that_is_committed_apart_from_its_statements_is_found_out(world: World) -> None:
    assert "exists" in found_out(world, "concurrent", "upgrade", VERSION_ROW_APART, "INSERT INTO federation.history")


def test_a_recovery_that_leaves_the_mark_is_found_out(world: World) -> None:
    statements = recordings(world, "expand")["downgrade"]
    cloud = min(step_commits(statements))
    (point,) = (
        point
        for point in points("expand", "downgrade", "runner", statements)
        if (point.number, point.phase) == (cloud, "after")
    )
    right, world.prepared = world.prepared, Prepared(world.wire, MARK_LEFT)
    try:
        with pytest.raises(AssertionError, match=r"the mark is|exits with"):
            survive(world, point, right)
    finally:
        world.prepared.close()
        world.prepared = right
