"""Whether the link and FEDERATION_LOCAL_URL lead to the same database, and not one of them to a copy of it.

A copy has the same site, release and mark. But a row that is locked on the one way is waited for on the other, where
both lead to the same database. Nothing is written.
"""

from __future__ import annotations

import select

import psycopg
import sqlalchemy as sa
from psycopg.pq import ExecStatus
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import DATABASE_ERRORS, over_the_link
from federation.databases.sessions import session_of
from federation.errors import Refused

_CAN_BE_TOLD = "SELECT to_regclass('federation.guard') IS NOT NULL AND NOT pg_is_in_recovery()"
_LOCK = "SELECT FROM federation.guard FOR UPDATE NOWAIT"
_ASK = b"SELECT side FROM federation_private.guard FOR UPDATE"
# A transaction keeps the list of sessions that it saw first, and the link's session may be younger: it is let go each
# time (https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-STATS-VIEWS).
_IS_WAITED_FOR = sa.text(
    """SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
        WHERE NOT l.granted AND a.usename = :service AND pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(l.pid))),
        pg_stat_clear_snapshot()
    """
)
_TURN = 0.01
"""Seconds between two looks at who waits."""


def refuse_copy(config: Config, local: Connection, cloud: Connection) -> None:
    """Raise Refused where the link leads to another database than ``local``, which is a copy of it.

    Where it cannot be told, because a step is under way or the hospital does not answer, nothing is raised.
    """
    try:
        leads_elsewhere = _leads_elsewhere(config, local, cloud)
    except DATABASE_ERRORS:
        return
    finally:
        local.rollback()
        cloud.rollback()
    if leads_elsewhere:
        raise Refused(
            "the link leads to another database than FEDERATION_LOCAL_URL, and one of them is a copy of the other",
            side="cloud",
            hint="check FEDERATION_LOCAL_URL and FEDERATION_LINK_HOST, _PORT, _DBNAME, run `federation link apply`",
        )


def _leads_elsewhere(config: Config, local: Connection, cloud: Connection) -> bool:
    linked = cloud.exec_driver_sql("SELECT to_regclass('federation_private.guard') IS NOT NULL").scalar_one()
    if not linked or not local.exec_driver_sql(_CAN_BE_TOLD).scalar_one():
        return False
    local.exec_driver_sql(_LOCK)
    with over_the_link(cloud, config):
        wire = session_of(cloud).pgconn
        wire.send_query(_ASK)
        while True:
            wire.consume_input()
            waited_for = local.scalar(_IS_WAITED_FOR, {"service": config.link.service_user})
            if waited_for or not wire.is_busy():
                break
            select.select([wire.socket], [], [], _TURN)
        local.rollback()
        return _rows(wire) and not waited_for


def _rows(wire: psycopg.pq.abc.PGconn) -> bool:
    """Read the answer to its end; whether it is a row and no error."""
    found = False
    while True:
        # get_result() waits with the interpreter's lock held: no signal, and no timer that would end it, gets through.
        while wire.is_busy():
            select.select([wire.socket], [], [])
            wire.consume_input()
        result = wire.get_result()
        if result is None:
            return found
        found = found or (result.status == ExecStatus.TUPLES_OK and result.ntuples > 0)
