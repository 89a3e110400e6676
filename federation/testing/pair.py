"""A pair of databases for one test: the hospital's and the cloud's, linked, at a release, and the ways in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg import sql

from federation.administration import accounts
from federation.config import Config
from federation.databases import SIDES
from federation.errors import PreconditionMissing, Side
from federation.lockstep import Outcome, downgrade, upgrade
from federation.servers.pair import SITE_ID, RunningPair
from federation.servers.proxy import HOST, Proxy
from federation.testing.rows import Row, Rows

STATEMENT_TIMEOUT = "8s"
"""What Supabase gives a caller's statement: https://supabase.com/docs/guides/database/postgres/timeouts"""


class FederationPair:
    """Two databases on ``servers``; ``file`` is the federation.toml that they follow.

    What is opened here is closed when the test ends.
    """

    def __init__(self, servers: RunningPair, local_dbname: str, cloud_dbname: str, file: Path) -> None:
        self.servers, self.local_dbname, self.cloud_dbname, self.file = servers, local_dbname, cloud_dbname, file
        self._open = ExitStack()

    def close(self) -> None:
        """Close every connection that this pair gave out."""
        self._open.close()

    @property
    def environ(self) -> dict[str, str]:
        """The FEDERATION_… variables for these databases, passwords included."""
        return self.servers.environment(self.local_dbname, self.cloud_dbname)

    @property
    def config(self) -> Config:
        """federation.toml with these databases."""
        return Config.load(self.file, self.environ)

    @property
    def authenticator_url(self) -> str:
        """How PostgREST logs in to the cloud; a request then takes its role with SET LOCAL ROLE."""
        return self.servers.authenticator_url(self.cloud_dbname)

    def dbname(self, side: Side) -> str:
        """The name of the database on ``side``."""
        return self.local_dbname if _known(side) == "local" else self.cloud_dbname

    def url(self, side: Side) -> str:
        """The URL of the database's owner."""
        return self.environ[f"FEDERATION_{_known(side).upper()}_URL"]

    def superuser(self, side: Side) -> psycopg.Connection[Any]:
        """The server's superuser, autocommitting."""
        server = self.servers.local if _known(side) == "local" else self.servers.cloud
        return self._connect(server.url(dbname=self.dbname(side)))

    def owner(self, side: Side) -> psycopg.Connection[Any]:
        """The database's owner, autocommitting."""
        return self._connect(self.url(side))

    def link_role(self, role: Literal["link", "service"] = "link") -> psycopg.Connection[Any]:
        """A link role at the hospital, as the cloud logs in there; it has transactions, to which callers are bound."""
        user, password = self.config.link_login(role)
        return self._connect(self.servers.local.url(user, password, self.local_dbname), autocommit=False)

    def _connect(self, url: str, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        connection = psycopg.connect(url, autocommit=autocommit)
        self._open.callback(connection.close)
        return connection

    @contextmanager
    def as_user(
        self,
        sub: UUID | str | None = SITE_ID,
        role: str = "authenticated",
        *,
        read_only: bool = False,
        **claims: object,
    ) -> Iterator[psycopg.Cursor[Any]]:
        """One transaction in the cloud as PostgREST runs a request: the authenticator, SET LOCAL ROLE, the claims.

        ``read_only`` is a GET. Committed at the end of the block, rolled back by an error. A statement has 8 s, as on
        Supabase.
        """
        given = {**({"sub": str(sub)} if sub else {}), "role": role, **claims}
        with psycopg.connect(self.authenticator_url) as connection:
            connection.read_only = read_only
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                cursor.execute(
                    "SELECT set_config('request.jwt.claims', %s, true), set_config('statement_timeout', %s, true)",
                    [json.dumps(given), STATEMENT_TIMEOUT],
                )
                yield cursor

    def add_account(self, sub: UUID | str, **claims: object) -> None:
        """Let the hospital admit ``sub`` with ``claims``, as `federation account add` does."""
        accounts.add(self.config, UUID(str(sub)), claims)

    def upgrade(self, release: str = "head") -> Outcome:
        """Both databases up to ``release``, in lockstep."""
        return upgrade(self.config, release)

    def downgrade(self, release: str) -> Outcome:
        """Both databases down to ``release``: an id, ``base``, or ``-1``."""
        return downgrade(self.config, release)

    def load(self, rows: Mapping[str, int | Iterable[Row]]) -> dict[str, list[dict[str, Any]]]:
        """Insert valid rows at the hospital, past its policies; returns them as they are stored, by table.

        ``rows`` holds, by table, a number of rows or what the test cares about of each; the rest is filled in
        (`federation.testing.rows`)::

            pair.load({"hospital_patients": [{"name": "Asha"}], "hospital_queues": 3})
        """
        return self._rows.load(rows)

    @cached_property
    def _rows(self) -> Rows:
        return self.new_rows()

    def new_rows(self) -> Rows:
        """What makes rows for the tables as they are now."""
        return Rows(self.superuser("local"), self.config)

    def point_link(self, host: str, port: int, dbname: str) -> None:
        """Lead the cloud's foreign server elsewhere: the next transaction of every session follows."""
        options = sql.SQL(", ").join(
            sql.SQL("SET {} {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in (("host", host), ("port", str(port)), ("dbname", dbname))
        )
        server = self.config.link.server
        command = sql.SQL("ALTER SERVER {} OPTIONS ({})").format(sql.Identifier(server), options)
        with psycopg.connect(self.servers.cloud.url(dbname=self.cloud_dbname), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_foreign_server WHERE srvname = %s", [server]).rowcount:
                connection.execute(command)

    def restore_link(self) -> None:
        """Lead the foreign server to this pair's hospital."""
        address = self.config.link_address()
        self.point_link(address.host, address.port, self.local_dbname)

    @contextmanager
    def proxied_link(self) -> Iterator[Proxy]:
        """The link leads through a proxy of this machine, which can be slow, silent or down at any moment.

        A transaction that is open already keeps its way. PreconditionMissing where the cloud's server is on another
        machine.
        """
        if self.servers.cloud.host not in {HOST, "localhost", "::1"}:
            raise PreconditionMissing(
                f"the cloud's server is at {self.servers.cloud.host} and cannot reach a proxy of this machine",
                side="cloud",
                hint="run tests of a broken link on servers that the kit starts (no --federation-cloud-server)",
            )
        with Proxy(self.servers.local.port, host=self.servers.local.host) as proxy:
            self.point_link(HOST, proxy.port, self.local_dbname)
            try:
                yield proxy
            finally:
                self.restore_link()

    @contextmanager
    def link_delay(self, milliseconds: float) -> Iterator[None]:
        """Every round trip between cloud and hospital takes so much longer."""
        with self.proxied_link() as proxy:
            proxy.delay = milliseconds / 1000
            yield

    @contextmanager
    def local_down(self) -> Iterator[None]:
        """The hospital as the cloud sees it when its server is down: sessions are lost, new ones refused."""
        with self.proxied_link() as proxy:
            proxy.refuse()
            user, service = (self.config.link_login(role)[0] for role in ("link", "service"))
            with self.superuser("local") as superuser:
                superuser.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND usename IN (%s, %s)",
                    [user, service],
                )
            yield

    @contextmanager
    def local_silent(self) -> Iterator[None]:
        """The hospital as the cloud sees it when it hangs: connections are accepted, nothing is answered.

        A new link session is given up after the link's ``connect_timeout`` up to 15, and from 16 on by the caller's
        statement_timeout alone.
        """
        with self.proxied_link() as proxy:
            proxy.silence()
            yield


def _known(side: Side) -> Side:
    """``side``, which a test may have misspelt: then PreconditionMissing."""
    if side not in SIDES:
        raise PreconditionMissing(f"a pair has no side {side!r}", hint='name "local" (the hospital\'s) or "cloud"')
    return side
