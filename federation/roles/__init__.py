"""The roles that carry the link: what they must be, and what is wrong with those that are there.

The link roles at the hospital may do what the binding lets them, and nobody else may become them. The sender in the
cloud owns the function that names the caller, and only the owner may become it.

https://www.postgresql.org/docs/current/role-membership.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.errors import Side

IDLE_TIMEOUT = "60s"
"""How long a link session may keep a transaction, and its locks, without sending a statement."""

IDLE_SESSION_TIMEOUT = "10min"
"""How long a link session may be idle. postgres_fdw never closes one, and connects again when it needs one."""

TEMP_FILE_LIMIT = "1GB"
"""How much disk one link session's sorts may take."""

RUNNER = 5
"""Sessions of each link role that are kept for the toolkit's own use."""

SUPERUSERS = frozenset({"temp_file_limit", "lc_messages"})
"""Settings that only superusers may set, or roles granted SET on the parameter."""


@dataclass(frozen=True)
class Fault:
    """Return the faults of ``role``, each as the rest of a sentence, and what mends it.

    ``refused`` is false for what is only worth a warning.
    """

    role: str
    fault: str
    remedy: str
    refused: bool = True

    def __str__(self) -> str:
        return f"role {self.role} {self.fault} ({self.remedy})"


def bound(config: Config, side: Side) -> tuple[str, ...]:
    """List the roles of ``side`` that carry the link."""
    return (config.link.user, config.link.service_user) if side == "local" else (config.roles.sender,)


def settings(config: Config) -> dict[str, str]:
    """Return the settings of the link roles.

    Limits, since a caller in the cloud can choose expensive expressions and hold locks. English, because the app reads
    the hospital's messages as they are. No notices: a trigger's would stand in the cloud's log.
    """
    return {
        "lock_timeout": config.link.lock_timeout,
        "statement_timeout": config.link.statement_timeout,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        "idle_session_timeout": IDLE_SESSION_TIMEOUT,
        "temp_file_limit": TEMP_FILE_LIMIT,
        "lc_messages": "C",
        "client_min_messages": "error",
    }


def faults_query(config: Config, side: Side, owner: str) -> sql.Composed:
    """Return the query for the faults of the roles of ``side``: role, fault, remedy, refused."""
    local = side == "local"
    return sql.SQL(_text("faults")).format(
        bound=sql.Literal(list(bound(config, side))),
        callers=sql.Literal(list(config.roles.callers) if local else []),
        becomes=sql.Literal(config.link.user if local else ""),
        logs_in=sql.Literal(local),
        owner=sql.Literal("" if local else owner),
    )


def faults(connection: Connection, config: Config, side: Side) -> list[Fault]:
    """List the faults of the roles of ``side``. Reads only."""
    owner = connection.exec_driver_sql("SELECT current_user").scalar_one()
    return [Fault(*row) for row in _rows(connection, faults_query(config, side, owner))]


def foreign_settings(connection: Connection, config: Config) -> list[Fault]:
    """List settings of the link roles that differ from the declared ones. Reads only."""
    declared = settings(config)
    query = sql.SQL(_text("settings")).format(
        bound=sql.Literal(list(bound(config, "local"))),
        names=sql.Literal(list(declared)),
        values=sql.Literal(list(declared.values())),
        optional=sql.Literal(sorted(SUPERUSERS)),
    )
    return [Fault(*row) for row in _rows(connection, query)]


def without_usage(connection: Connection, schema: str, names: Iterable[str]) -> list[str]:
    """List the roles among ``names`` that lack USAGE on ``schema``; USAGE through PUBLIC or a membership counts."""
    query = sql.SQL(
        "SELECT r.rolname FROM pg_catalog.pg_roles AS r JOIN pg_catalog.pg_namespace AS n ON n.nspname = {} "
        "WHERE r.rolname = ANY ({}) AND NOT has_schema_privilege(r.oid, n.oid, 'USAGE') ORDER BY 1"
    ).format(sql.Literal(schema), sql.Literal(list(names)))
    return [name for (name,) in _rows(connection, query)]


def _rows(connection: Connection, query: sql.Composed) -> list[tuple[Any, ...]]:
    text, as_it_is = query.as_string(None), {"no_parameters": True}
    return [tuple(row) for row in connection.exec_driver_sql(text, execution_options=as_it_is)]


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
