"""Templates, migrated once a session and release, and pairs of databases cloned from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor

from federation import guard
from federation.administration import bootstrap
from federation.config import Config
from federation.databases import SIDES, connect
from federation.errors import PreconditionMissing, Refused, Side
from federation.lockstep import Releases, upgrade
from federation.servers.pair import Pair, RunningPair
from federation.servers.running import RunningServer
from federation.testing.pair import FederationPair

Names = dict[Side, str]
"""The databases' names by side."""

ROLES_LOCK = 0x666564_746573
"""Key of the advisory lock under which roles, which belong to a whole server, are made (the bytes spell ``fedtes``)."""


class Databases:
    """From ``with`` to the end of it: the databases of one test session, whose names all begin with ``label``.

    ``file`` is the federation.toml whose chains are run. Nobody else on ``servers`` uses the label. ``load`` names, by
    side, SQL files that the owner runs on the empty database: what an app has there beside its chains.
    """

    def __init__(
        self,
        servers: RunningPair,
        file: Path,
        label: str = "federation",
        *,
        load: Mapping[Side, Sequence[Path]] | None = None,
    ) -> None:
        self.servers, self.file, self.label, self.load = servers, file, label, load or {}
        self.templates: dict[str | None, Names] = {}
        self._numbers = itertools.count(1)
        self._both, self._behind = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
        self._dropping: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if not isinstance(self.servers, Pair):  # ours go away as a whole
            for names in self.templates.values():
                self._drop(names)
        self._both.shutdown()
        self._behind.shutdown()
        for dropped in self._dropping:
            dropped.result()

    @cached_property
    def releases(self) -> Releases:
        """Both chains. Raises Refused where they do not pair up."""
        return Releases.load(Config.load(self.file, {}))

    def server(self, side: Side) -> RunningServer:
        """The server of ``side``."""
        return self.servers.local if side == "local" else self.servers.cloud

    def pair_of(self, names: Names) -> FederationPair:
        """What a test gets for two databases that are there."""
        return FederationPair(self.servers, names["local"], names["cloud"], self.file)

    def template(self, release: str = "head") -> Names:
        """The databases at ``release``, made when they are first asked for; nobody stays connected to them."""
        return self._template(self.releases.at(self.releases.position(release)))

    @contextmanager
    def make_pair(self, release: str = "head", *, local: str | None = None) -> Iterator[FederationPair]:
        """A new pair at ``release``, dropped at the end; with ``local`` the hospital is at another one.

        Refused where no upgrade leads there: the hospital would lack what the cloud needs.
        """
        if local is not None:
            self._require_fit(local, release)
        names = self.template(release)
        if local is not None:
            names = names | {"local": self.template(local)["local"]}
        clones = self._clone(names)
        pair = self.pair_of(clones)
        with ExitStack() as stack:
            stack.callback(self._drop, clones)
            stack.callback(pair.close)
            pair.restore_link()
            if local is not None:
                with connect(pair.config, "local") as hospital, connect(pair.config, "cloud") as cloud:
                    guard.settle(hospital, cloud)
            yield pair

    def _require_fit(self, local: str, cloud: str) -> None:
        at, position = self.releases.at, self.releases.position(cloud)
        fitting = [n for n in range(len(self.releases.ids) + 1) if self.releases.fit(n, position)]
        if self.releases.position(local) not in fitting:
            raise Refused(
                f"a hospital at {local} does not have what a cloud at {cloud} needs: the hospital goes first through "
                "expand releases, the cloud through contract releases",
                hint=f"with the cloud at {cloud}, local is one of {', '.join(at(n) or 'base' for n in fitting)}",
            )

    def _template(self, release: str | None) -> Names:
        if release not in self.templates:
            names: Names = {side: f"{self.label}_{release or 'base'}_{side}_tmpl" for side in SIDES}
            try:
                if release is None:
                    self._make_base(names)
                else:
                    below = [None, *self.releases.ids[: self.releases.position(release) - 1]]
                    nearest = next(one for one in reversed(below) if one in self.templates or one is None)
                    self._clone(self._template(nearest), names)
                    pair = self.pair_of(names)
                    pair.restore_link()
                    upgrade(pair.config, release)
            except BaseException:
                for side in SIDES:
                    self._janitor(side, names[side]).drop()
                raise
            self.templates[release] = names
        return self.templates[release]

    def _make_base(self, names: Names) -> None:
        """What administrators leave: both databases and their roles, as `federation bootstrap` makes them."""
        config = self.pair_of(names).config
        self._janitor("cloud", names["cloud"]).init()
        self.servers.prepare_cloud_database(names["cloud"])
        with self.servers.local.connect() as local, self.servers.cloud.connect() as cloud:
            for server in (local, cloud):  # until they are closed
                server.execute("SELECT pg_advisory_lock(%s)", [ROLES_LOCK])
            for side in SIDES:
                bootstrap.apply(config, side)
            quicken_logins(self.servers, config)
        for side, files in self.load.items():
            with psycopg.connect(self.pair_of(names).url(side), autocommit=True) as owner:
                for file in files:
                    try:
                        owner.execute(file.read_bytes())
                    except (OSError, psycopg.Error) as error:
                        raise PreconditionMissing(
                            f"{file} cannot be run ({str(error).splitlines()[0]})",
                            side=side,
                            hint=f"correct it, or federation_{side}_load in pytest's ini file",
                        ) from error

    def _janitor(self, side: Side, name: str, template: str | None = None) -> DatabaseJanitor:
        server = self.server(side)
        return DatabaseJanitor(
            user=server.superuser,
            password=server.password,
            host=server.host,
            port=server.port,
            dbname=name,
            template_dbname=template,
            connection_timeout=0,  # they run: there is nothing to wait for
        )

    def _clone(self, templates: Names, names: Names | None = None) -> Names:
        """Both copies, side by side."""
        number = next(self._numbers)
        copies: Names = names or {side: f"{self.label}_{number}_{side}" for side in SIDES}

        def clone(side: Side) -> None:
            self._janitor(side, copies[side], templates[side]).init()
            with self.server(side).connect() as connection:
                connection.execute(
                    _LIKE_ITS_TEMPLATE.format(template=sql.Literal(templates[side]), copy=sql.Literal(copies[side]))
                )
            with self.server(side).connect(copies[side]) as connection:
                connection.execute(_OF_NO_OTHER_PAIR)

        list(self._both.map(clone, SIDES))
        return copies

    def _drop(self, names: Names) -> None:
        """Behind the next test's back: a session that is just ending keeps a DROP DATABASE waiting for 0.1 s."""
        # The cloud first: with its sessions those of the link end.
        self._dropping += [self._behind.submit(self._janitor(side, names[side]).drop) for side in reversed(SIDES)]


