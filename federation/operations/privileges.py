"""What default privileges grant on a new object is taken back: only what a release names is granted.

https://www.postgresql.org/docs/current/sql-alterdefaultprivileges.html
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

# A schema that holds other relations is an older one, whose grants somebody meant.
REVOKE_DEFAULTS = sql.SQL(
    """
DO $federation$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
            CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
        FROM (
            SELECT 'TABLE' AS kind, c.oid::regclass::text AS name, c.relowner AS owner, c.relacl AS acl
            FROM pg_catalog.pg_class AS c WHERE c.oid = ANY ({relations}::regclass[])
            UNION ALL
            SELECT 'SCHEMA', quote_ident(n.nspname), n.nspowner, n.nspacl
            FROM pg_catalog.pg_namespace AS n
            WHERE n.nspname = {schema} AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                WHERE c.relnamespace = n.oid AND c.oid <> ALL ({relations}::regclass[]))
        ) AS o, aclexplode(o.acl) AS acl
        WHERE acl.grantee <> o.owner
    LOOP
        EXECUTE statement;
    END LOOP;
END $federation$
"""
)


def revoke_defaults(relations: Sequence[sql.Composable], schema: str | None = None) -> sql.Composed:
    """A block that leaves nobody but the owner a privilege on new ``relations``, nor on a new ``schema`` of theirs."""
    names = [relation.as_string(None) for relation in relations]
    return REVOKE_DEFAULTS.format(relations=sql.Literal(names), schema=sql.Literal(schema))
