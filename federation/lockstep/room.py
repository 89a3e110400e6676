"""Room on the link for a run, where the app's backends hold every session that the hospital admits.

postgres_fdw keeps a session until its backend ends. So where a link role is at its limit, the owner ends those of its
sessions that have been idle longest, and the run opens its own at once. A backend whose session was ended connects anew
in its next transaction.

https://www.postgresql.org/docs/current/postgres-fdw.html#POSTGRES-FDW-CONNECTION-MANAGEMENT
"""

from __future__ import annotations

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import DATABASE_ERRORS, ddl, over_the_link
from federation.errors import Side, Unreachable

_ATTEMPTS = 6
"""A waiting request of the app's may take a place before the run does; each time two more are made."""


def take(config: Config, sessions: dict[Side, Connection]) -> None:
    """Where a link role is at its limit, make room and open the run's sessions, which last as long as ``sessions``.

    Raises Unreachable where no session of the role is idle, or the owner may end none. What else is wrong with the link
    is left to those who need it.
    """
    local, cloud = sessions["local"], sessions["cloud"]
    if not cloud.scalar(sa.text("SELECT to_regclass('federation_private.bind') IS NOT NULL")):
        cloud.rollback()
        return
    cloud.rollback()
    for attempt in range(_ATTEMPTS):
        full = _full(config, local)
        ended = [_end_idle(local, role, 2 * (attempt + 1)) for role, _ in full]
        local.rollback()
        if not full or _opened(config, cloud):
            return
        if not any(ended):
            break
    roles = " and ".join(f"{role}, whose limit is {limit}" for role, limit in full)
    raise Unreachable(
        f"the app holds every session that the hospital admits of role {roles}",
        side="cloud",
        hint="each backend of the cloud keeps one for each role: keep the app's pools below the limits, or raise them "
        "(max_connections, then `federation bootstrap local`), and run the command again",
    )


def _opened(config: Config, cloud: Connection) -> bool:
    """Whether the hospital admits this session as both link roles; no row is asked for."""
    try:
        with over_the_link(cloud, config):
            cloud.exec_driver_sql("SELECT FROM federation_private.guard WHERE (SELECT false)")
            cloud.execute(ddl(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(config.roles.sender))))
            cloud.exec_driver_sql("SELECT FROM federation_private.bind WHERE (SELECT false)")
    except DATABASE_ERRORS:
        return False
    finally:
        cloud.rollback()
    return True


def _full(config: Config, local: Connection) -> list[tuple[str, int]]:
    """The link roles that are at their limit, and the limits."""
    names = [config.link.user, config.link.service_user]
    return [(name, limit) for name, limit in local.execute(_FULL, {"names": names})]


def _end_idle(local: Connection, role: str, number: int) -> int:
    """End the sessions of ``role`` that have been idle longest; how many have ended."""
    return len(local.execute(_END_IDLE, {"role": role, "number": number}).all())


_FULL = sa.text(
    """
    SELECT r.rolname, r.rolconnlimit FROM pg_catalog.pg_roles AS r
    WHERE r.rolname = ANY (:names) AND r.rolconnlimit >= 0
        AND r.rolconnlimit <= (SELECT count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.usesysid = r.oid)
    ORDER BY r.rolname
    """
)

# An open transaction of the app's is never ended: such a session is not idle.
_END_IDLE = sa.text(
    """
    SELECT FROM (
        SELECT a.pid FROM pg_catalog.pg_stat_activity AS a
        WHERE a.usename = :role AND a.state = 'idle' AND pg_has_role('pg_signal_backend', 'USAGE')
        ORDER BY a.state_change LIMIT :number
    ) AS oldest
    WHERE pg_terminate_backend(oldest.pid, 5000)
    """
)
