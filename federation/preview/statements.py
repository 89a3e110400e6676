"""The statements of one migration, as Alembic's offline mode writes them, without the toolkit's books."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory

from federation.config import Config
from federation.environments import configured
from federation.errors import FederationError, Side
from federation.operations.locks import Locks
from federation.operations.run import Run
from federation.preview.tokens import statements_of, without_comments_before


@dataclass(frozen=True)
class Statements:
    """The statements of a migration, or why they are not known before it runs."""

    texts: tuple[str, ...] | None
    reason: str | None = None
    told: Mapping[str, Locks] = field(default_factory=dict)
    """What the toolkit's operations tell of the statements whose locks their text does not show."""


def statements_of_migration(
    config: Config, side: Side, directory: ScriptDirectory, script: Script, *, up: bool, before: str | None
) -> Statements:
    """What Alembic's offline mode writes for a migration of a database at revision ``before``; or why it cannot.

    As ``alembic upgrade --sql`` does it, but without reading the whole chain anew: ``directory`` has been read. Raises
    PreconditionMissing where the SQL needs a setting that is missing.

    https://alembic.sqlalchemy.org/en/latest/api/runtime.html#alembic.runtime.environment.EnvironmentContext
    """
    written = io.StringIO()
    run = Run(config, side)
    alembic = configured(run)
    alembic.output_buffer = written
    make = MigrationStep.upgrade_from_script if up else MigrationStep.downgrade_from_script
    migration = make(directory.revision_map, script)
    try:
        with EnvironmentContext(
            alembic, directory, fn=lambda _rev, _context: [migration], as_sql=True, starting_rev=before or "base"
        ):
            directory.run_env()
    except FederationError as error:
        error.side, error.release = error.side or side, error.release or script.revision
        raise
    except Exception as error:  # whatever a migration does that asks the database: it is said, and nothing runs
        return Statements(None, f"its SQL depends on the database ({type(error).__name__}: {error})")
    return Statements(tuple(_own(written.getvalue())), told=told_by(run))


def told_by(run: Run) -> dict[str, Locks]:
    """What operations have told, by statement; a script has several."""
    return {without_comments_before(one): locks for text, locks in run.locks for one in statements_of(text)}


_RUNNING = re.compile(r"^-- Running (?:upgrade|downgrade) .*$", re.MULTILINE)
_VERSION = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) federation\.alembic_version\b")


def _own(script: str) -> list[str]:
    """The migration's own statements: from where it begins to where its version row is written.

    Around and among them are those of the toolkit's books, which are the same for every step.
    """
    begun = _RUNNING.search(script)
    found = statements_of(script[begun.end() :] if begun else script)
    ends = [n for n, statement in enumerate(found) if _VERSION.match(statement)]
    return [
        statement
        for statement in found[: ends[-1] if ends else None]
        if "alembic_version" not in statement and "'federation.files'" not in statement
    ]
