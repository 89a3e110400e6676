"""A chain, read without a database: what must be there at each of its releases."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from alembic.operations import MigrateOperation
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory

from federation.config import Config
from federation.environments import alembic_config
from federation.errors import FederationError, Side
from federation.operations.objects import Objects, after
from federation.operations.told import TOLD


def objects_by_position(
    config: Config, side: Side, directory: ScriptDirectory, scripts: Sequence[Script]
) -> list[Objects | None]:
    """What must be there at base and after each of ``scripts``, which are the whole chain of ``side``, oldest first.

    One pass in Alembic's offline mode, in which the toolkit's operations do nothing but tell. None from the first
    release on that asks its database something: what it makes is not known.
    """
    told: list[MigrateOperation] = []
    alembic = alembic_config(config, side, **{TOLD: told})
    alembic.output_buffer = io.StringIO()
    found: list[Objects | None] = [{}]

    def read(migration: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(migration)
        def noted(**arguments: Any) -> None:
            before = found[-1]
            told.clear()
            try:
                migration(**arguments)
            except Exception:  # a migration may raise anything where there is no database
                before = None
            found.append(None if before is None else after(before, told))

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
        found += [None] * (len(scripts) + 1 - len(found))
    return found
