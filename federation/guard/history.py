"""One history row a step, written inside the step's own transaction on either side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo
from psycopg import sql
from sqlalchemy.engine import Connection, Row

from federation.databases import ddl

_INSERT = sql.SQL(
    "INSERT INTO federation.history (from_release, to_release, started_at, finished_at, role, client, file_sha256) "
    "VALUES ({source}, {target}, transaction_timestamp(), clock_timestamp(), session_user, "
    "inet_client_addr()::text, {digest})"
)


def record(*, ctx: MigrationContext, step: MigrationInfo, heads: set[Any], run_args: dict[str, Any]) -> None:
    """Write who went from where to where, when, and the sha256 of the revision file: Alembic's ``on_version_apply``.

    https://alembic.sqlalchemy.org/en/latest/api/runtime.html#alembic.runtime.environment.EnvironmentContext.configure
    """
    del heads, run_args
    script = ctx.script.get_revision(step.up_revision_id) if ctx.script and step.up_revision_id else None
    digest = hashlib.sha256(Path(script.path).read_bytes()).hexdigest() if script is not None else None
    statement = _INSERT.format(
        source=sql.Literal(", ".join(step.source_revision_ids) or "base"),
        target=sql.Literal(", ".join(step.destination_revision_ids) or "base"),
        digest=sql.Literal(digest),
    )
    ctx.execute(ddl(statement))


def history_rows(connection: Connection) -> Sequence[Row[Any]]:
    """(started_at, seconds, from, to, role, client, file's sha256) of each step, oldest first."""
    exists = connection.exec_driver_sql("SELECT to_regclass('federation.history') IS NOT NULL").scalar_one()
    rows = (
        connection.exec_driver_sql(
            "SELECT started_at, extract(epoch FROM finished_at - started_at)::float, from_release, to_release, "
            "role, client, file_sha256 FROM federation.history ORDER BY id"
        ).all()
        if exists
        else []
    )
    connection.rollback()
    return rows
