"""Make and limit the two link roles at the hospital; refuse roles that somebody else uses or may become."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from federation.administration.bootstrap.owners import role_exists, verifier
from federation.administration.bootstrap.statement import Statement, dollar_quoted
from federation.config import Config
from federation.errors import Side
from federation.roles import RUNNER, SUPERUSERS, bound, faults_query, settings

BACKENDS = 100
"""Backends of the cloud that each role serves where the server's max_connections allows it."""

_TOLD = "ZF000"
"""SQLSTATE of the notices that are shown; others may quote values and are not repeated (federation/server_text.py)."""

_SITE = "alembic-federation: link role of site "
"""How the comment of a link role begins."""


def create_link_roles(config: Config, owner: str, database: str) -> Iterator[Statement]:
    """Make both roles, with their passwords and limits. Raises PreconditionMissing when a password is not set."""
    yield _refuse_shared(config, owner, database)
    for user, password in (config.link_login("link"), config.link_login("service")):
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
            sql.SQL("ALTER ROLE {} LOGIN NOINHERIT NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                sql.Identifier(user), verifier(user, password)
            ),
            "maintenance",
        )
        if config.site_id is not None:
            yield Statement(
                f"which site {user} is of",
                sql.SQL("COMMENT ON ROLE {} IS {}").format(
                    sql.Identifier(user), sql.Literal(f"{_SITE}{config.site_id}")
                ),
                "maintenance",
            )
    yield _limit(config)


def set_settings(config: Config, database: str) -> Iterator[Statement]:
    """Give the roles their own settings, in every database of the server, and no others.

    Who holds the password may give the role settings, which outlive the password.
    """
    for user in bound(config, "local"):
        role = sql.Identifier(user)
        yield Statement(f"{user} keeps no setting of its own", sql.SQL("ALTER ROLE {} RESET ALL").format(role))
        yield Statement(
            f"{user} keeps none in database {database}",
            sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, sql.Identifier(database)),
        )
        for name, value in settings(config).items():
            yield Statement(
                f"{name} of {user}",
                sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.Identifier(name), sql.Literal(value)),
                unless=sql.SQL("SELECT 1 WHERE NOT has_parameter_privilege({}, 'SET')").format(sql.Literal(name))
                if name in SUPERUSERS
                else None,
            )


def refuse_faults(config: Config, side: Side, owner: str) -> Statement:
    """Refuse roles that may do too much, or that somebody else may become. Warn of harmless differences."""
    body = sql.SQL(
        """
DECLARE
    found record;
    faults text;
    remedies text;
BEGIN
    FOR found IN {faults} LOOP
        IF found.refused THEN
            faults := concat_ws('; ', faults, format('role %s %s', found.role, found.fault));
            remedies := concat_ws('; ', remedies, found.remedy);
        ELSE
            RAISE WARNING USING ERRCODE = {told},
                MESSAGE = format('role %s %s', found.role, found.fault), HINT = found.remedy;
        END IF;
    END LOOP;
    IF faults IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'ZF008', MESSAGE = faults, HINT = remedies || {otherwise};
    END IF;
END """
    ).format(
        told=sql.Literal(_TOLD),
        faults=faults_query(config, side, owner),
        otherwise=sql.Literal(
            "; or set FEDERATION_LINK_USER and FEDERATION_SERVICE_USER to other roles"
            if side == "local"
            else "; or name another role in roles.sender of federation.toml"
        ),
    )
    return Statement(
        "refused if a role of the link may do more than it must, or if somebody else may become it",
        sql.SQL("DO {}").format(dollar_quoted(body)),
        "maintenance",
        asks=True,
    )


