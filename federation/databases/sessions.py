"""Sessions on the two databases: timeouts, the link's patience, no secrets in error texts, no transaction pooler."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import DDL, ExecutableDDLElement

from federation.config import Config
from federation.errors import PreconditionMissing, Side, from_database
from federation.server_text import is_safe, printable

SIDES: tuple[Side, Side] = ("local", "cloud")

OLDEST_SERVER = 15
"""Oldest PostgreSQL major version that the toolkit is tested on."""

DATABASE_ERRORS = (sa.exc.DBAPIError, psycopg.Error)
"""What a session raises: SQLAlchemy's, or psycopg's own where COPY goes past SQLAlchemy."""

CLIENT_CHECK = "10s"
"""How often the cloud looks whether a client is still there whose statement waits for the hospital."""

CLEANUP = 30.0
"""Seconds that postgres_fdw gives a remote query to end once it is cancelled (its CONNECTION_CLEANUP_TIMEOUT)."""

SLACK = 5.0
"""Seconds more, until the client no longer waits for the cloud's server either."""

ANALYZE_TIMEOUT = 3600.0
"""Seconds that ANALYZE may take: 15 fetches every row of a foreign table."""

_ASKS = "federation_asks_hospital"
"""The execution option of a statement that asks the hospital: the seconds that it has, 0 for `link_timeout`."""


class Session(psycopg.Connection[TupleRow]):
    """A connection that also limits how long COMMIT may wait, once its transaction has used the link (``asked``).

    Then the hospital's transaction commits as well, and ``statement_timeout`` does not count.
    """

    asked: tuple[str, float] | None = None
    """The foreign server, and the seconds that it has for an answer."""

    server_pid: int = 0
    """The server's process, also behind a session pooler, which tells its client another one."""

    notices: list[str] | None = None
    """Where the server's warnings are kept, if somebody shows them himself."""

    def say(self, notice: psycopg.errors.Diagnostic) -> None:
        """Repeat a server's warning, the guard's for one: on standard error, unless somebody has set up logging.

        What a trigger or a DO block of others says may quote a value, and is not repeated.
        """
        if is_safe(notice):
            hint = f" — {notice.message_hint}" if notice.message_hint else ""
            text = printable(f"{notice.message_primary}{hint}")
            if self.notices is None:
                logging.getLogger("federation").warning("federation: %s", text)
            else:
                self.notices.append(text)

    def commit(self) -> None:
        """Commit in time, if the hospital was asked."""
        if self.asked is None:
            return super().commit()
        asked, self.asked = self.asked, None
        with _patience(self, *asked):
            return super().commit()


@lru_cache(maxsize=8)
def _engine(url: URL, connect_timeout: int, server: str, link_timeout: float) -> Engine:
    """An engine for one database, made once: making one, and its first session, take longer than most commands' SQL.

    Nothing is pooled, since a command opens at most two sessions a side. Parameters never show in error texts
    (``hide_parameters``). Nothing is prepared, since a step's SQL may hold several statements. A network that
    swallows packets is found by TCP, after 30 s. ``link_timeout``: seconds that foreign server ``server`` has for an
    answer; 0 in a database that has none.
    """
    made = sa.create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        use_native_hstore=False,
        connect_args={
            "connect_timeout": connect_timeout,
            "application_name": "federation",
            "prepare_threshold": None,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
    )

    def ask_in_time(cursor: psycopg.Cursor[Any], statement: str, parameters: Any, context: ExecutionContext) -> bool:
        """Send a statement that `asking` has made; SQLAlchemy sends the others."""
        seconds: float | None = context.execution_options.get(_ASKS)
        if seconds is None:
            return False
        with _answered(cursor.connection, server, seconds or link_timeout):  # type: ignore[arg-type]  # a Session
            cursor.execute(statement, parameters)
        return True

    def session(_dialect: object, _record: object, arguments: list[Any], parameters: dict[str, Any]) -> Session:
        return Session.connect(*arguments, **parameters)

    sa.event.listen(made, "do_connect", session)
    if link_timeout:
        sa.event.listen(made, "do_execute", ask_in_time)
    return made


