"""The hospital's server: owner, link roles and their bounds, the roles that the app's policies name."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from federation.administration.bootstrap.link_roles import create_link_roles, refuse_faults, set_settings
from federation.administration.bootstrap.owners import (
    create_database,
    create_owner,
    create_schema,
    grant_membership,
    grant_usage,
    role_exists,
    who_owns,
)
from federation.administration.bootstrap.ownership import give_back
from federation.administration.bootstrap.statement import Statement
from federation.config import Config
from federation.errors import PreconditionMissing
from federation.roles import bound


def statements(config: Config) -> Iterator[Statement]:
    """List the statements for the hospital. Raises PreconditionMissing when a setting is missing."""
    owner, database = who_owns(config, "local")
    link, service = bound(config, "local")
    if len({owner, link, service}) < 3:
        raise PreconditionMissing(
            f"the owner {owner} and the link roles {link} and {service} are not three different roles",
            side="local",
            hint="set FEDERATION_LINK_USER and FEDERATION_SERVICE_USER to roles of their own",
        )
    yield from create_owner(config, "local")
    yield _grant_predefined(owner, "pg_read_all_stats", "the owner sees who holds a lock that a release waits for")
    yield _grant_predefined(owner, "pg_signal_backend", "the owner may end idle link sessions when the link is full")
    yield from create_link_roles(config, owner, database)
    for name in config.roles.callers:
        yield Statement(
            f"role {name}, which the app's policies name",
            sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(name)),
            "maintenance",
            unless=role_exists(name),
        )
        yield from grant_membership(link, name, f"{link} may act as {name} for an account of that role")
    yield refuse_faults(config, "local", owner)
    yield create_database(config, "local")
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
            sql.Identifier(database), sql.SQL(", ").join(map(sql.Identifier, (link, service)))
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
    yield from create_schema(config, owner)
    yield from grant_usage(config, (link, service, *config.roles.callers))
    yield from set_settings(config, database)
    yield from give_back(config, "local")


def _grant_predefined(owner: str, role: str, why: str) -> Statement:
    """Grant it only if the administrator may; releases work without it."""
    return Statement(
        why,
        sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(owner)),
        "maintenance",
        unless=sql.SQL(
            "SELECT 1 FROM pg_roles AS me WHERE me.rolname = current_user AND (pg_has_role({owner}, {role}, 'USAGE') "
            "OR NOT (me.rolsuper OR pg_has_role({role}, 'MEMBER WITH ADMIN OPTION') "
            "OR me.rolcreaterole AND current_setting('server_version_num')::int < 160000))"
        ).format(owner=sql.Literal(owner), role=sql.Literal(role)),
    )
