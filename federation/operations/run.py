"""What an environment is run for: one object under the option ``federation`` of Alembic's migration context.

Who starts the environment says what it wants; the environment completes it; operations, guard and comparators read it
and note in it what others have to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import MetaData
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.errors import PreconditionMissing, Side
from federation.operations.locks import Locks

if TYPE_CHECKING:
    from alembic.operations import MigrateOperation
    from alembic.runtime.migration import MigrationContext

OPTION = "federation"
"""The option of the migration context, and the attribute of Alembic's configuration."""


@dataclass
class Run:
    """One run of the environment of ``side``."""

    config: Config
    side: Side

    # What the caller wants. Plain Alembic has the defaults.
    connection: Connection | None = None
    """The runner's session, whose mark the runner sets itself; without one the environment opens its own."""
    first: Callable[[MigrationContext], None] | None = None
    """Takes the locks of the step, at the beginning of its transaction."""
    kept_out: Callable[[], None] | None = None
    """Raises unless the app is still kept out of the link, where the runner has done so."""
    seen: int | None = None
    """The last row of the other side's history that the step comes after."""
    undoing: bool = False
    """Whether the step undoes what the same run has done."""
    ask_hospital: bool = True
    """Whether the comparators compare with the hospital; a release that is being written is not there yet."""
    told: list[MigrateOperation] | None = None
    """Where operations add themselves while the chain is only read; otherwise None, and they do their work."""

    # What the environment knows.
    metadata: MetaData = field(default_factory=MetaData)
    """The declared local tables."""
    override: str | None = None
    """The reason of ``-x override=REASON``."""

    # What is noted on the way.
    trial: bool | None = None
    """True while the step is tried in a savepoint, False once it was, None where it is not tried."""
    refusal: str | None = None
    """What was refused and overridden."""
    sets_aside: bool = False
    """Whether an index was set aside, to be dropped after the COMMIT."""
    locks: list[tuple[str, Locks]] = field(default_factory=list)
    """The statements of ``--sql`` that are more than one SQL command, and what they lock."""
    survey: object | None = None
    """What autogenerate's comparators have read: a `federation.drift.survey.Survey`."""
    created_types: frozenset[tuple[str | None, str]] = frozenset()
    """The enums and domains that autogenerate creates by ``op.create_type``."""


def run_of(context: MigrationContext) -> Run:
    """The run. Raises PreconditionMissing outside the toolkit's environments."""
    run = found(context)
    if run is None:
        raise PreconditionMissing(
            "this migration runs outside federation's environments",
            hint="let env.py call federation.environments.runtime.run()",
        )
    return run


def found(context: MigrationContext) -> Run | None:
    """The run, or None in an environment that is not the toolkit's."""
    run = context.opts.get(OPTION)
    return run if isinstance(run, Run) else None
