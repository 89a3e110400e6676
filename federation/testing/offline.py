"""``alembic … --sql``, run by psql as a DBA does."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from alembic import command

from federation.environments import alembic_config
from federation.errors import FederationError, PreconditionMissing, Side
from federation.servers import Server
from federation.testing.databases import Databases
from federation.testing.pair import FederationPair


def find_psql(databases: Databases) -> Path | None:
    """The server's own, else the machine's."""
    local = databases.servers.local
    if isinstance(local, Server):
        with suppress(PreconditionMissing):
            return local.binaries.program("psql")
    found = shutil.which("psql")
    return Path(found) if found else None


def upgrade(pair: FederationPair, side: Side, before: str, release: str, psql: Path) -> str | None:
    """Take ``side`` from ``before`` to ``release`` by a script; what went wrong, if anything did."""
    config = pair.config
    script = io.StringIO()
    alembic = alembic_config(config, side)
    alembic.output_buffer = script
    try:
        command.upgrade(alembic, f"{before}:{release}" if before != "base" else release, sql=True)
    except FederationError as error:
        return f"no SQL could be written ({error})"
    except Exception as error:  # a release's own code may raise anything
        return f"no SQL could be written ({type(error).__name__}: {error}) — let the file ask the database nothing"
    url = config.url(side)
    done = subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"],
        input=script.getvalue(),
        env={name: value for name, value in os.environ.items() if not name.startswith(("FEDERATION_", "PG"))}
        | pair.environ
        | {
            "PGHOST": str(url.host),
            "PGPORT": str(url.port),
            "PGUSER": str(url.username),
            "PGPASSWORD": str(url.password),
            "PGDATABASE": str(url.database),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr.strip())
        return f"psql stops at the SQL of --sql ({first.removeprefix('psql:<stdin>:')})"
    return None
