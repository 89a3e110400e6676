"""``federation link apply``: set the link's address and passwords from the environment, without a release.

https://www.postgresql.org/docs/current/sql-alterserver.html
https://www.postgresql.org/docs/current/postgres-fdw.html#POSTGRES-FDW-OPTIONS
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.administration.last_seen import remember
from federation.config import Config
from federation.databases import DATABASE_ERRORS, connect, ddl, naming_holders, over_the_link
from federation.errors import PreconditionMissing, Refused, Unreachable, link_is_full
from federation.operations.user_mappings import send_mapping

ADDRESS_OPTIONS = frozenset(
    {"host", "hostaddr", "port", "dbname", "sslmode", "channel_binding", "sslrootcert"},
)
"""The server's options that say where the hospital is and how it proves itself; all others may be a migration's."""

LOG_IN = sql.SQL("SELECT FROM {} WHERE (SELECT false)")
"""Opens the connection to a foreign table and sends no query: the link role may have no privilege on it there.

A LIMIT 0 is sent; a constant WHERE false opens nothing.
"""


def apply(config: Config) -> dict[str, object]:
    """Set the foreign server's options and every mapping's user and password from ``config``, and prove that it works.

    One transaction of the owner, committed after the proof: a wrong address never replaces one that works. Returns
    ``server``, ``address``, ``mappings`` (cloud role to link role) and ``proved`` (the link roles that logged in at
    the hospital; none without a foreign table to ask). Raises PreconditionMissing (a setting, or no server yet),
    Unreachable when the hospital does not let a link role in, Refused when the address is another hospital's.
    """
    options = config.server_options()
    link, service = config.link_login("link"), config.link_login("service")
    with connect(config, "cloud") as connection, naming_holders(config, {"cloud": connection}), connection.begin():
        _set_options(connection, config.link.server, options)
        mappings: dict[str, str] = {}
        for cloud_role, keyword in _mapped_roles(connection, config.link.server):
            user, password = link if cloud_role == "public" else service
            send_mapping(connection, "ALTER", keyword, config.link.server, user, password)
            mappings[cloud_role] = user
        with _proving(config), over_the_link(connection, config):
            proved = list(_prove(connection, config))
    remember(config)
    return {
        "server": config.link.server,
        "address": {key: options[key] for key in ("host", "port", "dbname", "sslmode")},
        "mappings": mappings,
        "proved": proved,
    }


def _set_options(connection: Connection, server: str, wanted: Mapping[str, str]) -> None:
    """Choose ADD, SET or DROP per option: PostgreSQL rejects ADD for an existing one and SET for a missing one."""
    if not connection.scalar(_SERVER, {"server": server}):
        raise PreconditionMissing(
            f"there is no foreign server {server} yet", side="cloud", hint="run `federation upgrade` first"
        )
    current = set(connection.scalars(_OPTIONS, {"server": server}))
    changes: list[sql.Composable] = [
        sql.SQL("{} {} {}").format(sql.SQL("SET" if key in current else "ADD"), sql.Identifier(key), sql.Literal(value))
        for key, value in wanted.items()
    ]
    changes += [
        sql.SQL("DROP {}").format(sql.Identifier(key)) for key in sorted(current & ADDRESS_OPTIONS - set(wanted))
    ]
    connection.execute(
        ddl(sql.SQL("ALTER SERVER {} OPTIONS ({})").format(sql.Identifier(server), sql.SQL(", ").join(changes)))
    )


def _mapped_roles(connection: Connection, server: str) -> list[tuple[str, sql.Composable]]:
    """List the cloud roles that have a mapping, by name and as SQL."""
    return [
        ("public", sql.SQL("PUBLIC")) if everyone else (name, sql.Identifier(name))
        for name, everyone in connection.execute(_MAPPINGS, {"server": server})
    ]


def _prove(connection: Connection, config: Config) -> Iterator[str]:
    """Log in at the hospital as each link role, and yield the roles that were asked.

    The binding's own table is read by the sender, who has no mapping and uses everyone's; the site's account, which
    every binding lists, tells whether this is our hospital.
    """
    server, sender = {"server": config.link.server}, sql.Identifier(config.roles.sender)
    table = connection.execute(_FOREIGN_TABLE, server).first()
    if table is not None:
        connection.execute(ddl(LOG_IN.format(sql.Identifier(*table))))
        yield config.link.service_user
    if connection.scalar(_BINDING, server):
        connection.execute(ddl(sql.SQL("SET LOCAL ROLE {}").format(sender)))
        listed = connection.scalar(_IS_LISTED, {"site": config.site()})
        connection.execute(ddl(sql.SQL("RESET ROLE")))
        if not listed:
            raise Refused(
                f"the database at that address does not list site {config.site()}",
                side="cloud",
                hint="check FEDERATION_LINK_HOST, _PORT, _DBNAME and FEDERATION_SITE_ID; "
                "the old settings stay in force",
            )
        yield config.link.user


@contextmanager
def _proving(config: Config) -> Iterator[None]:
    """Report an error inside the block as one of the link, not of the cloud's database."""
    try:
        yield
    except DATABASE_ERRORS as error:
        original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        state = getattr(original, "sqlstate", None) or ""
        # 2F003: the hospital let the link role in without asking for a password.
        if not (state.startswith(("08", "HV")) or state == "2F003") or not isinstance(original, psycopg.Error):
            raise
        if full := link_is_full(original):
            raise Unreachable(full[0], side="cloud", hint=f"{full[1]}; the old settings stay in force") from error
        address = config.link_address()
        # The detail of 08001 is libpq's own reason, and the only part that tells a wrong port from a wrong password.
        detail = original.diag.message_detail if state == "08001" else None
        reason = (detail or original.diag.message_primary or str(original)).split("\n", 1)[0]
        raise Unreachable(
            f"the cloud does not reach the hospital at {address.host}:{address.port}/{address.dbname} ({reason})",
            side="cloud",
            hint="check FEDERATION_LINK_HOST, _PORT, _DBNAME, both passwords and pg_hba.conf at the hospital, then run "
            "`federation link apply` again; the old settings stay in force",
        ) from error


_SERVER = sa.text("SELECT EXISTS (SELECT 1 FROM pg_foreign_server WHERE srvname = :server)")
_OPTIONS = sa.text("SELECT option_name FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = :server")
_MAPPINGS = sa.text("SELECT usename, umuser = 0 FROM pg_user_mappings WHERE srvname = :server ORDER BY umuser")
_FOREIGN_TABLE = sa.text(
    """
SELECT n.nspname, c.relname
FROM pg_foreign_table AS t
JOIN pg_foreign_server AS s ON s.oid = t.ftserver
JOIN pg_class AS c ON c.oid = t.ftrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_user_mappings AS m ON m.srvid = s.oid AND m.usename = current_user
WHERE s.srvname = :server AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY n.nspname <> 'federation_link', n.nspname, c.relname
LIMIT 1
"""
)
_BINDING = sa.text(
    """
SELECT EXISTS (
    SELECT 1 FROM pg_foreign_table AS t JOIN pg_foreign_server AS s ON s.oid = t.ftserver
    WHERE s.srvname = :server AND t.ftrelid = to_regclass('federation_private.bind'))
"""
)
_IS_LISTED = sa.text("SELECT count(b.taken) = 1 FROM federation_private.bind AS b WHERE b.sub = :site")
