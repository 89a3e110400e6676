"""Two servers: the hospital's, and a cloud that is like Supabase where it matters here."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.resources import files
from types import TracebackType
from typing import Self

from psycopg import sql

from federation.servers.binaries import Binaries, default_binaries
from federation.servers.running import RunningServer
from federation.servers.server import Server

SITE_ID = "00000000-0000-0000-0000-000000000001"
"""The demo's hospital."""

_SUPABASE_ROLES = files(__package__).joinpath("supabase_roles.sql")
_SUPABASE_DATABASE = files(__package__).joinpath("supabase_database.sql")


class RunningPair:
    """Both servers, running: ``local`` with the superuser ``postgres``, ``cloud`` with ``supabase_admin``.

    ``password`` gives each role that this pair logs in with its password; ``link_host`` is how the cloud's server
    finds the hospital's.
    """

    def __init__(self, local: RunningServer, cloud: RunningServer, password: Callable[[str], str]) -> None:
        self.local, self.cloud, self.password = local, cloud, password
        self.link_host = local.host

    def prepare_cloud(self) -> None:
        """Give ``cloud`` the roles of Supabase that it lacks, and those who log in their passwords."""
        with self.cloud.connect() as connection:
            connection.execute(_SUPABASE_ROLES.read_bytes())
        for role in ("postgres", "authenticator"):
            self.cloud.set_password(role, self.password(role))

    def prepare_cloud_database(self, name: str) -> None:
        """Make ``name``, an empty database of ``cloud``, like Supabase's ``postgres``; it can be a template then."""
        with self.cloud.connect(name) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO postgres").format(sql.Identifier(name)))
            connection.execute(_SUPABASE_DATABASE.read_bytes())

    def authenticator_url(self, dbname: str = "postgres") -> str:
        """The URL of PostgREST, which then takes ``anon``, ``authenticated`` or ``service_role`` with SET ROLE."""
        return self.cloud.url("authenticator", self.password("authenticator"), dbname)

    def environment(self, local_dbname: str = "hospital", cloud_dbname: str = "postgres") -> dict[str, str]:
        """Return the FEDERATION_… variables of this pair for these two databases, passwords included.

        The hospital's administrator logs in to ``postgres``, because ``local_dbname`` and its owner ``hospital_owner``
        need not exist yet; the cloud's to ``cloud_dbname``.
        """
        return {
            "FEDERATION_LOCAL_URL": self.local.url("hospital_owner", self.password("hospital_owner"), local_dbname),
            "FEDERATION_CLOUD_URL": self.cloud.url("postgres", self.password("postgres"), cloud_dbname),
            "FEDERATION_LOCAL_ADMIN_URL": self.local.url(),
            "FEDERATION_CLOUD_ADMIN_URL": self.cloud.url(dbname=cloud_dbname),
            "FEDERATION_LINK_HOST": self.link_host,
            "FEDERATION_LINK_PASSWORD": self.password("federation_link"),
            "FEDERATION_SERVICE_PASSWORD": self.password("federation_service"),
            "FEDERATION_SITE_ID": SITE_ID,
        }


class Pair(RunningPair):
    """Both servers, running from ``with`` to the end of it: ``local`` and ``cloud``.

    ``binaries`` are for both unless ``cloud_binaries`` are given; ``settings`` are added to both postgresql.conf,
    ``memory`` is the servers'.
    ``local`` is as an administrator finds it, with the superuser ``postgres``: the hospital's database and roles are
    made by ``federation bootstrap local``. ``cloud`` has Supabase's roles, its database ``postgres`` is prepared, and
    its superuser is ``supabase_admin``.
    """

    def __init__(
        self,
        binaries: Binaries | None = None,
        *,
        cloud_binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
        memory: bool = False,
    ) -> None:
        binaries = binaries or default_binaries()
        settings = dict(settings or {})
        self.local: Server
        self.cloud: Server
        passwords: defaultdict[str, str] = defaultdict(secrets.token_urlsafe)
        super().__init__(
            Server(binaries, superuser="postgres", settings=settings, memory=memory),
            Server(
                cloud_binaries or binaries,
                superuser="supabase_admin",
                settings={"wal_level": "logical"} | settings,  # what Realtime reads from
                memory=memory,
            ),
            passwords.__getitem__,
        )
        self._running = ExitStack()

    def __enter__(self) -> Self:
        # The pool ends first, so both servers have finished starting when one has to be closed for the other's sake.
        with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
            list(pool.map(stack.enter_context, (self.local, self.cloud)))
            self.prepare_cloud()
            self.prepare_cloud_database("postgres")
            self._running = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.__exit__(kind, error, traceback)
