"""Who holds a lock that is waited for: process, role, application, since when, and the first words of its statement.

The words end before the first literal, so no value is told. Without pg_read_all_stats the server shows process, role
and application alone.

https://www.postgresql.org/docs/current/functions-info.html (``pg_blocking_pids``)
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases.sessions import DATABASE_ERRORS, SIDES, connect, session_of
from federation.errors import FederationError, LockHeld, Side, from_database

INTERVAL = 0.05
"""Seconds before the first look at who is waited for, and between two; far below any ``lock_timeout`` of use."""

_WORDS = re.compile(r"(?:[^\W\d]\w*|[.,*()\s])*")


@dataclass(frozen=True)
class Holder:
    """A session that holds a lock. ``since``: the start of its transaction, or else of the session."""

    pid: int
    role: str | None
    application: str | None
    client: str | None
    since: datetime | None
    statement: str | None

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction (pg_prepared_xacts)"
        parts = [f"role {self.role}" if self.role else "a process of the server's"]
        if self.application:
            parts.append(f"application {self.application}")
        if self.client:
            parts.append(f"from {self.client}")
        if self.since:
            parts.append(f"since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
        if words := first_words(self.statement or ""):
            parts.append(f"statement {words} …")
        return f"pid {self.pid} ({', '.join(parts)})"


def first_words(statement: str) -> str:
    """The keywords and names that ``statement`` begins with, up to eight of them and never a literal."""
    found = _WORDS.match(statement.lstrip())
    words = found[0].split() if found else []
    return " ".join(words[: 2 if words and words[0].lower() == "set" else 8])


_HOLDERS = sa.text(
    """
    SELECT p.pid, a.usename, a.application_name, host(a.client_addr), coalesce(a.xact_start, a.backend_start), a.query
    FROM unnest(CAST(:pids AS int[])) AS p (pid) LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = p.pid
    ORDER BY 5 NULLS LAST, 1
    """
)


def holders(connection: Connection, pids: Sequence[int]) -> list[Holder]:
    """Describe the sessions ``pids`` of the connection's server, the oldest first."""
    return [Holder(*row) for row in connection.execute(_HOLDERS, {"pids": list(pids)})]


def to_end(found: Sequence[Holder]) -> str:
    """What ends ``found``, for a hint."""
    pids = [holder.pid for holder in found if holder.pid]
    return "or end it: " + "; ".join(f"SELECT pg_terminate_backend({pid})" for pid in pids) if pids else ""


@contextmanager
def naming_holders(config: Config, sessions: Mapping[Side, Connection]) -> Iterator[None]:
    """A LockHeld that is raised in the block says who holds the lock that one of ``sessions`` waits for.

    A session of its own on each side looks while the block runs: afterwards nobody waits any more, and the server no
    longer tells. What the database raises becomes an error of the toolkit's.
    """
    watcher = _Watcher(config, {side: session_of(connection).server_pid for side, connection in sessions.items()})
    watcher.start()
    try:
        yield
    except LockHeld as error:
        watcher.end()
        watcher.tell(error)
        raise
    except DATABASE_ERRORS as error:
        watcher.end()
        ours = from_database(error, side=next(iter(sessions)))
        if isinstance(ours, LockHeld):
            watcher.tell(ours)
            raise ours from error
        raise
    finally:
        watcher.end()


# Over the link it is a session of a link role that waits at the hospital: whose of the cloud's it is, nobody can tell.
_WAITED_FOR = sa.text(
    """
    SELECT w.pid = ANY (CAST(:own AS int[])), n.nspname || '.' || c.relname, b.pid,
        EXISTS (SELECT FROM pg_catalog.pg_locks AS x WHERE x.pid = b.pid AND NOT x.granted)
    FROM pg_catalog.pg_locks AS w
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = w.pid
    CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(w.pid)) AS b (pid)
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = w.relation
    LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT w.granted AND (w.pid = ANY (CAST(:own AS int[]))
        OR a.datname = current_database() AND a.usename = ANY (CAST(:link_roles AS name[])))
    """
)


@dataclass(frozen=True)
class _Found:
    side: Side
    over_the_link: bool
    relation: str | None
    holders: tuple[Holder, ...]


class _Watcher(threading.Thread):
    """Looks who is waited for, and keeps what it saw last."""

    def __init__(self, config: Config, pids: Mapping[Side, int]) -> None:
        super().__init__(daemon=True)
        self.config, self.pids = config, pids
        self.found: dict[Side, _Found] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        """Look until the block has ended, at the hospital too: over the link, the cloud waits there."""
        sides = [side for side in SIDES if side in self.pids or getattr(self.config, f"{side}_url") is not None]
        # Without a second session the wait is told, and its holder is not.
        with suppress(FederationError), ExitStack() as stack:
            watching: dict[Side, Connection] = {}
            while not self.ended.wait(INTERVAL):
                for side in sides:
                    if side not in watching:
                        session = stack.enter_context(connect(self.config, side))
                        watching[side] = session.execution_options(isolation_level="AUTOCOMMIT")
                    self.look(side, watching[side])

    def look(self, side: Side, connection: Connection) -> None:
        own = [self.pids[side]] if side in self.pids else []
        link_roles = [self.config.link.user, self.config.link.service_user] if side == "local" else []
        rows = connection.execute(_WAITED_FOR, {"own": own, "link_roles": link_roles}).all()
        rows = [row for row in rows if row[0]] or rows
        # Whoever waits in front of us holds nothing yet; those who hold it up are told.
        rows = [row for row in rows if not row[3]] or rows
        if rows:
            ours, relation = rows[0][0], rows[0][1]
            self.found[side] = _Found(
                side, not ours, relation, tuple(holders(connection, sorted({r[2] for r in rows})))
            )

    def end(self) -> None:
        """Stop looking; its sessions have ended afterwards."""
        self.ended.set()
        self.join()

    def tell(self, error: LockHeld) -> None:
        """Add to ``error`` what was seen."""
        seen = sorted(self.found.values(), key=lambda found: (found.over_the_link, found.side != error.side))
        if not seen or not seen[0].holders:
            return
        found = seen[0]
        where = " at the hospital, over the link" if found.over_the_link else f" in the {found.side} database"
        what = f"the lock on {found.relation}" if found.relation else "it"
        error.message += f"; {what} is held{where} by {' and '.join(map(str, found.holders))}"
        error.hint = ", ".join(filter(None, ("try again when it is released", to_end(found.holders))))