@contextmanager
def connect(config: Config, side: Side, *, admin: bool = False) -> Iterator[Connection]:
    """Open a session on ``side``, without a transaction. Refuse old servers and transaction poolers.

    Unless it is an administrator's, ``lock_timeout`` keeps its DDL from queueing in front of the app. Raises
    Unreachable or PreconditionMissing; what the database raises inside the block becomes an error of ours.
    """
    url = config.url(side, admin=admin)
    patience = link_timeout(config) if side == "cloud" else 0
    database = _engine(url, config.database.connect_timeout, config.link.server, patience)
    settings = {
        "client_min_messages": "warning",
        # A role's own limits are the app's. The run's lock ends with its session, a step may be at work in Python,
        # and a migration may take hours.
        "idle_session_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "statement_timeout": "0",
    }
    if not admin:
        settings["lock_timeout"] = config.database.lock_timeout
    if side == "cloud":
        # After kill -9 the session ends, and its locks, although it waits for the hospital.
        settings["client_connection_check_interval"] = CLIENT_CHECK
    try:
        with database.connect() as connection:
            session = session_of(connection)
            session.autocommit = True
            pid = _require_server_version(session, side)
            session.server_pid = pid
            if session.info.server_version >= 170000:
                settings["transaction_timeout"] = "0"
            if pid != session.info.backend_pid:
                _refuse_transaction_pooler(session, database, pid, side, admin=admin)
            # Not as startup options, which poolers refuse or forget.
            for_all = sql.SQL(", ").join(
                sql.SQL("set_config({}, {}, false)").format(name, value) for name, value in settings.items()
            )
            session.execute(sql.SQL("SELECT {}").format(for_all))
            session.autocommit = False
            session.add_notice_handler(session.say)
            yield connection
    except DATABASE_ERRORS as error:
        raise from_database(error, side=side) from error


@contextmanager
def asked(connection: Connection, side: Side) -> Iterator[None]:
    """Leave no transaction open after the block; raise what the database raises as an error of the toolkit."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise from_database(error, side=side) from error
    finally:
        connection.rollback()


def link_timeout(config: Config) -> int:
    """Seconds that the hospital has for its first answer to the cloud: to connect, and as long again."""
    return 2 * config.link.connect_timeout


@contextmanager
def over_the_link(connection: Connection, config: Config) -> Iterator[None]:
    """What the block asks of the hospital, as the cloud's ``connection``, is answered in time or an error.

    A statement has `link_timeout`; the block ends at most 35 s later, also where the cloud's
    server waits on. Never for a whole migration, whose own work may take hours. Raises psycopg's ConnectionFailure,
    which `connect` and Alembic's environment make Unreachable.
    """
    with _answered(session_of(connection), config.link.server, link_timeout(config)):
        yield


@contextmanager
def _answered(session: Session, server: str, seconds: float) -> Iterator[None]:
    """From 16 on ``statement_timeout`` is all that ends postgres_fdw's waiting for a connection; 15 has its own."""
    limit = f"{round(seconds * 1000)}ms"
    setting = "SELECT current_setting('statement_timeout'), set_config('statement_timeout', %s, false)"
    before = session.execute(setting, [limit]).fetchone()
    assert before is not None  # noqa: S101  # a SELECT without FROM has one row
    session.asked = (server, min(seconds, session.asked[1] if session.asked else seconds))
    try:
        with _patience(session, server, seconds):
            yield
    finally:
        # A transaction that failed has undone the setting, or will.
        if session.info.transaction_status in {TransactionStatus.IDLE, TransactionStatus.INTRANS}:
            session.execute(setting, [before[0]])


