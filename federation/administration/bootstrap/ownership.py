"""Give the toolkit's objects back to their owner: ``pg_restore --no-owner`` leaves them to whoever restored.

Only objects of the toolkit's own schemas, the exported tables or views, and the functions and types that these use are
given back; everything else in the database stays whose it is.

https://www.postgresql.org/docs/current/app-pgrestore.html (``--no-owner``)
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from federation.administration.bootstrap.owners import who_owns
from federation.administration.bootstrap.statement import Statement, dollar_quoted
from federation.config import Config
from federation.errors import Side

# A sequence of a column goes with its table. The function that names the caller is the sender's.
_OTHERS = sql.SQL(
    """
    WITH relations AS (
        SELECT c.oid, c.relkind, c.relowner FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
            AND (n.nspname = ANY ({schemas}) OR n.nspname = {app_schema} AND c.relname = ANY ({exported}))
    ), functions AS (
        SELECT p.oid, p.proowner, p.oid IS NOT DISTINCT FROM
            to_regprocedure('federation_private.send(boolean, boolean)') AS is_the_senders
        FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = ANY ({schemas}) OR n.nspname = {app_schema} AND EXISTS (
            SELECT FROM pg_catalog.pg_trigger AS t JOIN relations AS r ON r.oid = t.tgrelid WHERE t.tgfoid = p.oid)
    )
    SELECT 1 AS turn, format('ALTER SCHEMA %I OWNER TO %I', n.nspname, {owner}) AS statement
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname = ANY ({schemas}) AND pg_get_userbyid(n.nspowner) <> {owner}
    UNION ALL
    SELECT 2, format('ALTER %s %s OWNER TO %I', CASE r.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
        WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, r.oid::regclass, {owner})
    FROM relations AS r
    WHERE pg_get_userbyid(r.relowner) <> {owner} AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE r.relkind = 'S' AND d.objid = r.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0)
    UNION ALL
    SELECT 3, format('ALTER ROUTINE %s OWNER TO %I', f.oid::regprocedure, {owner})
    FROM functions AS f WHERE NOT f.is_the_senders AND pg_get_userbyid(f.proowner) <> {owner}
    UNION ALL
    SELECT 4, format('GRANT CREATE ON SCHEMA federation_private TO %1$I; ALTER ROUTINE %2$s OWNER TO %1$I; '
        'REVOKE CREATE ON SCHEMA federation_private FROM %1$I', {sender}, f.oid::regprocedure)
    FROM functions AS f WHERE f.is_the_senders AND pg_get_userbyid(f.proowner) <> {sender}
    UNION ALL
    SELECT DISTINCT 5, format('ALTER TYPE %s OWNER TO %I', t.oid::regtype, {owner})
    FROM relations AS r JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON a.atttypid IN (t.oid, t.typarray)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd') AND n.nspname = {app_schema} AND pg_get_userbyid(t.typowner) <> {owner}
    UNION ALL
    SELECT 6, format('ALTER SERVER %I OWNER TO %I', s.srvname, {owner})
    FROM pg_catalog.pg_foreign_server AS s WHERE s.srvname = {server} AND pg_get_userbyid(s.srvowner) <> {owner}
    """
)
_DO = sql.SQL(
    """
DECLARE
    statement text;
BEGIN
    FOR statement IN SELECT o.statement FROM ({others}) AS o ORDER BY o.turn LOOP
        EXECUTE statement;
    END LOOP;
END """
)


def give_back(config: Config, side: Side) -> Iterator[Statement]:
    """Make the owner the owner of the toolkit's objects again, and the sender the owner of its function."""
    owner, _ = who_owns(config, side)
    tables = config.tables
    own = ["federation", "auth"] if side == "local" else ["federation", "federation_private", tables.link_schema]
    others = _OTHERS.format(
        schemas=sql.Literal(own),
        app_schema=sql.Literal(tables.schema_),
        exported=sql.Literal(list(tables.exported)),
        owner=sql.Literal(owner),
        sender=sql.Literal(config.roles.sender),
        server=sql.Literal(config.link.server if side == "cloud" else None),
    )
    # Supabase's own schema auth, in the cloud, is never among them; a hospital may have one before the first release.
    yield Statement(
        f"what the toolkit has made is {owner}'s, also after pg_restore --no-owner",
        sql.SQL("DO {}").format(dollar_quoted(_DO.format(others=others))),
        unless=sql.SQL("SELECT 1 WHERE NOT EXISTS ({})").format(others),
    )
