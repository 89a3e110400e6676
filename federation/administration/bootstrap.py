"""What an administrator runs once on either server: roles, database, extension and privileges.

Roles belong to a cluster and chains to a database, so no migration makes them. The same list of statements is
printed for psql or applied; a second run changes nothing but verifiers and settings. No password is in it: libpq
hashes it here, and the server receives the SCRAM verifier.

https://www.postgresql.org/docs/current/sql-createrole.html
https://www.postgresql.org/docs/current/app-psql.html (``\\gexec``)
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from psycopg import pq, sql
from pydantic import SecretStr
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from federation.config import Config
from federation.databases import connect
from federation.errors import PreconditionMissing, Side, Unreachable

Database: TypeAlias = Literal["maintenance", "target"]
"""``maintenance`` is the one that the administrator's URL names, ``target`` the owner's, which may not exist yet."""

EXTENSIONS = "extensions"
"""Where postgres_fdw goes if it is not there yet: Supabase's name for it, and not in reach of the API."""

IDLE_TIMEOUT = "60s"
"""How long a link session may hold its transaction, and with it locks, without asking for anything."""

TEMP_FILE_LIMIT = "1GB"
"""How much disk one link session's sorts may take."""


_POOLED = re.compile(r"\.[a-z0-9]{20}@|\.pooler\.supabase\.com$")
"""Supabase's poolers are told the project in the login: https://supabase.com/docs/guides/database/connecting-to-postgres"""


@dataclass(frozen=True)
class Statement:
    """One command: ``why`` it is run, in which ``database``, and ``unless`` a SELECT finds that it is done already.

    ``transactional`` is false for what PostgreSQL runs only outside a transaction block.
    """

    why: str
    command: sql.Composable
    database: Database = "target"
    unless: sql.Composable | None = None
    transactional: bool = True


@dataclass(frozen=True)
class Outcome:
    """What ``apply`` did: the ``why`` of the statements that ran, and of those that were not needed."""

    done: tuple[str, ...]
    present: tuple[str, ...]


def statements(config: Config, side: Side) -> list[Statement]:
    """What an administrator runs on ``side``, in this order.

    Raises PreconditionMissing when a setting is missing (the owner's URL; for local both link passwords too).
    """
    return list(_local(config) if side == "local" else _cloud(config))


def render(config: Config, side: Side) -> str:
    """The statements as a commented script for psql, without its last line break; raises as `statements` does.

    It holds verifiers and no password.
    """
    owner, database = _owner(config, side)
    admin = "a superuser" if side == "local" else "a superuser (on Supabase: postgres)"
    lines = [
        *_comment(f"federation bootstrap {side}: makes what the owner {owner} of database {database} needs."),
        *_comment(f"Run it once, as {admin}: psql --file FILE 'postgresql://ADMIN@HOST/postgres'"),
        *_comment("A second run changes nothing but passwords and settings; verifiers are in here, no passwords."),
        "",
        "\\set ON_ERROR_STOP on",
    ]
    current: Database = "maintenance"
    for (where, transactional), group in _groups(statements(config, side)):
        if where != current:
            current = where
            lines += ["", f"\\connect -reuse-previous=on {_conninfo(database)}"]
        block = [line for statement in group for line in ("", *_printed(statement))]
        lines += ["", "BEGIN;", *block, "", "COMMIT;"] if transactional else block
    return "\n".join([*lines, "", *_notes(config, side)]).rstrip()


def apply(config: Config, side: Side) -> Outcome:
    """Run the statements over FEDERATION_{SIDE}_ADMIN_URL; each database's in one transaction.

    Raises PreconditionMissing (a setting, or a right that the administrator lacks), Unreachable, or Refused when a
    link role exists that row-level security would not judge.
    """
    todo = statements(config, side)
    admin = config.url(side, admin=True)
    target = admin.set(database=_owner(config, side)[1])
    on_target = config.model_copy(update={f"{side}_admin_url": SecretStr(target.render_as_string(hide_password=False))})
    done: list[str] = []
    present: list[str] = []
    for (where, transactional), group in _groups(todo):
        with _admin_session(on_target if where == "target" else config, side) as session:
            connection = session if transactional else session.execution_options(isolation_level="AUTOCOMMIT")
            with connection.begin():
                for statement in group:
                    (done if _run(connection, statement) else present).append(statement.why)
    return Outcome(tuple(done), tuple(present))


