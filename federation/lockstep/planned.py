"""The steps of a run before it runs: their SQL, the locks they take, whether they can be undone, a hash of it all.

Reads only, and locks nothing but the catalogs while they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import connect
from federation.errors import Side
from federation.lockstep.losses import Loss, losses
from federation.lockstep.plan import Direction, Step, steps_down, steps_up
from federation.lockstep.release import Releases
from federation.lockstep.status import read_status
from federation.preview import lock_rules
from federation.preview.changes import Change, StepChanges, Stored
from federation.preview.locks import Lock, Rewrite, StepLocks, strongest
from federation.preview.relations import Relations
from federation.preview.statements import Statements, statements_of_migration


@dataclass(frozen=True)
class PlannedStep:
    """A step and what its revision file says it is.

    ``statements`` are what the file itself does, without the toolkit's books, or None where that cannot be known
    before it runs (``reason``); ``unknown`` those whose locks are not all known. ``rewrites`` are the tables whose rows
    it writes anew. ``leaves``: it leaves its transaction. ``reversible``: the file has a downgrade(). ``changes`` are
    the objects that it makes, changes and drops, ``emptied`` the tables and columns among them that may hold values;
    ``drops`` are those that do. ``breaks_older_clouds`` is the file's reason, if it gives one.
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
    changes: tuple[Change, ...]
    emptied: tuple[Stored, ...]
    breaks_older_clouds: str | None
    drops: tuple[Loss, ...] = ()

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
    with ExitStack() as stack:
        sessions = {side: stack.enter_context(connect(config, side)) for side in {step.side for step in steps}}
        return plan_of(config, releases, sessions, steps)


def plan_of(
    config: Config, releases: Releases, sessions: Mapping[Side, Connection], steps: Sequence[Step]
) -> list[PlannedStep]:
    """Look at ``steps`` in the databases of ``sessions``. Reads only; waits for no lock."""
    relations = {side: Relations.read(sessions[side]) for side in {step.side for step in steps}}
    found = [planned(config, releases, relations[step.side], step) for step in steps]
    return [replace(item, drops=losses(sessions[item.step.side], item.emptied)) for item in found]


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
    statements = (
        statements_of_step(config, releases, step) if may_run else Statements(None, "its file has no downgrade()")
    )
    locks, changes = StepLocks(relations, statements.told), StepChanges(relations, statements.told)
    for statement in statements.texts or ():
        changes.read(statement)
        lock_rules.read(locks, statement)
    return PlannedStep(
        step,
        script.doc.strip().split("\n", 1)[0],
        "contract" if releases.is_contract(step.release) else "expand",
        reversible,
        hashlib.sha256(Path(script.path).read_bytes()).hexdigest(),
        statements.texts,
        statements.reason,
        tuple(strongest(locks.locks)),
        tuple(Rewrite(table, relations.rows.get(table)) for table in sorted(locks.rewrites)),
        locks.leaves,
        tuple(locks.unknown),
        tuple(changes.found),
        tuple(changes.emptied),
        getattr(script.module, "breaks_older_clouds", None),
    )


def statements_of_step(config: Config, releases: Releases, step: Step) -> Statements:
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