@contextmanager
def _patience(session: Session, server: str, seconds: float) -> Iterator[None]:
    """Close the client's socket when the time is over.

    Before PostgreSQL 17 nothing else ends a cancelled query, or a COMMIT, that waits for a frozen server.
    """
    hung_up = threading.Event()
    timer = threading.Timer(seconds + CLEANUP + SLACK, _hang_up, [session, hung_up])
    timer.daemon = True
    timer.start()
    try:
        yield
    except DATABASE_ERRORS as error:
        original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if hung_up.is_set() or isinstance(original, psycopg.errors.QueryCanceled):
            text = f"no answer from foreign server {server} within {seconds:g} s"
            raise psycopg.errors.ConnectionFailure(text) from error
        raise
    finally:
        timer.cancel()


def _hang_up(session: Session, hung_up: threading.Event) -> None:
    """End the connection under a thread that waits for it, which has an error then."""
    hung_up.set()
    with suppress(OSError, psycopg.Error):  # it has ended by itself
        connected = socket.socket(fileno=session.fileno())
        try:
            connected.shutdown(socket.SHUT_RDWR)
        finally:
            connected.detach()


def session_of(connection: Connection) -> Session:
    """The psycopg session under a connection of `connect`."""
    session = connection.connection.driver_connection
    assert isinstance(session, Session)  # noqa: S101  # the engine makes no others
    return session


def _require_server_version(session: Session, side: Side) -> int:
    """The process id of the server's end. Raises PreconditionMissing for a server that is too old."""
    row = session.execute("SELECT pg_backend_pid(), current_setting('server_version_num')::int").fetchone()
    assert row is not None  # noqa: S101  # a SELECT without FROM has one row
    pid, number = row
    if number < OLDEST_SERVER * 10000:
        raise PreconditionMissing(
            f"the server is PostgreSQL {number // 10000}",
            side=side,
            hint=f"PostgreSQL {OLDEST_SERVER} or later is needed",
        )
    return int(pid)


def _refuse_transaction_pooler(session: Session, database: Engine, pid: int, side: Side, *, admin: bool) -> None:
    """Raise PreconditionMissing where each transaction may have another session of the server's.

    Behind a pooler the process id that a client is told (BackendKeyData) is not the server's. A session pooler keeps
    ``pid`` for this client alone; a transaction pooler gives it to the next transaction, or to this client another
    one. An idle pool always shows that: the last one used comes first, or each in its turn.
    """
    for _ in range(3):  # in a busy one another client may have taken it meanwhile
        with database.connect() as other:  # stays in its transaction
            shared = other.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() == pid
            if not shared and _require_server_version(session, side) == pid:
                continue
        variable = f"FEDERATION_{side.upper()}_{'ADMIN_' if admin else ''}URL"
        raise PreconditionMissing(
            f"{variable} leads to a transaction pooler, which does not keep a session's locks and settings",
            side=side,
            hint=f"set {variable} to the direct connection or to the session pooler (Supabase: port 5432, not 6543)",
        )


def asking(statement: sql.Composable, seconds: float = 0) -> ExecutableDDLElement:
    """A statement with which the cloud asks the hospital: its answer comes within ``seconds`` or is an error.

    0 stands for `link_timeout`. The COMMIT that follows has as long. In a database without a link it is
    a statement like others.
    """
    return ddl(statement).execution_options(**{_ASKS: seconds})


def ddl(statement: sql.Composable) -> DDL:
    """Composed SQL as a DDL element, which sends and prints the same text.

    It takes no bind parameters, so ``:x`` in a value stays what it is; its own ``%`` formatting is answered by
    doubling (https://docs.sqlalchemy.org/en/21/core/ddl.html#sqlalchemy.schema.DDL).
    """
    text = statement.as_string(None).strip().rstrip(";")
    return DDL(text.replace("%", "%%"))  # type: ignore[no-untyped-call]
