"""What callers can name, on both sides: tables without policies, views that do not answer."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from federation.errors import Side
from federation.testing.pair import FederationPair

# Tables and columns may be granted one by one; what stands in a schema that the role may not use cannot be named.
_EXPOSED = """
    SELECT format('%%I.%%I', n.nspname, c.relname), c.relkind::text, string_agg(DISTINCT r.rolname, ', '),
        c.relrowsecurity, EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polpermissive),
        coalesce((SELECT o.option_value::bool FROM pg_options_to_table(c.reloptions) AS o
            WHERE o.option_name = 'security_invoker'), false)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_roles AS r ON r.rolname = ANY (%(roles)s) AND has_schema_privilege(r.oid, n.oid, 'USAGE')
        AND (has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
            OR has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE'))
    WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v')
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'federation', 'auth', 'extensions')
    GROUP BY n.nspname, c.oid, c.relname ORDER BY 1
"""


def exposed(pair: FederationPair) -> Iterator[str]:
    """Return a sentence for each relation that a caller or link role can name and no policy protects."""
    config = pair.config
    roles: dict[Side, list[str]] = {
        "local": [config.link.user, config.link.service_user, *config.roles.callers],
        "cloud": [*config.roles.callers, *config.roles.denied],
    }
    for side, names in roles.items():
        for name, kind, who, row_security, policies, invoker in (
            pair.superuser(side).execute(_EXPOSED, {"roles": names}).fetchall()
        ):
            if kind in {"r", "p"} and not row_security:
                yield (
                    f"{side}: table {name} is open to {who} without row-level security — "
                    f'op.enable_row_level_security("{name.split(".")[-1]}") and a policy, or take the privilege away'
                )
            elif kind in {"r", "p"} and not policies:
                yield (
                    f"{side}: table {name} has no permissive policy, so {who} sees none of its rows — "
                    "op.create_policy(…), or take the privilege away"
                )
            elif kind == "f":
                yield f"{side}: foreign table {name} is open to {who} past its view — keep it in a schema without USAGE"
            elif kind == "m":
                yield f"{side}: materialized view {name} is open to {who}, and no policy judges it — take it away"
            elif kind == "v" and not invoker:
                yield f"{side}: view {name}, open to {who}, runs as its owner — WITH (security_invoker = true)"


def unanswered(pair: FederationPair, table: str) -> Iterator[str]:
    """Return a sentence for each role that should read the app's ``table`` and cannot, or the reverse."""
    config = pair.config
    name = sql.Identifier(config.tables.schema_, table)
    shown = f"{config.tables.schema_}.{table}"
    found = pair.superuser("cloud").execute("SELECT to_regclass(%s)", [name.as_string(None)]).fetchone()
    if found == (None,):
        yield f"cloud: there is no view {shown} at head — create it in a release, or take it out of tables.exported"
        return
    may = {
        role: bool(allowed)
        for role, allowed in pair.superuser("cloud").execute(
            "SELECT rolname, has_table_privilege(oid, %s, 'SELECT') FROM pg_roles WHERE rolname = ANY (%s)",
            [name.as_string(None), [*config.roles.callers, *config.roles.bypass, *config.roles.denied]],
        )
    }
    for role, allowed in may.items():
        if role in config.roles.denied:
            if allowed:
                yield f"cloud: {role} may read {shown} — REVOKE it, or take {role} out of roles.denied"
            continue
        if not allowed:
            continue
        try:
            with pair.as_user(role=role, read_only=True) as caller:
                caller.execute(sql.SQL("SELECT * FROM {}").format(name))
        except psycopg.Error as error:
            yield f"cloud: {shown} does not answer {role} ({error.diag.message_primary}) — see `federation check`"
