"""Where a run is killed, how, and what must hold afterwards."""

from __future__ import annotations

import os
import re
import signal
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from kill_chains import CHAINS
from kill_wire import Statement, Trap

from federation.databases import SIDES
from federation.lockstep import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kill_wire import Channel, Phase
    from kill_world import Found, Prepared, World

    from federation.errors import Side

Way = Literal["runner", "backend", "server", "network"]
WAYS: tuple[Way, ...] = ("runner", "backend", "server", "network")
"""SIGKILL of the runner; its backend terminated; the server stopped immediately, and restarted when the runner has
ended; the connection cut, which the runner may open again."""

Direction = Literal["upgrade", "downgrade"]
DIRECTIONS: tuple[Direction, ...] = ("upgrade", "downgrade")

EVERYWHERE: tuple[Phase, ...] = ("before", "at", "after")
ONCE: dict[Way, Phase] = {"runner": "at", "backend": "before", "server": "at", "network": "after"}
"""The moment of a statement that commits nothing. The network is cut when the answer is on its way."""


@dataclass(frozen=True)
class Point:
    """A moment of a recorded run, and what happens then."""

    kind: str
    direction: Direction
    way: Way
    number: int
    """Of the statement, in the recorded run."""
    statement: Statement
    phase: Phase
    of_step: bool = False
    """Whether the statement is the COMMIT of a release's half, or leaves the transaction."""
    remote_commit: int | None = None
    """At the cloud's COMMIT: the number of the hospital's COMMIT inside it. The moment is between the two."""

    def __str__(self) -> str:
        return f"{self.kind} {self.direction}, {self.way} {self.phase} {self.number} ({self.statement})"


def commits(statement: Statement) -> bool:
    """Whether the statement commits something: a COMMIT, or what runs outside a transaction."""
    return re.match(r"COMMIT|(CREATE|CREATE UNIQUE|DROP) INDEX CONCURRENTLY", statement.text) is not None


def points(kind: str, direction: Direction, way: Way, statements: Sequence[Statement]) -> Iterator[Point]:
    """One a statement; three where something is committed. The link's own statements have one way each."""
    steps = step_commits(statements)
    for number, statement in enumerate(statements):
        if statement.way == "link" and not turn(number, way):
            continue
        for phase in EVERYWHERE if commits(statement) else (ONCE[way],):
            remote = _remote_commit(number, statements) if phase == "at" and statement.way == "cloud" else None
            of_step = number in steps or "CONCURRENTLY" in statement.text
            yield Point(kind, direction, way, number, statement, phase, of_step, remote)


def turn(number: int, way: Way) -> bool:
    """Whether it is this way's turn: each statement has one of the four."""
    return number % len(WAYS) == WAYS.index(way)


def step_commits(statements: Sequence[Statement]) -> set[int]:
    """The numbers of the COMMITs of a release's halves: those of the transactions that write the version table."""
    found, moving = set(), {"local": False, "cloud": False, "link": False}
    for number, statement in enumerate(statements):
        if statement.text.startswith("BEGIN"):
            moving[statement.way] = False
        elif statement.text.startswith(("INSERT", "UPDATE", "DELETE")) and "alembic_version" in statement.text:
            moving[statement.way] = True
        elif statement.text.startswith("COMMIT") and moving[statement.way]:
            found.add(number)
    return found


def _remote_commit(number: int, statements: Sequence[Statement]) -> int | None:
    last = None
    for later in range(number + 1, len(statements)):
        if statements[later].way != "link":
            break
        if statements[later].text.startswith("COMMIT"):
            last = later
    return last


def arguments(kind: str, direction: Direction) -> list[str]:
    """Of the command that is killed."""
    return ["upgrade", "--yes"] if direction == "upgrade" else ["downgrade", CHAINS[kind].start, "--yes"]


def start(kind: str, direction: Direction) -> str:
    """The template that the command starts from."""
    return CHAINS[kind].start if direction == "upgrade" else kind