def _local(config: Config) -> Iterator[Statement]:
    owner, database = _owner(config, "local")
    link, service = config.link_login("link"), config.link_login("service")
    logins = (link, config.link.connection_limit), (service, max(1, config.link.connection_limit // 3))
    if len({owner, link[0], service[0]}) < 3:
        raise PreconditionMissing(
            f"the owner {owner} and the link roles {link[0]} and {service[0]} are not three different roles",
            side="local",
            hint="set FEDERATION_LINK_USER and FEDERATION_SERVICE_USER to roles of their own",
        )
    yield _refuse_unjudged((link[0], service[0]), owner)
    yield from _owner_role(config, "local")
    for (user, password), limit in logins:
        yield Statement(
            f"link role {user}",
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT NOCREATEDB NOCREATEROLE").format(
                sql.Identifier(user)
            ),
            "maintenance",
            unless=_role_exists(user),
        )
        yield Statement(
            f"what {user} may be, and its password",
            sql.SQL("ALTER ROLE {} LOGIN NOINHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT {} PASSWORD {}").format(
                sql.Identifier(user), sql.Literal(limit), _verifier(user, password)
            ),
            "maintenance",
        )
    for name in config.roles.callers:
        yield Statement(
            f"role {name}, which the app's policies name",
            sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(name)),
            "maintenance",
            unless=_role_exists(name),
        )
        yield from _membership(link[0], name, f"{link[0]} may act as {name} for an account of that role")
    yield _database(config, "local")
    yield Statement(
        "nobody enters or makes temporary objects unless named",
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)),
    )
    yield Statement(
        "the owner may do all in its database",
        sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(sql.Identifier(database), sql.Identifier(owner)),
    )
    yield Statement(
        "the link roles may enter",
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
            sql.Identifier(database), sql.SQL(", ").join(map(sql.Identifier, (link[0], service[0])))
        ),
    )
    yield Statement(
        "only the owner makes objects in schema public",
        sql.SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        unless=sql.SQL(
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM pg_namespace "
            "WHERE nspname = 'public' AND has_schema_privilege('public', oid, 'CREATE'))"
        ),
    )
    yield from _schema(config, owner)
    for (user, _), _limit in logins:
        yield from _bounds(config, user, database)


def _bounds(config: Config, user: str, database: str) -> Iterator[Statement]:
    """A caller in the cloud can choose expensive expressions and hold locks; only the hospital can bound that."""
    settings = {
        "lock_timeout": config.link.lock_timeout,
        "statement_timeout": config.link.statement_timeout,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        "temp_file_limit": TEMP_FILE_LIMIT,
    }
    for name, value in settings.items():
        yield Statement(
            f"{name} of {user}",
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                sql.Identifier(user), sql.Identifier(database), sql.Identifier(name), sql.Literal(value)
            ),
            # Superusers' own, or theirs to whom one granted it.
            unless=sql.SQL("SELECT 1 WHERE NOT has_parameter_privilege('temp_file_limit', 'SET')")
            if name == "temp_file_limit"
            else None,
        )


def _cloud(config: Config) -> Iterator[Statement]:
    owner, database = _owner(config, "cloud")
    roles = config.roles
    yield from _owner_role(config, "cloud")
    yield Statement(
        f"role {roles.sender}, which names the caller to the hospital",
        sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(roles.sender)),
        "maintenance",
        unless=_role_exists(roles.sender),
    )
    for name in dict.fromkeys((*roles.callers, *roles.denied)):
        yield Statement(
            f"API role {name}",
            sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)),
            "maintenance",
            unless=_role_exists(name),
        )
    for name in roles.bypass:
        yield Statement(
            f"API role {name}, which bypasses row-level security",
            sql.SQL("CREATE ROLE {} NOLOGIN BYPASSRLS").format(sql.Identifier(name)),
            "maintenance",
            unless=_role_exists(name),
        )
    yield from _membership(owner, roles.sender, f"the owner may hand a function to {roles.sender}")
    yield _database(config, "cloud")
    yield Statement(
        f"schema {EXTENSIONS}, out of the API's reach",
        sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(EXTENSIONS)),
        unless=sql.SQL(
            "SELECT 1 FROM pg_namespace WHERE nspname = {} UNION ALL "
            "SELECT 1 FROM pg_extension WHERE extname = 'postgres_fdw'"
        ).format(sql.Literal(EXTENSIONS)),
    )
    yield Statement(
        "extension postgres_fdw",
        sql.SQL("CREATE EXTENSION IF NOT EXISTS postgres_fdw WITH SCHEMA {}").format(sql.Identifier(EXTENSIONS)),
        unless=sql.SQL("SELECT 1 FROM pg_extension WHERE extname = 'postgres_fdw'"),
    )
    yield Statement(
        "the owner may make a foreign server",
        sql.SQL("GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {}").format(sql.Identifier(owner)),
        unless=sql.SQL("SELECT 1 WHERE has_foreign_data_wrapper_privilege({}, 'postgres_fdw', 'USAGE')").format(
            sql.Literal(owner)
        ),
    )
    yield Statement(
        "the owner may make schemas, and the temporary table that hides a password from the logs",
        sql.SQL("GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {} TO {}").format(
            sql.Identifier(database), sql.Identifier(owner)
        ),
        # One call each: of several privileges in one call, any would do.
        unless=sql.SQL(
            "SELECT 1 WHERE has_database_privilege({0}, {1}, 'CREATE') "
            "AND has_database_privilege({0}, {1}, 'CONNECT') AND has_database_privilege({0}, {1}, 'TEMPORARY')"
        ).format(sql.Literal(owner), sql.Literal(database)),
    )
    yield from _schema(config, owner)


