"""Whether one of the two databases was set back: restored to an earlier point, or replaced by another one.

Each command that writes draws a nonce and writes it to both databases, by direct sessions and in this order: at the
hospital, unconfirmed; in the cloud; at the hospital, confirmed. So a command that was killed on the way leaves a pair
of rows that no restore leaves. What each server says of itself is kept beside the nonce. It tells of a restore since
the last command, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation.databases import asked
from federation.errors import SetBack, Side

Figures: TypeAlias = Mapping[str, Any]
"""What a server says of itself and of the database; what the owner may not read is missing."""

_LOOKS = 3
"""Another command may write between two reads: a difference counts when two reads in a row are the same."""


@dataclass(frozen=True)
class Comparison:
    """The databases that were ``set_back``, and whether the two could be ``compared`` at all."""

    set_back: tuple[SetBack, ...] = ()
    compared: bool = True


@dataclass(frozen=True)
class _Row:
    """The row of one database; see the comments on federation.pair."""

    number: int
    nonce: UUID
    previous: UUID | None
    confirmed: bool
    written_at: datetime
    local_seen: Figures
    cloud_seen: Figures


_Rows: TypeAlias = dict[Side, _Row | None]

_READ = "SELECT number, nonce, previous, confirmed, written_at, local_seen, cloud_seen FROM federation.pair"

_WRITE = sa.text(
    """
    INSERT INTO federation.pair AS p
        (number, nonce, previous, confirmed, written_at, local_seen, cloud_seen)
    VALUES (:number, :nonce, :previous, :confirmed, coalesce(CAST(:written_at AS timestamptz), clock_timestamp()),
        CAST(:local_seen AS jsonb), CAST(:cloud_seen AS jsonb))
    ON CONFLICT (one) DO UPDATE SET number = excluded.number, nonce = excluded.nonce, previous = excluded.previous,
        confirmed = excluded.confirmed, written_at = excluded.written_at, local_seen = excluded.local_seen,
        cloud_seen = excluded.cloud_seen
    RETURNING written_at
    """
)

# The timeline of the log's name is the one that the server writes on now; the control file has that of the last
# checkpoint. The log's position would tell nothing that the nonce does not: it is lower only before the nonce.
_FIGURES = """
    SELECT json_build_object(
        'system', (SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() AS s),
        'database', (SELECT d.oid::bigint FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()),
        'timeline', left(pg_walfile_name(pg_current_wal_lsn()), 8))
"""
_MAY_READ = """
    SELECT bool_and(has_function_privilege(f, 'EXECUTE')) FROM unnest(
        ARRAY['pg_control_system()', 'pg_walfile_name(pg_lsn)', 'pg_current_wal_lsn()']) AS f