def recordings(world: World, kind: str) -> dict[Direction, list[Statement]]:
    """Both directions undisturbed, once a world; what they lead to is kept, as templates and to compare with."""
    if kind not in world.recorded:
        first = CHAINS[kind].start
        if first not in {"base", *world.found}:
            world.clone("base")
            assert world.federation(kind, "upgrade", first, "--yes") == 0, world.said
            world.keep(first)
        world.clone(first)
        up = _recorded(world, kind, "upgrade")
        world.keep(kind)
        world.clone(kind)
        down = _recorded(world, kind, "downgrade")
        assert world.federation(kind, "downgrade", "base", "--yes") == 0, world.said
        base = world.look()
        assert world.found.setdefault("base", base).catalogs == base.catalogs
        world.recorded[kind] = {"upgrade": up, "downgrade": down}
    return world.recorded[kind]


def _recorded(world: World, kind: str, direction: Direction) -> list[Statement]:
    """What went over the wire, which is what the servers have logged."""
    world.templates.setdefault(start(kind, direction), world.look())
    statements = world.record(kind, *arguments(kind, direction))
    for side in SIDES:
        on_wire = [str(one.text).split("\n", 1)[0] for one in statements if (one.way == "cloud") == (side == "cloud")]
        assert on_wire == world.logged_statements(side)
    return statements


def kill(world: World, point: Point, prepared: Prepared | None = None) -> int:
    """Clone, run, kill; the runner's exit code."""
    prepared = prepared or world.prepared
    world.clone(start(point.kind, point.direction))
    runner = 0

    def spring(channel: Channel) -> bool:
        victim = channel if point.remote_commit is None else world.wire.by_number[point.number]
        side: Side = "cloud" if victim.way == "cloud" else "local"
        match point.way:
            case "runner":
                os.kill(runner, signal.SIGKILL)
                if channel.way == "link":
                    return True  # the two servers go on
                if point.phase == "before":
                    world.wire.close(channel)
            case "backend":
                world.terminate(side, victim.backend)
            case "server":
                world.stop(side)
            case "network":
                world.wire.close(victim)
        # Between the two COMMITs the hospital's answer reaches the cloud, unless the cloud is what is killed.
        return point.remote_commit is not None and point.way == "network"

    number = point.number if point.remote_commit is None else point.remote_commit
    trap = Trap(number, point.phase if point.remote_commit is None else "after", spring)
    world.wire.arm(trap)
    runner = world.start(point.kind, *arguments(point.kind, point.direction), prepared=prepared)
    code = prepared.end()
    world.runner_said = world.said
    assert trap.sprung, f"the run ended before it was killed: {world.said}"
    assert world.wire.statements[point.number] == point.statement, "another statement than the recorded one"
    world.wire.arm(None)
    world.restart()
    assert code == -signal.SIGKILL if point.way == "runner" else code >= 0, world.said
    world.until(lambda: all(one.way == "link" for one in world.wire.channels), "the runner's sessions stay")
    return code


@cache
def phases(kind: str) -> dict[str, str]:
    """By release."""
    return {release: both.phase for release, both in CHAINS[kind].releases.items()}


def check_between(world: World, point: Point) -> str | None:
    """Both at one release or one step apart, in the direction allowed; what status says to type next."""
    before = world.read_releases()
    _check_invariant(point, before)
    if not world.written():
        return None  # as the recorded run found them
    asked = world.pool.submit(read_status, world.config(point.kind))
    world.until(asked.done, "status does not end")  # it asks over the link, and so over the wire
    status = asked.result()
    after = world.read_releases()
    _check_invariant(point, after)
    assert not status.errors
    if before != after:  # a COMMIT of the killed run has just ended
        return None
    local, cloud = before["local"], before["cloud"]
    assert (status.local or "", status.cloud or "") == (local, cloud)
    if local != cloud:
        assert status.next_command == f"federation upgrade {max(local, cloud)}"
    elif not status.mark_is_off:
        assert status.next_command == (None if local == CHAINS[point.kind].head else "federation upgrade")
    elif local:
        assert status.next_command == f"federation upgrade {local}"
    return status.next_command