def _owner_role(config: Config, side: Side) -> Iterator[Statement]:
    owner, database = _owner(config, side)
    password = config.url(side).password
    secret = sql.SQL(" PASSWORD {}").format(_verifier(owner, str(password))) if password else sql.SQL("")
    yield Statement(
        f"role {owner}, the owner of database {database}",
        sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER{}").format(sql.Identifier(owner), secret),
        "maintenance",
        unless=_role_exists(owner),
    )
    if password and side == "local":
        # In the cloud the owner is the platform's own role. Nor is it for us to give a superuser another password.
        yield Statement(
            f"the password of {owner}",
            sql.SQL("ALTER ROLE {}{}").format(sql.Identifier(owner), secret),
            "maintenance",
            unless=sql.SQL("SELECT 1 FROM pg_roles WHERE rolname = {} AND (rolsuper OR rolname = current_user)").format(
                sql.Literal(owner)
            ),
        )


def _database(config: Config, side: Side) -> Statement:
    owner, database = _owner(config, side)
    return Statement(
        f"database {database}",
        sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(owner)),
        "maintenance",
        unless=sql.SQL("SELECT 1 FROM pg_database WHERE datname = {}").format(sql.Literal(database)),
        transactional=False,
    )


def _schema(config: Config, owner: str) -> Iterator[Statement]:
    """The owner makes the app's tables or views in their own schema; ALL ON DATABASE does not include that."""
    schema = config.tables.schema_
    yield Statement(
        f"schema {schema}",
        sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)),
        unless=sql.SQL("SELECT 1 FROM pg_namespace WHERE nspname = {}").format(sql.Literal(schema)),
    )
    yield Statement(
        f"the owner may create in schema {schema}",
        sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(sql.Identifier(schema), sql.Identifier(owner)),
        unless=sql.SQL(
            "SELECT 1 WHERE has_schema_privilege({0}, {1}, 'USAGE') AND has_schema_privilege({0}, {1}, 'CREATE')"
        ).format(sql.Literal(owner), sql.Literal(schema)),
    )


def _membership(member: str, role: str, why: str) -> Iterator[Statement]:
    """``member`` may become ``role``. Who creates a role is a member since 16, but without SET."""
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(member))
    unless = sql.SQL(
        "SELECT 1 WHERE CASE WHEN current_setting('server_version_num')::int {} 160000 THEN true "
        "ELSE pg_has_role({}, {}, {}) END"
    )
    names = sql.Literal(member), sql.Literal(role)
    yield Statement(
        f"{why} (PostgreSQL 16 and later)",
        sql.SQL("{} WITH INHERIT FALSE, SET TRUE").format(grant),
        "maintenance",
        unless=unless.format(sql.SQL("<"), *names, sql.Literal("SET")),
    )
    yield Statement(
        f"{why} (PostgreSQL 15)",
        grant,
        "maintenance",
        unless=unless.format(sql.SQL(">="), *names, sql.Literal("MEMBER")),
    )


def _refuse_unjudged(link_roles: tuple[str, ...], owner: str) -> Statement:
    """An existing link role that bypasses the hospital's policies, itself or through a role that it may become."""
    body = sql.SQL(
        """
DECLARE
    unjudged record;
BEGIN
    SELECT r.rolname AS link_role, m.rolname AS through INTO unjudged
        FROM pg_roles AS r JOIN pg_roles AS m ON pg_has_role(r.oid, m.oid, 'MEMBER')
        WHERE r.rolname IN ({link_roles})
            AND (m.rolsuper OR m.rolbypassrls OR m.rolreplication OR m.rolname = {owner})
        ORDER BY r.oid <> m.oid LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ZF008',
            MESSAGE = format('link role %s passes by row-level security, as %s', unjudged.link_role, unjudged.through),
            HINT = 'set FEDERATION_LINK_USER and FEDERATION_SERVICE_USER to roles without that right';
    END IF;
END """
    ).format(link_roles=sql.SQL(", ").join(map(sql.Literal, link_roles)), owner=sql.Literal(owner))
    return Statement(
        "refused if a link role exists that row-level security would not judge",
        sql.SQL("DO {}").format(_dollar_quoted(body)),
        "maintenance",
    )


