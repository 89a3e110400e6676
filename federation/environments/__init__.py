"""The two Alembic environments, ``local`` and ``cloud``: each an env.py of a few lines over one runtime."""

from __future__ import annotations

import io
import sys

from alembic.config import Config as AlembicConfig
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory

from federation.config import Config
from federation.errors import PreconditionMissing, Side
from federation.operations.run import OPTION, Run


def alembic_config(config: Config, side: Side) -> AlembicConfig:
    """Alembic's configuration of ``side``: its section of the alembic.ini beside federation.toml."""
    return configured(Run(config, side))


def configured(run: Run) -> AlembicConfig:
    """Alembic's configuration of the run's side, which hands ``run`` to the environment."""
    ini = run.config.root / "alembic.ini"
    if not ini.exists():
        raise PreconditionMissing(
            f"there is no {ini}",
            hint="run the command in the folder of alembic.ini, or name its federation.toml with --config",
        )
    # What Alembic prints for its own command line is of no use to ours.
    made = AlembicConfig(ini, ini_section=run.side, attributes={OPTION: run}, stdout=io.StringIO())
    made.messaging_opts = {"quiet": True}  # a property that is computed unless it is set; it prints past ``stdout``
    # Alembic puts these in front whenever it reads a chain: a process that does so often would have thousands.
    first = made.get_prepend_sys_paths_list() or []
    sys.path[:] = [*first, *(path for path in sys.path if path not in first)]
    return made


def run_step(run: Run, directory: ScriptDirectory, script: Script, *, up: bool) -> None:
    """Run one migration of the run's side in its environment, and no other.

    As ``alembic upgrade`` does it, but for reading the whole chain anew each time: ``directory`` has been read. Fails
    when the database is not at the revision before (after, on the way down).

    https://alembic.sqlalchemy.org/en/latest/api/runtime.html#alembic.runtime.environment.EnvironmentContext
    """
    make = MigrationStep.upgrade_from_script if up else MigrationStep.downgrade_from_script
    step = make(directory.revision_map, script)
    with EnvironmentContext(configured(run), directory, fn=lambda _rev, _context: [step]):
        directory.run_env()
