"""Ways in the cloud to the hospital's tables past the views: whoever may take one meets no predicate and no grant.

What a SECURITY DEFINER function does is its author's decision and is not looked into. The foreign tables of the link's
schema are granted as the views are, which ask as their caller: there only USAGE on the schema leads past the views.
It is compared with the other privileges.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.views import READERS

_BYPASSES = sa.text(
    f"""
    WITH RECURSIVE api AS (SELECT r.oid, r.rolname FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY (:roles)),
    link AS (
        SELECT f.ftrelid AS oid FROM pg_catalog.pg_foreign_table AS f
        JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver WHERE s.srvname = :server),
    {READERS},
    relations AS (
        SELECT c.relkind = 'f' AS linked, format('%I.%I', n.nspname, c.relname) AS name,
            ARRAY(SELECT api.rolname::text FROM api
                WHERE has_schema_privilege(api.oid, n.oid, 'USAGE')
                    AND (has_table_privilege(api.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
                        OR has_any_column_privilege(api.oid, c.oid, 'SELECT, INSERT, UPDATE'))
                ORDER BY 1) AS roles
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid IN (TABLE link) AND n.nspname <> :link_schema
            OR c.oid IN (SELECT oid FROM reads) AND c.relkind = 'v'
                AND NOT (n.nspname = :schema AND c.relname = ANY (:exported))
                AND NOT coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) AS o
                    WHERE o.option_name = 'security_invoker'), false)),
    found AS (
        SELECT CASE WHEN linked THEN 'foreign table' ELSE 'view' END AS what, name,
            CASE WHEN linked THEN '%s can use it without its view'
                ELSE 'shows %s the hospital''s rows as its owner sees them' END AS detail,
            CASE WHEN linked THEN format('REVOKE ALL ON %s FROM', name)
                ELSE format('ALTER VIEW %s SET (security_invoker = true), or REVOKE ALL ON %s FROM', name, name)
                END AS hint,
            roles
        FROM relations)
    SELECT what, name, format(detail, array_to_string(roles, ', ')), hint || ' ' || array_to_string(roles, ', ')
    FROM found WHERE roles <> ARRAY[]::text[] ORDER BY 1, 2
    """  # noqa: S608
)


def compare(survey: Survey) -> Iterator[Finding]:
    """Report foreign tables that an API role may use, and views (also over the toolkit's) that run as their owner."""
    config = survey.config
    known = {
        "server": config.link.server,
        "schema": config.tables.schema_,
        "link_schema": config.tables.link_schema,
        "exported": list(config.tables.exported),
        "roles": list(survey.declared.view_roles),
    }
    for what, name, detail, hint in survey.connection.execute(_BYPASSES, known):
        yield Finding(what, name, detail, hint)