def _role_exists(name: str) -> sql.Composed:
    return sql.SQL("SELECT 1 FROM pg_roles WHERE rolname = {}").format(sql.Literal(name))


def _owner(config: Config, side: Side) -> tuple[str, str]:
    """The role and the database of the owner's URL. Raises PreconditionMissing where it names none."""
    url = config.url(side)
    if not url.username or not url.database:
        raise PreconditionMissing(
            f"FEDERATION_{side.upper()}_URL names no role",
            side=side,
            hint="it reads postgresql://ROLE:PASSWORD@HOST:PORT/DATABASE",
        )
    if side == "cloud" and _POOLED.search(f"{url.username}@{url.host}"):
        raise PreconditionMissing(
            f"FEDERATION_CLOUD_URL is Supabase's pooler's, whose login {url.username} is no role",
            side=side,
            hint="set it to the direct connection's URL (postgresql://postgres:PASSWORD@db.PROJECT.supabase.co:5432/"
            "postgres)",
        )
    return url.username, url.database


def _verifier(user: str, password: str) -> sql.Literal:
    """What the server stores in place of ``password``. libpq makes it, and needs a connection object but no server."""
    connection = pq.PGconn.connect_start(b"host=/nonexistent")
    try:
        verifier = connection.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
    finally:
        connection.finish()
    return sql.Literal(verifier.decode())


@contextmanager
def _admin_session(config: Config, side: Side) -> Iterator[Connection]:
    """A session of the administrator, whose errors name the administrator's URL and not the owner's."""
    variable = f"FEDERATION_{side.upper()}_ADMIN_URL"
    try:
        with connect(config, side, admin=True) as connection:
            # Nothing is bound, so a percent sign in a name stays what it is.
            yield connection.execution_options(no_parameters=True)
    except Unreachable as error:
        error.hint = f"check {variable} and that the server runs"
        raise
    except PreconditionMissing as error:
        if isinstance(error.__cause__, DBAPIError):
            error.hint = f"let a superuser run it (on Supabase: postgres); {variable} names the role"
        raise


def _run(connection: Connection, statement: Statement) -> bool:
    """Whether the statement was needed, and ran."""
    unless = statement.unless
    if unless is not None and connection.exec_driver_sql(unless.as_string(None)).first() is not None:
        return False
    connection.exec_driver_sql(statement.command.as_string(None))
    return True


def _groups(todo: list[Statement]) -> Iterator[tuple[tuple[Database, bool], Iterable[Statement]]]:
    """Neighbours that share a database and a transaction."""
    return itertools.groupby(todo, key=lambda statement: (statement.database, statement.transactional))


def _printed(statement: Statement) -> list[str]:
    """For psql: a query whose result ``\\gexec`` runs, if there is a condition."""
    comment = _comment(statement.why)
    if statement.unless is None:
        return [*comment, f"{statement.command.as_string(None)};"]
    return [
        *comment,
        f"SELECT {_dollar_quoted(statement.command).as_string(None)}",
        f"WHERE NOT EXISTS ({statement.unless.as_string(None)}) \\gexec",
    ]


def _notes(config: Config, side: Side) -> list[str]:
    """What no statement can do."""
    _, database = _owner(config, side)
    if side == "cloud":
        return _comment(
            "If the app's callers make no temporary tables, take that right away, too:\n"
            + sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC;").format(sql.Identifier(database)).as_string(None)
        )
    users = ",".join(map(_hba_name, (config.link.user, config.link.service_user)))
    return [
        *_comment(
            "pg_hba.conf, above its other lines; then SELECT pg_reload_conf(). The link roles come from the cloud's"
        ),
        *_comment(
            "address, over TLS, with a password, and from nowhere else; with trust the cloud refuses to connect."
        ),
        *_comment(f"hostssl  {_hba_name(database)}  {users}  <the cloud's address>/32  scram-sha-256"),
        *_comment(f"host     all  {users}  all  reject"),
    ]


def _hba_name(name: str) -> str:
    """https://www.postgresql.org/docs/current/auth-pg-hba-conf.html: quoted, a name has no special meaning."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _comment(text: str) -> list[str]:
    """Every line of it: a line break in a name must not end the comment."""
    return [f"-- {line}".rstrip() for line in text.splitlines()]


def _dollar_quoted(text: sql.Composable) -> sql.SQL:
    """``text`` as a string constant that stays readable."""
    body = text.as_string(None)
    tag = next(tag for n in itertools.count() if (tag := f"$fed{n or ''}$") not in body)
    return sql.SQL(f"{tag}{body}{tag}")


def _conninfo(database: str) -> str:
    """The database as psql's ``\\connect`` reads it, whatever it is called; as pg_dump writes it."""
    value = database.replace("\\", "\\\\").replace("'", "\\'")
    return '"' + f"dbname='{value}'".replace('"', '""') + '"'
