"""While a step rewrites a table at the hospital, nobody is inside the link: requests wait in the cloud.

A request that waits at the hospital holds its lock in the cloud, on the view and on the foreign table. So locking every
foreign table of the link, and the views over them before, lets those who are inside finish and keeps the others waiting
before they have sent anything: they read from a snapshot that is newer than the rewrite.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config, seconds
from federation.databases import DATABASE_ERRORS, ddl
from federation.environments.rewrites import TooLong
from federation.errors import FederationError, Unreachable, from_database
from federation.operations.locking import LOCKABLE, in_order, lock

_VIEWS = sa.text(
    f"""
    SELECT DISTINCT n.nspname, v.relname FROM pg_catalog.pg_class AS v
    JOIN pg_catalog.pg_namespace AS n ON n.oid = v.relnamespace {LOCKABLE}
        AND EXISTS (SELECT FROM pg_catalog.pg_foreign_table AS t
            JOIN pg_catalog.pg_foreign_server AS s ON s.oid = t.ftserver AND s.srvname = :server
            WHERE t.ftrelid = l.refobjid)
    ORDER BY 1, 2
    """  # noqa: S608
)
_FOREIGN_TABLES = sa.text(
    """
    SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner) FROM pg_catalog.pg_foreign_table AS t
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid = t.ftserver AND s.srvname = :server
    JOIN pg_catalog.pg_class AS c ON c.oid = t.ftrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    ORDER BY 1, 2
    """
)
# LOCK TABLE takes no foreign tables. This changes nothing, and locks in ACCESS EXCLUSIVE mode.
_LOCK_FOREIGN = sql.SQL("ALTER FOREIGN TABLE {} OWNER TO {}")

AGAIN = 0.05
"""Seconds between two attempts to cancel a statement: one that comes between two statements hits none."""


@contextmanager
def kept_out(
    config: Config, cloud: Connection, local: Connection, tables: tuple[str, ...]
) -> Iterator[Callable[[], None]]:
    """Keep the app out of the link, in a transaction of ``cloud``'s that is rolled back, while the block is at work.

    What ``local`` does there is cancelled after ``rewrite_timeout``, counted from the first lock. Yields what raises
    Unreachable when the locks are gone. Raises LockHeld when they cannot be had at once, TooLong.
    """
    began = time.monotonic()
    try:
        server = {"server": config.link.server}
        views = [lock((schema, name)) for schema, name in cloud.execute(_VIEWS, server)]
        foreign = [
            _LOCK_FOREIGN.format(sql.Identifier(schema, name), sql.Identifier(owner))
            for schema, name, owner in cloud.execute(_FOREIGN_TABLES, server)
        ]
        cloud.execute(ddl(in_order([*views, *foreign])))
        with _at_most(local, began + seconds(config.database.rewrite_timeout)) as ended:
            try:
                yield lambda: _still_there(cloud)
            except FederationError as error:
                if ended():
                    raise TooLong(config.database.rewrite_timeout, tables) from error
                raise
    except DATABASE_ERRORS as error:
        raise from_database(error, side="cloud") from error
    finally:
        with suppress(*DATABASE_ERRORS):
            cloud.rollback()


def _still_there(cloud: Connection) -> None:
    """Raise Unreachable unless the session that holds the locks is alive."""
    try:
        cloud.exec_driver_sql("SELECT 1")
    except DATABASE_ERRORS as error:
        raise Unreachable(
            "the session that kept the app waiting has ended",
            side="cloud",
            hint="nothing of the step was done; run the command again",
        ) from error


@contextmanager
def _at_most(session: Connection, deadline: float) -> Iterator[Callable[[], bool]]:
    """Cancel what ``session`` does at ``deadline`` (time.monotonic) and after it; yields whether that has begun."""
    done, ended = threading.Event(), threading.Event()
    driver: Any = session.connection.driver_connection

    def watch() -> None:
        if done.wait(max(0.0, deadline - time.monotonic())):
            return
        ended.set()
        while not done.wait(AGAIN):
            with suppress(psycopg.Error):
                driver.cancel_safe()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield ended.is_set
    finally:
        done.set()
        thread.join()
