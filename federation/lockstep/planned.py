"""The steps of a run before it runs: their SQL, the locks they take, whether they can be undone, a hash of it all.

Reads only, and locks nothing but the catalogs while they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from federation.config import Config
from federation.databases import connect
from federation.errors import Side
from federation.lockstep.plan import Direction, Step, steps_down, steps_up
from federation.lockstep.release import Releases
from federation.lockstep.status import read_status
from federation.preview import lock_rules
from federation.preview.locks import Lock, Rewrite, StepLocks, strongest
from federation.preview.relations import Relations
from federation.preview.statements import statements_of_migration


@dataclass(frozen=True)
class PlannedStep:
    """A step and what its revision file says it is.

    ``statements`` are what the file itself does, without the toolkit's books, or None where that cannot be known
    before it runs (``reason``); ``unknown`` those whose locks are not all known. ``rewrites`` are the tables whose rows
    it writes anew. ``leaves``: it leaves its transaction. ``reversible``: the file has a downgrade().
    """

    step: Step
    message: str
    phase: Literal["expand", "contract"]
    reversible: bool
    file_sha256: str
    statements: tuple[str, ...] | None
    reason: str | None
    locks: tuple[Lock, ...]
    rewrites: tuple[Rewrite, ...]
    leaves: bool
    unknown: tuple[str, ...]

    @property
    def sql(self) -> str | None:
        """The statements as ``alembic --sql`` writes them."""
        if self.statements is None:
            return None
        return "\n\n".join(one if "\\" in one.rsplit("\n", 1)[-1][:1] else f"{one};" for one in self.statements)


def preview(config: Config, target: str) -> list[PlannedStep]:
    """What would bring both databases to ``target``, up or down.

    Raises what `read_status` found wrong, and PreconditionMissing where a step's SQL needs a setting that is missing.
    """
    status = read_status(config)
    if status.errors:
        raise status.errors[0]
    if status.comparison.set_back:
        raise status.comparison.set_back[0]
    releases = status.releases
    local, cloud = releases.position(status.local, "local"), releases.position(status.cloud, "cloud")
    position = releases.resolve(target, local, cloud)
    plan = steps_up if position >= max(local, cloud) else steps_down
    steps = plan(releases, local, cloud, position)
    relations: dict[Side, Relations] = {}
    for side in {step.side for step in steps}:
        with connect(config, side) as connection:
            relations[side] = Relations.read(connection)
    return [planned(config, releases, relations[step.side], step) for step in steps]


def plan_hash(planned: Sequence[PlannedStep]) -> str:
    """The sha256 of what would run: steps in their order, each with its revision file's sha256 and its SQL."""
    parts = [
        [item.step.release, item.step.side, item.step.direction.value, item.step.to, item.file_sha256, item.sql]
        for item in planned
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def planned(config: Config, releases: Releases, relations: Relations, step: Step) -> PlannedStep:
    """What ``step`` would do in a database of ``relations``, which are brought to what they are after it.

    Raises PreconditionMissing where its SQL needs a setting that is missing.
    """
    script = releases.script(step.side, step.release)
    reversible = hasattr(script.module, "downgrade")
    may_run = step.direction is Direction.UP or reversible
    statements, reason = (
        statements_of_step(config, releases, step) if may_run else (None, "its file has no downgrade()")
    )
    locks = StepLocks(relations)
    for statement in statements or ():
        lock_rules.read(locks, statement)
    return PlannedStep(
        step,
        script.doc.strip().split("\n", 1)[0],
        "contract" if releases.is_contract(step.release) else "expand",
        reversible,
        hashlib.sha256(Path(script.path).read_bytes()).hexdigest(),
        statements,
        reason,
        tuple(strongest(locks.locks)),
        tuple(Rewrite(table, relations.rows.get(table)) for table in sorted(locks.rewrites)),
        locks.leaves,
        tuple(locks.unknown),
    )


def statements_of_step(config: Config, releases: Releases, step: Step) -> tuple[tuple[str, ...] | None, str | None]:
    """The statements of the step; or why they cannot be known."""
    up = step.direction is Direction.UP
    return statements_of_migration(
        config,
        step.side,
        releases.directories[step.side],
        releases.script(step.side, step.release),
        up=up,
        before=releases.at(releases.position(step.release) - up),
    )
