"""Nobody reaches the hospital past the judged link role."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from federation.config import Config
from federation.verification.failure import failed
from federation.verification.views import reading

# What lets somebody past the judged link role: a role that is denied, a view that is read as its owner, a mapping.
# A view of the app's own that asks as its caller gives nobody more than the views it reads.
_PAST = reading(
    """
    SELECT format('%s has privileges on %s', r.rolname, c.oid::regclass)
    FROM (SELECT oid FROM reads UNION SELECT oid FROM link) AS x JOIN pg_class AS c ON c.oid = x.oid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace CROSS JOIN pg_roles AS r
    WHERE r.rolname = ANY (:denied)
        AND (c.relkind <> 'v' OR n.nspname = :schema AND c.relname = ANY (:exported)
            OR NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
                WHERE o.option_name = 'security_invoker' AND o.option_value::boolean))
        AND (has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
            OR has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE'))
    UNION ALL
    SELECT format('view %s is not security_invoker: it is read as its owner', c.oid::regclass)
    FROM reads AS x JOIN pg_class AS c ON c.oid = x.oid AND c.relkind = 'v'
    JOIN pg_roles AS r ON r.rolname = ANY (:callers) AND has_any_column_privilege(r.oid, c.oid, 'SELECT')
    WHERE NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
        WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)
    UNION ALL
    SELECT CASE m.umuser WHEN 0
        THEN format('server %s takes callers to the hospital as %s, not %s', m.srvname, o.name, CAST(:user AS text))
        ELSE format('%s has a user mapping of its own for server %s', m.usename, m.srvname) END
    FROM pg_user_mappings AS m
    CROSS JOIN LATERAL (SELECT max(option_value) FILTER (WHERE option_name = 'user') AS name
        FROM pg_options_to_table(m.umoptions)) AS o
    WHERE m.srvname = :server AND (m.usename = ANY (:callers) OR m.umuser = 0 AND o.name <> :user)
    ORDER BY 1
    """
)


def refuse_ways_past(config: Config, cloud: Connection) -> None:
    """Raise VerificationFailed unless the app's roles reach the hospital as the judged link role, or not at all."""
    known = {
        "server": config.link.server,
        "user": config.link.user,
        "callers": list(config.roles.callers),
        "denied": list(config.roles.denied),
        "schema": config.tables.schema_,
        "exported": list(config.tables.exported),
    }
    past = cloud.execute(_PAST, known).scalars().first()
    if past is not None:
        raise failed(past, "cloud")
