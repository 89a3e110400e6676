"""Servers that run already, given to the kit for tests: a container's, or a CI service's.

They are for tests alone. The kit makes roles there and sets their passwords, so it refuses a server that has such a
role from somebody else: that may be a hospital's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from federation.config import Config
from federation.errors import PreconditionMissing, Refused, Side, from_database
from federation.servers.binaries import OLDEST_MAJOR
from federation.servers.pair import RunningPair
from federation.servers.running import RunningServer
from federation.testing.databases import ROLES_LOCK

MADE = "made by alembic-federation's test kit"
"""The comment of each role that logs in: what tells the kit's from others'."""

_LABEL = re.compile(r"(federation_[0-9a-f]{8})_")


class GivenPair(RunningPair):
    """Both servers, by the URLs of their superusers, from ``with`` to the end of it.

    ``link`` is ``HOST:PORT``, where the cloud's server finds the hospital's, if that is not as in ``local_url``.
    ``label`` begins the names of all databases of this session; those of sessions that were killed are dropped.
    """

    def __init__(self, local_url: str, cloud_url: str, link: str | None, config: Config) -> None:
        local, cloud = _server(local_url, "local"), _server(cloud_url, "cloud")
        if cloud.superuser == "postgres":
            raise PreconditionMissing(
                "the cloud's server has the superuser postgres, which on Supabase is the app's owner and no superuser",
                side="cloud",
                hint="make it with the superuser supabase_admin (initdb --username, POSTGRES_USER of the image)",
            )

        def password(role: str) -> str:
            """The same for all sessions that use these servers at one time."""
            return hmac.digest(local.password.encode() + cloud.password.encode(), role.encode(), hashlib.sha256).hex()

        super().__init__(local, cloud, password)
        self.link_port = local.port
        if link is not None:
            host, _, port = link.rpartition(":")
            self.link_host, self.link_port = host, int(port)
        self.label = f"federation_{secrets.token_hex(4)}"
        self._logins: dict[Side, tuple[str, ...]] = {
            "local": ("hospital_owner", config.link.user, config.link.service_user),
            "cloud": ("postgres", "authenticator"),
        }
        self._running = ExitStack()

    def environment(self, local_dbname: str = "hospital", cloud_dbname: str = "postgres") -> dict[str, str]:
        """The FEDERATION_… variables, with the port of the link if it is another one than the tests'."""
        return super().environment(local_dbname, cloud_dbname) | {"FEDERATION_LINK_PORT": str(self.link_port)}

    def __enter__(self) -> Self:
        sessions: list[tuple[Side, RunningServer]] = [("local", self.local), ("cloud", self.cloud)]
        with ExitStack() as stack:
            opened: dict[Side, psycopg.Connection[Any]] = {}
            for side, server in sessions:
                opened[side] = session = stack.enter_context(_session(server, side))
                session.execute("SELECT pg_advisory_lock(hashtext(%s))", [self.label])  # as long as we live
                session.execute("SELECT pg_advisory_lock(%s)", [ROLES_LOCK])
                _drop_left_over(server, session)
                _refuse_others(session, self._logins[side], side)
            self.prepare_cloud()
            for side, session in opened.items():
                _claim(session, self._logins[side])
                session.execute("SELECT pg_advisory_unlock(%s)", [ROLES_LOCK])
            self._running = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.__exit__(kind, error, traceback)


def _server(url: str, side: Side) -> RunningServer:
    """Return the server that ``url`` names. PreconditionMissing if it lacks the user or the password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        parts = {}
    user, password = parts.get("user"), parts.get("password") or os.environ.get("PGPASSWORD")
    if not user or not password:
        raise PreconditionMissing(
            f"the URL of the {side} server for tests names no superuser with a password",
            side=side,
            hint=f"--federation-{side}-server=postgresql://SUPERUSER:PASSWORD@HOST:PORT/postgres",
        )
    return RunningServer(
        str(parts.get("host") or "127.0.0.1"), int(parts.get("port") or 5432), str(user), str(password)
    )


@contextmanager
def _session(server: RunningServer, side: Side) -> Iterator[psycopg.Connection[Any]]:
    """Open a session of the superuser on a supported server."""
    try:
        with server.connect() as session:
            if session.info.server_version < OLDEST_MAJOR * 10_000:
                raise PreconditionMissing(
                    f"the server for tests is PostgreSQL {session.info.server_version // 10_000}",
                    side=side,
                    hint=f"PostgreSQL {OLDEST_MAJOR} or later is needed",
                )
            if session.info.parameter_status("is_superuser") != "on":
                raise PreconditionMissing(
                    f"role {server.superuser} of the server for tests is no superuser",
                    side=side,
                    hint="name one that is",
                )
            yield session
    except psycopg.Error as error:
        raise from_database(error, side=side) from error


def _refuse_others(session: psycopg.Connection[Any], roles: tuple[str, ...], side: Side) -> None:
    """Raise Refused where a role that the kit logs in with is somebody else's."""
    query = (
        "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) "
        "AND shobj_description(oid, 'pg_authid') IS DISTINCT FROM %s"
    )
    others = session.execute(query, [list(roles), MADE]).fetchall()
    for (role,) in others:
        comment = sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role), sql.Literal(MADE)).as_string(None)
        raise Refused(
            f"the server for tests has a role {role} that the kit did not make and whose password it would change",
            side=side,
            hint=f"give it a server of its own; if it is one: {comment}",
        )


def _claim(session: psycopg.Connection[Any], roles: tuple[str, ...]) -> None:
    """Make the roles that are missing, and tell them as the kit's."""
    for role in roles:
        name = sql.Identifier(role)
        if not session.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
            session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        session.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(name, sql.Literal(MADE)))


def _drop_left_over(server: RunningServer, session: psycopg.Connection[Any]) -> None:
    """The databases of test sessions that have ended without dropping them: nobody holds the lock of their label."""
    names = [name for (name,) in session.execute("SELECT datname FROM pg_database WHERE NOT datistemplate").fetchall()]
    labels = {match[1] for name in names if (match := _LABEL.match(name))}
    for label in labels:
        (free,) = session.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [label]).fetchone() or (False,)
        if free:
            for name in names:
                if name.startswith(f"{label}_"):
                    server.drop_database(name)
            session.execute("SELECT pg_advisory_unlock(hashtext(%s))", [label])
