"""Engines and sessions on the two databases: timeouts, no secrets in error texts, advisory locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import DDL

from federation.config import Config
from federation.errors import LockHeld, PreconditionMissing, Side, from_database

SIDES: tuple[Side, Side] = ("local", "cloud")

OLDEST_SERVER = 15
"""Oldest PostgreSQL major version that the toolkit is tested on."""

DATABASE_ERRORS = (sa.exc.DBAPIError, psycopg.Error)
"""What a session raises: SQLAlchemy's, or psycopg's own where COPY goes past SQLAlchemy."""

RUN_LOCK = 0x666564_6572617465
"""Key of the session advisory lock that a run holds on both databases (the bytes spell ``federate``)."""


def engine(config: Config, side: Side, *, admin: bool = False) -> Engine:
    """An engine for one side; nothing is pooled, since a command opens at most two sessions a side.

    Parameters never show in error texts (``hide_parameters``), and ``lock_timeout`` keeps DDL from queueing in
    front of the app. Nothing is prepared, since a step's SQL may hold several statements.
    """
    limits = "" if admin else f"-c lock_timeout={config.database.lock_timeout} "
    return sa.create_engine(
        config.url(side, admin=admin),
        poolclass=NullPool,
        hide_parameters=True,
        use_native_hstore=False,
        connect_args={
            "connect_timeout": config.database.connect_timeout,
            "application_name": "federation",
            "prepare_threshold": None,
            "options": f"{limits}-c client_min_messages=warning",
        },
    )


@contextmanager
def connect(config: Config, side: Side, *, admin: bool = False) -> Iterator[Connection]:
    """A session on ``side``, not yet in a transaction, on a server that is new enough.

    Raises Unreachable or PreconditionMissing; what the database raises inside the block becomes an error of ours.
    """
    database = engine(config, side, admin=admin)
    try:
        with database.connect() as connection:
            _require_server_version(connection, side)
            yield connection
    except DATABASE_ERRORS as error:
        raise from_database(error, side=side) from error
    finally:
        database.dispose()


@contextmanager
def run_lock(config: Config) -> Iterator[None]:
    """Hold the advisory lock of a run on both databases, on sessions of their own that stay idle.

    A lock of its own session does not end with a migration's transaction, and an idle session outside a transaction
    does not keep CREATE INDEX CONCURRENTLY waiting. Raises LockHeld when another run has it.
    """
    with ExitStack() as stack:
        for side in SIDES:
            connection = stack.enter_context(connect(config, side)).execution_options(isolation_level="AUTOCOMMIT")
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(RUN_LOCK))):
                raise LockHeld(
                    "another federation run is under way", side=side, hint="wait until it ends, then try again"
                )
        yield


def _require_server_version(connection: Connection, side: Side) -> None:
    number = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
    connection.rollback()
    if number < OLDEST_SERVER * 10000:
        raise PreconditionMissing(
            f"the server is PostgreSQL {number // 10000}",
            side=side,
            hint=f"PostgreSQL {OLDEST_SERVER} or later is needed",
        )


def ddl(statement: sql.Composable) -> DDL:
    """Composed SQL as a DDL element, which sends and prints the same text.

    It takes no bind parameters, so ``:x`` in a value stays what it is; its own ``%`` formatting is answered by
    doubling (https://docs.sqlalchemy.org/en/21/core/ddl.html#sqlalchemy.schema.DDL).
    """
    text = statement.as_string(None).strip().rstrip(";")
    return DDL(text.replace("%", "%%"))  # type: ignore[no-untyped-call]