def quicken_logins(servers: RunningPair, config: Config) -> None:
    """Verifiers of one iteration for the hospital's roles, whose passwords are the servers' random ones.

    The 4,096 of bootstrap's are much of what a session costs, at both ends.
    """
    owner = ("hospital_owner", servers.password("hospital_owner"))
    for role, password in (owner, config.link_login("link"), config.link_login("service")):
        servers.local.set_password(role, password)


# A copy is another database than the one whose row it has, which is what a restore looks like.
_OF_NO_OTHER_PAIR = """
    DO $$
    BEGIN
        IF to_regclass('federation.pair') IS NOT NULL THEN
            DELETE FROM federation.pair;
        END IF;
    END $$
"""

# CREATE DATABASE copies what is in a database, not what the server knows about it: owner, privileges, settings of
# roles in it. FROM CURRENT keeps lists what they are (https://www.postgresql.org/docs/current/sql-alterrole.html).
_LIKE_ITS_TEMPLATE = sql.SQL(
    """
    DO $$
    DECLARE
        template record;
        found record;
    BEGIN
        SELECT oid, datdba::regrole AS owner, datacl INTO STRICT template FROM pg_database WHERE datname = {template};
        EXECUTE format('ALTER DATABASE %I OWNER TO %s', {copy}, template.owner);
        IF template.datacl IS NOT NULL THEN
            EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {copy});
        END IF;
        FOR found IN SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role
            FROM aclexplode(template.datacl)
        LOOP
            EXECUTE format('GRANT %s ON DATABASE %I TO %s', found.privilege_type, {copy}, found.role);
        END LOOP;
        FOR found IN SELECT setrole, split_part(setting, '=', 1) AS name,
            substr(setting, strpos(setting, '=') + 1) AS value
            FROM pg_db_role_setting, unnest(setconfig) AS setting WHERE setdatabase = template.oid
        LOOP
            PERFORM set_config(found.name, found.value, true);
            EXECUTE CASE found.setrole
                WHEN 0 THEN format('ALTER DATABASE %I SET %I FROM CURRENT', {copy}, found.name)
                ELSE format('ALTER ROLE %s IN DATABASE %I SET %I FROM CURRENT',
                    found.setrole::regrole, {copy}, found.name)
            END;
        END LOOP;
    END $$
    """
)
