"""federation.toml and the environment become one typed, validated object; the environment wins.

Every variable of the interface that holds a secret may also be given as ``NAME_FILE``, a file that holds it. A
setting is asked for where it is needed: `Config.url` says which variable is missing, so that a DBA at the
hospital needs nothing of the cloud's.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import pydantic
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from federation.errors import PreconditionMissing, Side

SSLMode: TypeAlias = Literal["disable", "prefer", "require", "verify-full"]


class _Model(BaseModel):
    """Frozen, and a misspelt key is an error rather than a setting that does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LinkConfig(_Model):
    """How cloud reaches local: the foreign server's address, its timeouts and the two link roles."""

    server: str = "hospital"
    """Name of the foreign server in the cloud; the cloud chain creates it under this name."""
    server_options: dict[str, str] | None = None
    """The server's options that releases set (``fetch_size``, …); address and timeouts are set by `link apply`."""
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    dbname: str | None = None
    sslmode: SSLMode | None = None
    """Default: ``require``, or ``prefer`` when the address is this machine's own."""
    user: str = "federation_link"
    password: SecretStr | None = None
    service_user: str = "federation_service"
    service_password: SecretStr | None = None
    connect_timeout: int = Field(default=5, ge=1)
    """Seconds until the cloud gives up connecting."""
    lock_timeout: str = "5s"
    statement_timeout: str = "30s"
    connection_limit: int | None = Field(default=None, ge=1)
    """Sessions that the hospital admits for the judged callers; `bootstrap local` computes the default."""
    service_connection_limit: int | None = Field(default=None, ge=1)
    """The same for those who bypass row-level security in the cloud."""


class RolesConfig(_Model):
    """The cloud's API roles: who is judged, who bypasses row-level security, who gets nothing."""

    callers: tuple[str, ...] = ("authenticated",)
    bypass: tuple[str, ...] = ("service_role",)
    denied: tuple[str, ...] = ("anon",)
    sender: str = "federation_sender"
    """The NOLOGIN role that owns the function which names the caller to the hospital."""
    read_all: tuple[str, ...] = ()
    """Roles that read everything in the cloud and are trusted: each can act as any listed account (docs/secure.md)."""


class PolicyConfig(_Model):
    """A policy of the exported tables at the hospital, or of the ``tables`` named."""

    name: str
    using: str | None = None
    with_check: str | None = None
    command: Literal["ALL", "SELECT", "INSERT", "UPDATE", "DELETE"] = "ALL"
    roles: tuple[str, ...] = ("public",)
    """Roles by name; ``@link`` and ``@service`` are the link roles."""
    restrictive: bool = False
    """Whether rows need it as well, rather than it or another one: CREATE POLICY … AS RESTRICTIVE."""
    tables: tuple[str, ...] | None = None


Privilege: TypeAlias = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]


IMPORTED = frozenset({"schema_name", "table_name"})
"""A foreign table's options that say which table at the hospital it is."""


class TablesConfig(_Model):
    """What is exported: the app's table names, the same on both sides, and what stands around them.

    What is left out (None) is not managed: neither compared nor generated.
    """

    schema_: str = Field(default="public", alias="schema")
    exported: tuple[str, ...] = ()
    metadata: str | None = None
    """``module:attribute`` of the SQLAlchemy MetaData that declares the local tables."""
    link_schema: str = "federation_link"
    """Where the cloud keeps the foreign tables."""
    options: dict[str, dict[str, str]] = {}
    """Options of single foreign tables (``fetch_size``, …), by table; what is left out is the server's."""
    predicate: str = "(SELECT federation.bind_claims()) IS NOT NULL"
    """The views' WHERE, in a form that postgres_fdw can send."""
    site_column: str | None = None
    """The column that holds the site's id in every row, if the tables have one."""
    site_statistics: bool = False
    """Whether `analyze` lets the cloud's planner know that column: the site's id, and that there is no other."""
    view_grants: dict[str, tuple[Privilege, ...]] | None = None
    """Privileges on the views, by cloud role."""
    link_grants: dict[str, tuple[Privilege, ...]] | None = None
    """Privileges on the local tables: of ``@link``, ``@service`` and the roles that accounts take."""
    policies: tuple[PolicyConfig, ...] | None = None
    """The hospital's policies; empty means that there must be none."""
    comments: dict[str, str] | None = None
    """The views' comments, by table."""

    @pydantic.model_validator(mode="after")
    def _statistics_of_the_site_column(self) -> TablesConfig:
        if self.site_statistics and self.site_column is None:
            raise ValueError("site_statistics are of site_column, which is not given")
        return self

    @pydantic.model_validator(mode="after")
    def _options_of_exported_tables(self) -> TablesConfig:
        for table, options in self.options.items():
            if table not in self.exported:
                raise ValueError(f"options.{table}: {table} is not in tables.exported")
            if own := options.keys() & IMPORTED:
                raise ValueError(f"options.{table}.{min(own)} is set by the import")
        return self

    @pydantic.model_validator(mode="after")
    def _policies_and_comments_of_exported_tables(self) -> TablesConfig:
        for policy in self.policies or ():
            for table in policy.tables or ():
                if table not in self.exported:
                    raise ValueError(f"policies: {policy.name!r} is of {table}, which is no exported table")
        for table in self.comments or {}:
            if table not in self.exported:
                raise ValueError(f"comments.{table}: {table} is not in tables.exported")
        return self


