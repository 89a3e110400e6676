"""The hospital's server: owner, link roles and their bounds, the roles that the app's policies name."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from federation.administration.bootstrap.owners import (
    create_database,
    create_owner,
    create_schema,
    grant_membership,
    role_exists,
    verifier,
    who_owns,
)
from federation.administration.bootstrap.statement import Statement, dollar_quoted
from federation.config import Config
from federation.errors import PreconditionMissing

IDLE_TIMEOUT = "60s"
"""How long a link session may hold its transaction, and with it locks, without asking for anything."""

TEMP_FILE_LIMIT = "1GB"
"""How much disk one link session's sorts may take."""


def statements(config: Config) -> Iterator[Statement]:
    """Raises PreconditionMissing when a setting is missing."""
    owner, database = who_owns(config, "local")
    link, service = config.link_login("link"), config.link_login("service")
    logins = (link, config.link.connection_limit), (service, max(1, config.link.connection_limit // 3))
    if len({owner, link[0], service[0]}) < 3:
        raise PreconditionMissing(
            f"the owner {owner} and the link roles {link[0]} and {service[0]} are not three different roles",
            side="local",
            hint="set FEDERATION_LINK_USER and FEDERATION_SERVICE_USER to roles of their own",
        )
    yield _refuse_unjudged((link[0], service[0]), owner)
    yield from create_owner(config, "local")
    for (user, password), limit in logins:
        yield Statement(
            f"link role {user}",
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT NOCREATEDB NOCREATEROLE").format(
                sql.Identifier(user)
            ),
            "maintenance",
            unless=role_exists(user),
        )
        yield Statement(
            f"what {user} may be, and its password",
            sql.SQL("ALTER ROLE {} LOGIN NOINHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT {} PASSWORD {}").format(
                sql.Identifier(user), sql.Literal(limit), verifier(user, password)
            ),
            "maintenance",
        )
    for name in config.roles.callers:
        yield Statement(
            f"role {name}, which the app's policies name",
            sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(name)),
            "maintenance",
            unless=role_exists(name),
        )
        yield from grant_membership(link[0], name, f"{link[0]} may act as {name} for an account of that role")
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
    yield from create_schema(config, owner)
    for (user, _), _limit in logins:
        yield from _settings(config, user, database)


def _settings(config: Config, user: str, database: str) -> Iterator[Statement]:
    """Limits: a caller in the cloud can choose expensive expressions and hold locks; only the hospital can bound that.

    And English: the app reads messages, and gets the hospital's as they are.
    """
    settings = {
        "lock_timeout": config.link.lock_timeout,
        "statement_timeout": config.link.statement_timeout,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        "temp_file_limit": TEMP_FILE_LIMIT,
        "lc_messages": "C",
    }
    for name, value in settings.items():
        yield Statement(
            f"{name} of {user}",
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                sql.Identifier(user), sql.Identifier(database), sql.Identifier(name), sql.Literal(value)
            ),
            # Superusers' own, or theirs to whom one granted it.
            unless=sql.SQL("SELECT 1 WHERE NOT has_parameter_privilege({}, 'SET')").format(sql.Literal(name))
            if name in {"temp_file_limit", "lc_messages"}
            else None,
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
        sql.SQL("DO {}").format(dollar_quoted(body)),
        "maintenance",
    )