def _refuse_shared(config: Config, owner: str, database: str) -> Statement:
    """Refuse link roles of another site: its cloud would be locked out by the new passwords, and its rows open to ours.

    Another database of the same owner is this site's own: a copy, or one that was put aside.
    """
    site = f"{_SITE}{config.site_id}"
    body = sql.SQL(
        """
DECLARE
    shared record;
BEGIN
    SELECT r.rolname, CASE WHEN d.datname IS NULL THEN 'another site (' || c.comment || ')'
        ELSE 'database ' || d.datname END AS whose
    INTO shared
    FROM pg_catalog.pg_roles AS r
    CROSS JOIN LATERAL (SELECT shobj_description(r.oid, 'pg_authid')) AS c (comment)
    LEFT JOIN pg_catalog.pg_database AS d ON NOT d.datistemplate
        AND d.datname <> {database} AND pg_get_userbyid(d.datdba) <> {owner}
        AND EXISTS (SELECT FROM aclexplode(d.datacl) AS a WHERE a.grantee = r.oid AND a.privilege_type = 'CONNECT')
    WHERE r.rolname IN ({roles})
        AND (d.datname IS NOT NULL OR {has_site} AND c.comment LIKE {prefix} AND c.comment <> {site})
    ORDER BY d.datname IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ZF008',
            MESSAGE = format('link role %s is in use by %s', shared.rolname, shared.whose),
            HINT = 'set FEDERATION_LINK_USER and FEDERATION_SERVICE_USER to roles of this site''s own';
    END IF;
END """
    ).format(
        database=sql.Literal(database),
        owner=sql.Literal(owner),
        roles=sql.SQL(", ").join(map(sql.Literal, bound(config, "local"))),
        has_site=sql.Literal(config.site_id is not None),
        prefix=sql.Literal(f"{_SITE}%"),
        site=sql.Literal(site),
    )
    return Statement(
        "refused if another site on this server uses the link roles",
        sql.SQL("DO {}").format(dollar_quoted(body)),
        "maintenance",
        asks=True,
    )


def _limit(config: Config) -> Statement:
    """Compute both connection limits from the server's settings, and print the arithmetic.

    postgres_fdw keeps a session until the backend ends, so each backend of the cloud's pool may hold one for each role.
    """
    link, service = bound(config, "local")
    body = sql.SQL(
        """
DECLARE
    most CONSTANT int := current_setting('max_connections')::int;
    reserved CONSTANT int := current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true)::int, 0);
    own CONSTANT int := greatest(20, most / 5);
    free CONSTANT int := greatest(most - reserved - own, 3 * ({runner} + 1));
    wanted CONSTANT int := {backends} + {runner};
    share CONSTANT int := CASE WHEN free >= 2 * wanted THEN wanted ELSE least(wanted, free * 2 / 3) END;
    link CONSTANT int := coalesce({link_limit}, share);
    service CONSTANT int := coalesce({service_limit}, least(wanted, free - share));
BEGIN
    EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', {link}, link);
    EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', {service}, service);
    RAISE INFO 'max_connections % - reserved % - kept for the hospital % = % for the link: % for role %, % for role %, '
        'of each % for releases', most, reserved, own, free, link, {link}, service, {service}, {runner}
        USING ERRCODE = {told};
    IF least(link, service) < wanted THEN
        RAISE WARNING 'the link serves % backends of the cloud as role % and % as role %', link - {runner}, {link},
            service - {runner}, {service}
            USING ERRCODE = {told},
                HINT = format('keep the app''s pools below that; for {backends} of each set max_connections = %s',
                    greatest(2 * wanted + reserved + 20, ceil((2 * wanted + reserved) / 0.8)::int));
    END IF;
END """
    ).format(
        told=sql.Literal(_TOLD),
        link=sql.Literal(link),
        service=sql.Literal(service),
        link_limit=sql.Literal(config.link.connection_limit),
        service_limit=sql.Literal(config.link.service_connection_limit),
        runner=sql.Literal(RUNNER),
        backends=sql.Literal(BACKENDS),
    )
    return Statement(
        f"how many sessions the cloud may hold: a fifth of max_connections, at least 20, stays for the hospital;\n"
        f"of the rest {link} and {service} get up to {BACKENDS + RUNNER} each ({BACKENDS} backends and {RUNNER} for\n"
        "releases), or two thirds and one third",
        sql.SQL("DO {}").format(dollar_quoted(body)),
        "maintenance",
    )