class AccountsConfig(_Model):
    """Whom the hospital admits, for an app whose policies are per user."""

    query: str | None = None
    """A query on the cloud for ``federation account sync``: two columns, ``sub`` (uuid) and ``claims`` (jsonb)."""
    claims: tuple[str, ...] | None = None
    """Keys that claims may have beside sub and role; None allows any, and a sync asks before it adds a new one."""
    roles: tuple[str, ...] = ()
    """Roles that claims may name beside ``roles.callers``: an app's own, which no database knows."""


class DemoConfig(_Model):
    """What ``federation demo`` shows."""

    module: str | None = None
    """The module that holds its rows and queries, as `federation.demo.material` describes it."""


_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""PostgreSQL's units of time: https://www.postgresql.org/docs/current/config-setting.html"""


def seconds(duration: str) -> float:
    """The seconds of a duration as PostgreSQL's settings spell it (``500ms``). Raises ValueError."""
    number, unit = re.fullmatch(r"([0-9.]+) *([a-z]*)", duration.strip()).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit or "ms"]


def _is_duration(text: str) -> str:
    try:
        seconds(text)
    except (AttributeError, KeyError, ValueError):
        raise ValueError("write a number and its unit, as in 500ms, 5s or 1min") from None
    return text


Duration: TypeAlias = Annotated[str, pydantic.AfterValidator(_is_duration)]
"""A time as PostgreSQL's settings spell it."""


class DatabaseConfig(_Model):
    """Limits for the toolkit's own sessions on both databases."""

    lock_timeout: Duration = "500ms"
    """How long a step waits for its locks, and the app behind it. Below the servers' ``deadlock_timeout`` (1 s)."""
    lock_attempts: int = Field(default=20, ge=1)
    """How often a step is tried that does not get its locks within ``lock_timeout``."""
    rewrite_timeout: Duration = "5s"
    """How long the app may be kept waiting while a step writes a table's rows anew."""
    connect_timeout: int = Field(default=10, ge=1)
    """Seconds."""


