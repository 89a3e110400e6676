"""A chain, read without a database: what each of its releases makes, and what must be there after it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from alembic.operations import MigrateOperation
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory

from federation.config import Config
from federation.environments import configured
from federation.errors import FederationError, Side
from federation.operations.objects import Objects, after
from federation.operations.run import Run


@dataclass(frozen=True)
class Position:
    """A release of one chain, or base."""

    objects: Objects | None
    """What must be there; None where a release asks its database what it is to make, and it cannot be known."""
    told: tuple[MigrateOperation, ...] = ()
    """The toolkit's operations of the release."""
    own_sql: str = ""
    """What the release sends besides them, its own SQL and that of Alembic's operations."""


def read_chain(config: Config, side: Side, directory: ScriptDirectory, scripts: Sequence[Script]) -> list[Position]:
    """Base and each of ``scripts``, which are the whole chain of ``side``, oldest first.

    One pass in Alembic's offline mode, in which the toolkit's operations do nothing but tell. Of a release that asks
    its database, and of those after it, the objects are None.
    """
    told: list[MigrateOperation] = []
    written = io.StringIO()
    alembic = configured(Run(config, side, told=told))
    alembic.output_buffer = written
    found = [Position({})]

    def read(migration: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(migration)
        def noted(**arguments: Any) -> None:
            before, begun = found[-1].objects, written.tell()
            told.clear()
            try:
                migration(**arguments)
            except Exception:  # a migration may raise anything where there is no database
                before = None
            objects = None if before is None else after(before, told)
            found.append(Position(objects, tuple(told), written.getvalue()[begun:]))

        return noted

    def steps(_revision: object, _context: object) -> list[MigrationStep]:
        made = [MigrationStep.upgrade_from_script(directory.revision_map, script) for script in scripts]
        for step in made:
            step.migration_fn = read(step.migration_fn)
        return made  # type: ignore[return-value]

    try:
        with EnvironmentContext(alembic, directory, fn=steps, as_sql=True):
            directory.run_env()
    except FederationError:  # a setting is missing, the site's id for one
        found += [Position(None)] * (len(scripts) + 1 - len(found))
    return found
