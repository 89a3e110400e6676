"""One history row a step, written inside the step's own transaction on either side: the guard reads it at COMMIT."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo
from psycopg import sql
from sqlalchemy.engine import Connection, Row

from federation.databases import asking, ddl
from federation.errors import Refused
from federation.guard.storage import note
from federation.operations.run import run_of

_INSERT = sql.SQL(
    "INSERT INTO federation.history (from_release, to_release, result, started_at, finished_at, role, client, host, "
    "file_sha256, guarded, override, refusal, seen) "
    "VALUES ({source}, {target}, {result}, transaction_timestamp(), clock_timestamp(), session_user, "
    "inet_client_addr()::text, {host}, {digest}, {guarded}, {override}, {refusal}, {seen})"
)


def record(*, ctx: MigrationContext, step: MigrationInfo, heads: set[Any], run_args: dict[str, Any]) -> None:
    """Write who went from where to where, when, and the sha256 of the revision file: Alembic's ``on_version_apply``.

    Raises Refused when the releases' ids do not sort in the order of the chain, which the guard relies on.

    https://alembic.sqlalchemy.org/en/latest/api/runtime.html#alembic.runtime.environment.EnvironmentContext.configure
    """
    del heads, run_args
    source, target = (", ".join(ids) for ids in (step.source_revision_ids, step.destination_revision_ids))
    script = ctx.script.get_revision(step.up_revision_id) if ctx.script and step.up_revision_id else None
    upwards = step.is_upgrade
    if not step.is_stamp and (target > source) != upwards:
        raise Refused(
            f"the releases' ids {source or 'base'} and {target or 'base'} do not sort in the order of the chain",
            hint="number them: 0001, 0002, … (federation revision does)",
        )
    run = run_of(ctx)
    ctx.execute(
        ddl(
            _INSERT.format(
                source=sql.Literal(source or "base"),
                target=sql.Literal(target or "base"),
                result=sql.Literal(
                    "stamped" if step.is_stamp else "undone" if run.undoing else "upgraded" if upwards else "downgraded"
                ),
                host=sql.Literal(None if ctx.as_sql else socket.gethostname()),
                digest=sql.Literal(
                    hashlib.sha256(Path(script.path).read_bytes()).hexdigest() if script is not None else None
                ),
                guarded=sql.Literal(_guarded(ctx, source, target)),
                override=sql.Literal(run.override),
                seen=sql.Literal(run.seen),
                refusal=sql.Literal(run.refusal),
            )
        )
    )
    if run.side == "local":
        ctx.execute(ddl(note(run.config)))
    # The guard speaks now and not at COMMIT, where no statement_timeout would end its waiting for the hospital.
    ctx.execute(asking(sql.SQL("SET CONSTRAINTS federation.guard_version IMMEDIATE")))


def record_repair(connection: Connection, release: str | None) -> None:
    """Write that something missing was made, at ``release``."""
    connection.execute(
        ddl(
            _INSERT.format(
                source=sql.Literal(release or "base"),
                target=sql.Literal(release or "base"),
                result=sql.Literal("repaired"),
                host=sql.Literal(socket.gethostname()),
                digest=sql.Literal(None),
                guarded=sql.Literal(None),
                override=sql.Literal(None),
                refusal=sql.Literal(None),
                seen=sql.Literal(None),
            )
        )
    )


def _guarded(ctx: MigrationContext, source: str, target: str) -> str | None:
    """The release on which the guard of this side decides, or None where the step asks nothing of the other side.

    Upwards the hospital must wait for the cloud in contract releases, the cloud for the hospital in the others;
    downwards it is the other way round. A stamp may cross many: the first or last of them that matters decides.
    """
    side = run_of(ctx).side
    upwards = target > source
    lower, upper = sorted((source, target))
    assert ctx.script is not None  # noqa: S101  # federation's environments have one
    waits_for = "contract" if (side == "local") == upwards else "expand"
    deciding = [
        script.revision
        for script in ctx.script.iterate_revisions(upper or "base", lower or "base")
        if getattr(script.module, "phase", "expand") == waits_for
    ]
    if not deciding:
        return None
    return max(deciding) if upwards else min(deciding)


def history_rows(connection: Connection) -> Sequence[Row[Any]]:
    """The steps of one side, oldest first; ``seen`` is the last row of the other side's that the step came after."""
    exists = connection.exec_driver_sql("SELECT to_regclass('federation.history') IS NOT NULL").scalar_one()
    rows = (
        connection.exec_driver_sql(
            "SELECT id, seen, started_at, extract(epoch FROM finished_at - started_at)::float AS seconds, "
            "from_release, to_release, result, role, client, host, file_sha256, override, refusal "
            "FROM federation.history ORDER BY id"
        ).all()
        if exists
        else []
    )
    connection.rollback()
    return rows


def last_row(connection: Connection) -> int:
    """The number of the last step of one side; 0 before the first."""
    rows = history_rows(connection)
    return int(rows[-1].id) if rows else 0