def _check_invariant(point: Point, releases: dict[Side, str]) -> None:
    local, cloud = releases["local"], releases["cloud"]
    chain = CHAINS[point.kind]
    order = ["", *chain.releases]
    first = "" if chain.start == "base" else chain.start
    assert order.index(first) <= min(order.index(local), order.index(cloud)), f"below the start: {releases}"
    assert abs(order.index(local) - order.index(cloud)) <= 1, f"more than one step apart: {releases}"
    if local != cloud:
        ahead = max(local, cloud)
        expected = cloud if phases(point.kind)[ahead] == "contract" else local
        assert ahead == expected, f"the wrong side is ahead: {releases}"


def check_recovery(world: World, point: Point, next_command: str | None) -> None:
    """One upgrade and one downgrade to base succeed without hand work, and everything is as it was undisturbed."""
    world.until(lambda: not any(map(world.lock_left, SIDES)), "a lock of the killed run is left")
    varied = WAYS.index(point.way) + point.number
    if next_command is not None and varied % 2:
        program, *given = next_command.split()
        given += ["--yes"] if given[0] in DIRECTIONS else []
        assert (program, world.federation(point.kind, *given)) == ("federation", 0), f"{next_command}: {world.said}"
        releases = world.read_releases()
        assert releases["local"] == releases["cloud"], f"{next_command} left {releases}"
    commands = ["upgrade", "--yes"], ["downgrade", "base", "--yes"]
    codes = world.each(point.kind, *commands, interpreter=varied % 97 == 0)
    with closing(codes):
        for command, expected, code in zip(commands, (point.kind, "base"), codes, strict=True):
            assert code == 0, f"{command[0]} exits with {code}: {world.said}"
            world.until(lambda: not any(map(world.sessions_left, SIDES)), "a session or a lock is left")
            check_found(world, point, world.found[expected])


def check_found(world: World, point: Point, expected: Found) -> None:
    """Catalogs and rows as undisturbed, the mark at the cloud's release, a history row for each logged COMMIT."""
    found = world.look()
    for side in SIDES:
        odd = set(found.catalogs[side]) ^ set(expected.catalogs[side])
        assert found.catalogs[side] == expected.catalogs[side], f"{side}: the catalog differs: {sorted(odd)}"
    assert found.rows == expected.rows
    assert found.releases == expected.releases
    assert found.mark == found.releases["cloud"], f"the mark is {found.mark}, the cloud's release {found.releases}"
    check_history(world, point, found)


def check_history(world: World, point: Point, found: Found) -> None:
    """A row for each COMMIT of a step that the server's log shows, and no gap."""
    first = start(point.kind, point.direction)
    for side in SIDES:
        earlier = world.found[first].steps[side] if first != "base" else []
        logged = [*earlier, *world.logged_steps(side)]
        assert found.steps[side] == logged, f"{side}: the history is {found.steps[side]}, the log {logged}"
        ends = ["base", *(after for _, after, _ in found.steps[side])]
        assert [before for before, _, _ in found.steps[side]] == ends[:-1], f"{side}: the history has a gap"


def seen_before(world: World, point: Point) -> bool:
    """Whether the kill left databases from which a recovery has been seen: then it need not be done once more.

    The commands know nothing but the databases; nothing else of the killed run is left, which is looked at. They are
    the template, from which the recorded run went, or the same in everything as after an earlier kill.
    """
    world.until(lambda: not any(map(world.sessions_left, SIDES)), "a session or a lock is left")
    template = start(point.kind, point.direction)
    if world.written():
        found = world.look()
        check_history(world, point, found)
        if found != world.templates[template]:
            state = f"{point.kind} {found}"
            seen = state in world.recovered
            world.recovered.add(state)
            return seen
    world.pristine = template
    return True


def survive(world: World, point: Point, prepared: Prepared | None = None, *, recover: bool = True) -> int:
    """Kill and check; the killed runner's exit code. AssertionError, naming the point, unless everything holds.

    Unless it is to ``recover`` in any case, what was `seen_before` is not repeated.
    """
    try:
        code = kill(world, point, prepared)
        next_command = check_between(world, point)
        if recover or not seen_before(world, point):
            check_recovery(world, point, next_command)
            world.recoveries += 1
    except AssertionError as error:
        raise AssertionError(f"{point}: {error}") from error
    finally:
        world.wire.arm(None)
        world.restart()
    return code
