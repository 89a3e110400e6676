"""The cloud's server: the API's roles, postgres_fdw and what the owner may do with it."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from federation.administration.bootstrap.link_roles import refuse_faults
from federation.administration.bootstrap.owners import (
    create_database,
    create_owner,
    create_schema,
    grant_membership,
    role_exists,
    who_owns,
)
from federation.administration.bootstrap.ownership import give_back
from federation.administration.bootstrap.statement import Statement
from federation.config import Config

EXTENSIONS = "extensions"
"""The schema for postgres_fdw if it is not installed yet: Supabase's, which the API does not serve."""


def statements(config: Config) -> Iterator[Statement]:
    """List the statements for the cloud. Raises PreconditionMissing when a setting is missing."""
    owner, database = who_owns(config, "cloud")
    roles = config.roles
    yield from create_owner(config, "cloud")
    yield Statement(
        f"role {roles.sender}, which names the caller to the hospital",
        sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(roles.sender)),
        "maintenance",
        unless=role_exists(roles.sender),
    )
    for name in dict.fromkeys((*roles.callers, *roles.denied)):
        yield Statement(
            f"API role {name}",
            sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)),
            "maintenance",
            unless=role_exists(name),
        )
    for name in roles.bypass:
        yield Statement(
            f"API role {name}, which bypasses row-level security",
            sql.SQL("CREATE ROLE {} NOLOGIN BYPASSRLS").format(sql.Identifier(name)),
            "maintenance",
            unless=role_exists(name),
        )
    yield from grant_membership(owner, roles.sender, f"the owner may hand a function to {roles.sender}")
    yield refuse_faults(config, "cloud", owner)
    yield create_database(config, "cloud")
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
    yield from create_schema(config, owner)
    yield from give_back(config, "cloud")
