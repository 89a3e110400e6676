"""Make the owner's role, database and schema, which both servers need, and other roles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from psycopg import pq, sql

from federation.administration.bootstrap.statement import Statement
from federation.config import Config
from federation.errors import PreconditionMissing, Side

_POOLED = re.compile(r"\.[a-z0-9]{20}@|\.pooler\.supabase\.com$")
"""Supabase's poolers read the project from the login: https://supabase.com/docs/guides/database/connecting-to-postgres"""


def who_owns(config: Config, side: Side) -> tuple[str, str]:
    """Return the role and the database of the owner's URL. Raises PreconditionMissing if it names none."""
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


def create_owner(config: Config, side: Side) -> Iterator[Statement]:
    """Make the owner's role and, at the hospital, its password."""
    owner, database = who_owns(config, side)
    password = config.url(side).password
    secret = sql.SQL(" PASSWORD {}").format(verifier(owner, str(password))) if password else sql.SQL("")
    yield Statement(
        f"role {owner}, the owner of database {database}",
        sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER{}").format(sql.Identifier(owner), secret),
        "maintenance",
        unless=role_exists(owner),
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


def create_database(config: Config, side: Side) -> Statement:
    """Make the owner's database."""
    owner, database = who_owns(config, side)
    return Statement(
        f"database {database}",
        sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(owner)),
        "maintenance",
        unless=sql.SQL("SELECT 1 FROM pg_database WHERE datname = {}").format(sql.Literal(database)),
        transactional=False,
    )


def create_schema(config: Config, owner: str) -> Iterator[Statement]:
    """Make the schema of the app's tables or views, as the owner's, so that its releases can grant USAGE on it.

    The owner of a database may create schemas in it, but may not create in a schema that somebody else owns.
    """
    schema = config.tables.schema_
    yield Statement(
        f"schema {schema}",
        sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(sql.Identifier(schema), sql.Identifier(owner)),
        unless=sql.SQL("SELECT 1 FROM pg_namespace WHERE nspname = {}").format(sql.Literal(schema)),
    )
    yield Statement(
        f"the owner may create in schema {schema}",
        sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(sql.Identifier(schema), sql.Identifier(owner)),
        unless=sql.SQL(
            "SELECT 1 WHERE has_schema_privilege({0}, {1}, 'USAGE') AND has_schema_privilege({0}, {1}, 'CREATE')"
        ).format(sql.Literal(owner), sql.Literal(schema)),
    )


def grant_usage(config: Config, names: Iterable[str]) -> Iterator[Statement]:
    """Let each role use the schema of the app's tables: without USAGE, no privilege on a table counts."""
    schema = config.tables.schema_
    for name in names:
        yield Statement(
            f"{name} may use schema {schema}",
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), sql.Identifier(name)),
            unless=sql.SQL("SELECT 1 WHERE has_schema_privilege({}, {}, 'USAGE')").format(
                sql.Literal(name), sql.Literal(schema)
            ),
        )


def grant_membership(member: str, role: str, why: str) -> Iterator[Statement]:
    """Let ``member`` become ``role`` and inherit nothing. Since 16 a role's creator is a member, but without SET."""
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
        unless=sql.SQL(
            "{} AND NOT EXISTS (SELECT FROM pg_auth_members AS m WHERE m.member = {}::regrole "
            "AND m.roleid = {}::regrole AND (to_jsonb(m) ->> 'inherit_option')::boolean)"
        ).format(
            unless.format(sql.SQL("<"), *names, sql.Literal("SET")),
            *(sql.Literal(sql.Identifier(name).as_string(None)) for name in (member, role)),
        ),
    )
    yield Statement(
        f"{why} (PostgreSQL 15)",
        grant,
        "maintenance",
        unless=unless.format(sql.SQL(">="), *names, sql.Literal("MEMBER")),
    )


def role_exists(name: str) -> sql.Composed:
    """Return a SELECT that finds the role if it exists."""
    return sql.SQL("SELECT 1 FROM pg_roles WHERE rolname = {}").format(sql.Literal(name))


def verifier(user: str, password: str) -> sql.Literal:
    """Return the verifier that the server stores for ``password``. libpq makes it without a server."""
    connection = pq.PGconn.connect_start(b"host=/nonexistent")
    try:
        verifier = connection.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
    finally:
        connection.finish()
    return sql.Literal(verifier.decode())
