"""The lock of a run: one run at a time on each database, and plain Alembic's among them.

It is the lock of the table ``federation.run``, which only the owner may lock. Before the first release the table is
not there. So a session advisory lock is taken as well: anybody who can log in may hold its key, but one who is not the
owner stops nothing where the table is.

https://www.postgresql.org/docs/current/explicit-locking.html
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases.holders import holders, to_end
from federation.databases.sessions import SIDES, Session, connect, session_of
from federation.errors import LockHeld, PreconditionMissing, Side, Unreachable

RUN_LOCK = 0x666564_6572617465
"""Key of the advisory lock (the bytes spell ``federate``)."""

_KEY_HOLDERS = sa.text(
    f"""
    SELECT l.pid, coalesce(pg_has_role(a.usesysid, current_user, 'MEMBER'), true)
    FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted AND l.locktype = 'advisory' AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
        AND (l.classid::bigint << 32) | l.objid::bigint = {RUN_LOCK}
    """  # noqa: S608
)
_TABLE_HOLDERS = sa.text(
    """
    SELECT l.pid FROM pg_catalog.pg_locks AS l
    WHERE l.granted AND l.locktype = 'relation' AND l.relation = 'federation.run'::regclass
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
        AND l.mode <> 'AccessShareLock'
    """
)
_TABLE = sa.text("SELECT to_regclass('federation.run') IS NOT NULL AND NOT pg_is_in_recovery()")


@dataclass(frozen=True)
class RunLock:
    """What holds the lock: a session on each side."""

    held: Sequence[tuple[Side, Connection, Session]]

    def lost(self) -> Unreachable | None:
        """An error to raise if one of the sessions has ended, and with it the lock."""
        for side, connection, session in self.held:
            try:
                session.execute("SELECT 1")  # not by SQLAlchemy, which would open another session
            except psycopg.Error as error:
                connection.invalidate()  # there is nothing left to roll back
                return Unreachable(
                    f"the session that holds this run's lock has ended ({str(error).splitlines()[0]})",
                    side=side,
                    hint="see `federation status`, then run the command again",
                )
        return None

    def let_go_of_tables(self) -> None:
        """Keep the advisory locks alone, so that the tables can be dropped."""
        for _, connection, session in self.held:
            try:
                if session.info.transaction_status is not TransactionStatus.IDLE:
                    session.execute("ROLLBACK")
            except psycopg.Error:
                connection.invalidate()


@contextmanager
def run_lock(config: Config, *, sides: Sequence[Side] = SIDES, wait: bool = False) -> Iterator[RunLock]:
    """Hold the lock of a run on ``sides``, in sessions of their own that stay idle.

    A lock of its own session does not end with a migration's transaction. The session is idle in a transaction, which
    has neither a snapshot nor a transaction id, so it keeps neither VACUUM nor CREATE INDEX CONCURRENTLY waiting.
    Raises LockHeld, which names the holder, when another run has the lock, unless it is to ``wait``;
    PreconditionMissing when both URLs lead to one database.
    """
    with ExitStack() as stack:
        held: list[tuple[Side, Connection, Session]] = []
        for side in sides:
            connection = stack.enter_context(connect(config, side)).execution_options(isolation_level="AUTOCOMMIT")
            try:
                _take(connection, side, wait=False)
            except LockHeld:
                if held and _are_one(held[0][1], connection):
                    raise PreconditionMissing(
                        "FEDERATION_LOCAL_URL and FEDERATION_CLOUD_URL lead to the same database",
                        hint="set each to its own; nothing was changed",
                    ) from None
                if not wait:
                    raise
                connection.exec_driver_sql("SET lock_timeout = 0")
                _take(connection, side, wait=True)
            held.append((side, connection, session_of(connection)))
        lock = RunLock(held)
        try:
            yield lock
        finally:  # what has ended with its server is not to hide what the block raises
            lock.let_go_of_tables()


def _take(connection: Connection, side: Side, *, wait: bool) -> None:
    """Take the lock on one side. Raise LockHeld, with nothing held, where another run has it."""
    has_table = connection.scalar(_TABLE)
    if has_table:
        connection.exec_driver_sql("BEGIN")
        try:
            connection.exec_driver_sql(f"LOCK TABLE federation.run IN EXCLUSIVE MODE{'' if wait else ' NOWAIT'}")
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise
            connection.exec_driver_sql("ROLLBACK")
            raise _held(connection, side, connection.scalars(_TABLE_HOLDERS).all()) from None
    if wait and not has_table:
        connection.execute(sa.select(sa.func.pg_advisory_lock(RUN_LOCK)))
        return
    # No bind parameter: its portal would stay open in the transaction, and CREATE INDEX CONCURRENTLY wait for it.
    if connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({RUN_LOCK})").scalar_one():
        return
    found = connection.execute(_KEY_HOLDERS).all()
    runs = [pid for pid, is_the_owner in found if is_the_owner]
    if runs and wait:
        connection.execute(sa.select(sa.func.pg_advisory_lock(RUN_LOCK)))
    elif runs or not has_table:
        if has_table:
            connection.exec_driver_sql("ROLLBACK")
        raise _held(connection, side, runs or [pid for pid, _ in found], is_a_run=bool(runs))


def _held(connection: Connection, side: Side, pids: Sequence[int], *, is_a_run: bool = True) -> LockHeld:
    found = holders(connection, pids)
    by = f"; its lock is held by {' and '.join(map(str, found))}" if found else ""
    if is_a_run:
        wait = "try again when it has ended, or say --wait"
        return LockHeld(f"another federation run is under way{by}", side=side, hint=wait)
    return LockHeld(
        f"a session that is no federation run holds the key of its lock{by}",
        side=side,
        hint=", ".join(filter(None, ("let it end", to_end(found)))),
    )


def _are_one(one: Connection, other: Connection) -> bool:
    """Whether two sessions are in the same database: then what one locks, the other cannot.

    A system identifier would not say so: physical copies share it, and not every role may read it.
    """
    key = secrets.randbits(63)
    one.execute(sa.select(sa.func.pg_advisory_lock(key)))
    return not other.scalar(sa.select(sa.func.pg_try_advisory_lock(key)))