class Config(_Model):
    """This deployment.

    Secrets are never in federation.toml: a password there is refused. ``root`` is the folder that holds
    federation.toml and alembic.ini.
    """

    root: Path
    env_file: Path | None = None
    """The ``.env`` that gave variables, if one did."""
    site_id: UUID | None = None
    local_url: SecretStr | None = None
    cloud_url: SecretStr | None = None
    local_admin_url: SecretStr | None = None
    cloud_admin_url: SecretStr | None = None
    link: LinkConfig = LinkConfig()
    roles: RolesConfig = RolesConfig()
    tables: TablesConfig = TablesConfig()
    accounts: AccountsConfig = AccountsConfig()
    database: DatabaseConfig = DatabaseConfig()
    demo: DemoConfig = DemoConfig()

    @classmethod
    def load(cls, path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
        """Read ``path`` and ``environ``. The default is the federation.toml of this folder or of the nearest above it.

        Where there is none, the settings are those of ``environ`` alone. Without ``environ`` it is the process's, and a
        file ``.env`` beside federation.toml gives the variables that the process lacks.


        Raises PreconditionMissing, naming the key or variable, when one is malformed.
        """
        file = path or _nearest("federation.toml")
        values = _read_toml(file, required=path is not None)
        env_file = None
        if environ is None:
            environ, found = dict(os.environ), _read_env(file.parent / ".env")
            env_file = file.parent / ".env" if found else None
            given = {name.removesuffix("_FILE") for name, value in environ.items() if value}
            environ |= {name: value for name, value in found.items() if name.removesuffix("_FILE") not in given}
        _refuse_secrets(values, file)
        for variable, keys in _VARIABLES.items():
            value = _variable(environ, variable)
            if value is not None:
                section = values
                for key in keys[:-1]:
                    section = section.setdefault(key, {})
                section[keys[-1]] = value
        try:
            return cls.model_validate({**values, "root": file.resolve().parent, "env_file": env_file})
        except pydantic.ValidationError as error:
            raise PreconditionMissing(
                _describe(error, file), hint=f"correct it in {file} or in the environment"
            ) from None

    def url(self, side: Side, *, admin: bool = False) -> URL:
        """The database of ``side`` as a psycopg URL: its owner's, or with ``admin`` the administrator's.

        Raises PreconditionMissing when the variable is not set or is no URL.
        """
        name = f"{side}_admin_url" if admin else f"{side}_url"
        variable, value = f"FEDERATION_{name.upper()}", getattr(self, name)
        if value is None:
            raise PreconditionMissing(
                f"{variable} is not set",
                side=side,
                hint=f"export {variable}=postgresql://ROLE:PASSWORD@HOST:PORT/DATABASE",
            )
        try:
            url = make_url(value.get_secret_value())
        except (ArgumentError, ValueError):
            url = None
        if url is None or url.get_backend_name() not in {"postgresql", "postgres"} or not url.database:
            raise PreconditionMissing(
                f"{variable} is not a PostgreSQL URL",
                side=side,
                hint="it reads postgresql://ROLE:PASSWORD@HOST:PORT/DATABASE",
            ) from None
        if "@" in f"{url.host or ''}{url.database}":  # the host would be printed, with a part of the password in it
            raise PreconditionMissing(
                f"{variable} holds an @ in its host or database, so a part of the password is read as one of them",
                side=side,
                hint="percent-encode the password: @ is %40, / is %2F, : is %3A",
            )
        return url.set(drivername="postgresql+psycopg")

    def site(self) -> UUID:
        """This hospital's id. Raises PreconditionMissing when it is not set."""
        if self.site_id is None:
            raise PreconditionMissing(
                "FEDERATION_SITE_ID is not set", hint="export FEDERATION_SITE_ID=<the hospital's uuid>"
            )
        return self.site_id

    def link_address(self) -> LinkAddress:
        """Where the cloud finds the hospital: FEDERATION_LINK_*, else the local URL's.

        Raises PreconditionMissing when the local URL only holds a loopback or socket host: the cloud would connect
        to itself. FEDERATION_LINK_HOST may say so all the same, when both run on one machine.
        """
        given = (self.link.host, self.link.port, self.link.dbname)
        local = self.url("local") if None in given else None
        host, port, dbname = (
            given if local is None else (given[0] or local.host, given[1] or local.port, local.database)
        )
        dbname = self.link.dbname or dbname
        if host is None or (self.link.host is None and is_loopback(host)):
            raise PreconditionMissing(
                f"the local URL's host, {host or 'a socket'}, means something else to the cloud's server",
                side="cloud",
                hint="set FEDERATION_LINK_HOST to the address under which the cloud reaches the hospital",
            )
        assert dbname is not None  # noqa: S101  # url() has refused a URL without one
        sslmode = self.link.sslmode or ("prefer" if is_loopback(host) else "require")
        return LinkAddress(host, port or 5432, dbname, sslmode)

    def server_options(self) -> dict[str, str]:
        """The foreign server's options that are this deployment's: address and what bounds a dead or silent hospital.

        A cloud session's own ``lock_timeout`` does not reach the hospital, ``options`` does; times are in seconds,
        ``tcp_user_timeout`` in milliseconds (https://www.postgresql.org/docs/current/libpq-connect.html). It is below
        the 8 s that Supabase gives a caller, so that a dead connection is found before a cancel has to cross it.
        """
        link = self.link
        return {
            **self.link_address().options(),
            "connect_timeout": str(link.connect_timeout),
            "keepalives_idle": "3",
            "keepalives_interval": "1",
            "keepalives_count": "3",
            "tcp_user_timeout": "5000",
            "options": f"-c lock_timeout={link.lock_timeout} -c statement_timeout={link.statement_timeout} "
            "-c client_min_messages=error",
        }

    def link_login(self, role: Literal["link", "service"]) -> tuple[str, str]:
        """User and password of a link role. Raises PreconditionMissing when the password is not set."""
        user, password, variable = (
            (self.link.user, self.link.password, "FEDERATION_LINK_PASSWORD")
            if role == "link"
            else (self.link.service_user, self.link.service_password, "FEDERATION_SERVICE_PASSWORD")
        )
        if password is None or not password.get_secret_value():
            raise PreconditionMissing(
                f"{variable} is not set",
                hint=f"set {variable} or {variable}_FILE to the password of role {user} at the hospital",
            )
        return user, password.get_secret_value()


@dataclass(frozen=True)
class LinkAddress:
    """The address options of the foreign server."""

    host: str
    port: int
    dbname: str
    sslmode: SSLMode

    def options(self) -> dict[str, str]:
        """As libpq names them; without a CA, channel binding makes the server prove that it knows the verifier."""
        options = {"host": self.host, "port": str(self.port), "dbname": self.dbname, "sslmode": self.sslmode}
        if self.sslmode == "require":
            options["channel_binding"] = "require"
        if self.sslmode == "verify-full":
            options["sslrootcert"] = "system"
        return options


_VARIABLES: dict[str, tuple[str, ...]] = {
    "FEDERATION_SITE_ID": ("site_id",),
    "FEDERATION_LOCAL_URL": ("local_url",),
    "FEDERATION_CLOUD_URL": ("cloud_url",),
    "FEDERATION_LOCAL_ADMIN_URL": ("local_admin_url",),
    "FEDERATION_CLOUD_ADMIN_URL": ("cloud_admin_url",),
    "FEDERATION_LINK_HOST": ("link", "host"),
    "FEDERATION_LINK_PORT": ("link", "port"),
    "FEDERATION_LINK_DBNAME": ("link", "dbname"),
    "FEDERATION_LINK_SSLMODE": ("link", "sslmode"),
    "FEDERATION_LINK_USER": ("link", "user"),
    "FEDERATION_LINK_PASSWORD": ("link", "password"),
    "FEDERATION_SERVICE_USER": ("link", "service_user"),
    "FEDERATION_SERVICE_PASSWORD": ("link", "service_password"),
}

_SECRETS = {name for name in _VARIABLES if name.endswith(("_URL", "_PASSWORD"))}


def is_loopback(host: str) -> bool:
    """Whether ``host`` names the machine that asks: a loopback address, ``localhost`` or a socket's folder."""
    if host.startswith(("/", "@")) or host.lower() in {"localhost", "localhost.localdomain", "ip6-localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    value, file = environ.get(name), environ.get(f"{name}_FILE") if name in _SECRETS else None
    if file and value:
        raise PreconditionMissing(f"{name} and {name}_FILE are both set", hint="unset one of them")
    if not file:
        return value or None
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PreconditionMissing(
            f"{name}_FILE names {file}, which cannot be read", hint="check path and permissions"
        ) from error


def _nearest(name: str) -> Path:
    """Find the file in this folder or the nearest one above it; where there is none, it is this folder's."""
    if Path(name).is_file():
        return Path(name)
    return next((folder / name for folder in Path.cwd().parents if (folder / name).is_file()), Path(name))


_ASSIGNMENT = re.compile(r"""(?:export\s+)?(FEDERATION_\w+)=(?:'([^']*)'|"([^"]*)"|(.*))""")


def _read_env(file: Path) -> dict[str, str]:
    """Read the FEDERATION_… variables of a ``.env``: NAME=value a line, quoted or not; nothing is expanded."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise PreconditionMissing(f"{file} cannot be read", hint="check its permissions, or remove it") from error
    found = (_ASSIGNMENT.fullmatch(line.strip()) for line in lines)
    return {match[1]: next((text for text in match.groups()[1:] if text is not None), "") for match in found if match}


def _read_toml(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise PreconditionMissing(f"there is no {file}", hint="name an existing file with --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PreconditionMissing(f"{file} cannot be read", hint="check its permissions") from error
    except tomllib.TOMLDecodeError as error:
        raise PreconditionMissing(f"{file} is not TOML: {error}", hint="correct it") from error


def _refuse_secrets(values: Mapping[str, object], file: Path) -> None:
    for variable in sorted(_SECRETS):
        keys = _VARIABLES[variable]
        section: object = values
        for key in keys:
            section = section.get(key) if isinstance(section, Mapping) else None
        if section is not None:
            raise PreconditionMissing(
                f"{file} holds {'.'.join(keys)}, and secrets do not belong in a file that is committed",
                hint=f"remove it there and set {variable} or {variable}_FILE",
            )


def _describe(error: pydantic.ValidationError, file: Path) -> str:
    """The first complaint, without the value: it may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = tuple(str(part) for part in first["loc"])
    variable = next((name for name, keys in _VARIABLES.items() if keys == place), None)
    return f"setting {'.'.join(place)}{f' ({variable})' if variable else ''} in {file} is wrong: {first['msg']}"