"""
_DATABASE = (
    "SELECT json_build_object('database', d.oid::bigint) FROM pg_database AS d WHERE datname = current_database()"
)


def compare(local: Connection, cloud: Connection) -> Comparison:
    """Compare the two databases with each other and with what each was when a command last wrote. Reads only.

    A standby is behind by design, and is not compared.
    """
    sessions: dict[Side, Connection] = {"local": local, "cloud": cloud}
    found: Comparison | None = None
    for _ in range(_LOOKS):
        before, found = found, _compared(sessions)
        if not found.set_back or (
            before is not None and list(map(str, before.set_back)) == list(map(str, found.set_back))
        ):
            return found
    return Comparison(compared=False)  # commands write all the while, so they find the databases in order


def require_whole(local: Connection, cloud: Connection) -> None:
    """Raise SetBack when one of the databases was set back. Reads only."""
    for error in compare(local, cloud).set_back:
        raise error


def renew(local: Connection, cloud: Connection) -> None:
    """Write a new nonce, and what the servers say of themselves; from then on this is how the databases are.

    Who has not compared them before hides that one was set back. Where a database has no books, because it was set
    back to before its first release, there is nothing to compare with from then on.
    """
    sessions: dict[Side, Connection] = {"local": local, "cloud": cloud}
    missing = [side for side, session in sessions.items() if not _has_table(session, side)]
    if missing:
        for side, session in sessions.items():
            if side not in missing:
                with asked(session, side):
                    session.exec_driver_sql("DELETE FROM federation.pair")
                    session.commit()
        return
    seen = {side: json.dumps(_figures(session, side) or {}) for side, session in sessions.items()}
    with asked(cloud, "cloud"):
        # Two commands at once write one after the other; readers do not wait.
        cloud.exec_driver_sql("LOCK TABLE federation.pair IN SHARE ROW EXCLUSIVE MODE")
        before = {side: _row(session) for side, session in sessions.items()}
        there = before["cloud"]
        values = {
            "number": 1 + max(row.number if row else 0 for row in before.values()),
            "nonce": uuid4(),
            # Not the hospital's own: a command that was killed may have left one there that the cloud never had.
            "previous": there.nonce if there else None,
            "written_at": None,
            **{f"{side}_seen": figures for side, figures in seen.items()},
        }
        with asked(local, "local"):
            values["written_at"] = local.execute(_WRITE, values | {"confirmed": False}).scalar_one()
            local.commit()
        cloud.execute(_WRITE, values | {"confirmed": True})
        cloud.commit()
    with asked(local, "local"):
        local.execute(sa.text("UPDATE federation.pair SET confirmed = true WHERE nonce = :nonce"), values)
        local.commit()


def part(local: Connection) -> None:
    """Let the cloud's row go missing without a report: the books are removed, the cloud's first."""
    if _has_table(local, "local"):
        with asked(local, "local"):
            local.exec_driver_sql("UPDATE federation.pair SET confirmed = false, previous = NULL")
            local.commit()


def _compared(sessions: dict[Side, Connection]) -> Comparison:
    rows: _Rows = {}
    for side, session in sessions.items():
        rows[side] = None
        if _has_table(session, side):
            with asked(session, side):
                rows[side] = _row(session)
    there = [row for row in rows.values() if row is not None]
    if not there:
        return Comparison()
    figures = {side: _figures(session, side) for side, session in sessions.items()}
    if None in figures.values():
        return Comparison(compared=False)
    older = _older(rows["local"], rows["cloud"])
    newest = max(there, key=lambda row: row.number)
    seen: dict[Side, Figures] = {"local": newest.local_seen, "cloud": newest.cloud_seen}
    found: dict[Side, tuple[str, datetime | None]] = {}
    for side, row in rows.items():
        if side in older:
            found[side] = _by_nonce(row, newest), row.written_at if row else None
            continue
        now = figures[side]
        assert now is not None  # noqa: S101  # a standby is not compared
        changed = next(_changed(seen[side], now), None)
        if changed is not None:
            found[side] = f"{changed}; what was written after {_time(newest.written_at)} may be lost", newest.written_at
    accept = " ".join(f"--accept {side}" for side in found)
    hint = f"see docs/recover.md; `federation repair {accept}` takes it as it is now"
    return Comparison(
        tuple(
            SetBack(message, side=side, since=since.isoformat() if since else None, hint=hint)
            for side, (message, since) in found.items()
        )
    )


def _older(local: _Row | None, cloud: _Row | None) -> set[Side]:
    """The sides that were set back, by the nonces alone."""
    if cloud is None:
        begun = local is not None and not local.confirmed and local.previous is None
        return set() if begun else {"cloud"}
    if local is None:
        return {"local"}
    if local.nonce == cloud.nonce or (not local.confirmed and local.previous == cloud.nonce):
        return set()
    if local.number == cloud.number:  # each has been at work with another database since
        return {"local", "cloud"}
    return {"local"} if local.number < cloud.number else {"cloud"}


def _by_nonce(row: _Row | None, newest: _Row) -> str:
    last = f"the last command that wrote was at {_time(newest.written_at)}"
    if row is None:
        return f"the database was set back: it knows of no command, and {last}"
    if row.number == newest.number:
        return f"the databases are not each other's: each has been used with another one up to {_time(row.written_at)}"
    return (
        f"the database was set back: the last command that it knows of was at {_time(row.written_at)}, and {last}; "
        "what was written in between may be lost"
    )


def _changed(seen: Figures, now: Figures) -> Iterator[str]:
    """What tells that this is not the database that was seen, or that it was set back since."""
    differs = {key for key in seen.keys() & now.keys() if seen[key] != now[key]}
    if "system" in differs:
        yield "the database is on another server: restored, copied or upgraded"
    if "database" in differs:
        yield "the database is another one of the server: restored or copied"
    if "timeline" in differs:
        yield (
            f"the server is on timeline {int(now['timeline'], 16)} and was on {int(seen['timeline'], 16)}: restored to "
            "a point in time, or a standby that was promoted"
        )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %z}"


def _has_table(session: Connection, side: Side) -> bool:
    with asked(session, side):
        return bool(session.exec_driver_sql("SELECT to_regclass('federation.pair') IS NOT NULL").scalar_one())


def _row(session: Connection) -> _Row | None:
    found = session.exec_driver_sql(_READ).one_or_none()
    return None if found is None else _Row(*found)


def _figures(session: Connection, side: Side) -> Figures | None:
    """None for a standby."""
    with asked(session, side):
        if session.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
            return None
        may_read = session.exec_driver_sql(_MAY_READ).scalar_one()
        found: Figures = session.exec_driver_sql(_FIGURES if may_read else _DATABASE).scalar_one()
        return found
