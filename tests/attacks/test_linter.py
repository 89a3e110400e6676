"""Supabase's database linter: what its checks find in our cloud, docs/secure.md explains.

The checks are written anew after https://supabase.github.io/splinter, of tables, views, foreign tables, functions,
policies and extensions; where versions of the linter differ, the stricter one. Those of indexes, bloat, buckets and
sign-in settings have nothing here to look at.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deployments import ROOT

if TYPE_CHECKING:
    import psycopg
    from deployments import Deployment

# What the linter leaves out: the platform's own schemas, and what belongs to an extension.
OURS = """
    n.nspname NOT IN ('auth', 'extensions', 'graphql', 'graphql_public', 'information_schema', 'pg_catalog', 'realtime',
        'storage', 'supabase_functions', 'supabase_migrations', 'vault')
    AND n.nspname !~ '^pg_(temp|toast)'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = o.oid AND d.deptype = 'e')
"""
CLASSES = (
    f"SELECT n.nspname || '.' || o.relname FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace WHERE {OURS}"
)
FUNCTIONS = (
    f"SELECT n.nspname || '.' || o.proname FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace WHERE {OURS}"
)
POLICIES = f"""
    SELECT n.nspname || '.' || o.relname FROM pg_policies p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class o ON o.relnamespace = n.oid AND o.relname = p.tablename WHERE {OURS}
"""
READABLE = "(has_table_privilege('anon', o.oid, 'SELECT') OR has_table_privilege('authenticated', o.oid, 'SELECT'))"
ENTERABLE = "(has_schema_privilege('anon', n.oid, 'USAGE') OR has_schema_privilege('authenticated', n.oid, 'USAGE'))"
INVOKER = "coalesce(lower(o.reloptions::text)::text[] && '{security_invoker=true,security_invoker=on}', false)"

LINTS = {
    # auth.users reached by a view of the API
    "0002": f"""{CLASSES} AND o.relkind IN ('v', 'm') AND {READABLE} AND EXISTS (
        SELECT FROM pg_rewrite r JOIN pg_depend u ON u.objid = r.oid
        WHERE r.ev_class = o.oid AND u.refobjid = to_regclass('auth.users'))""",
    # a policy that asks for the caller at every row
    "0003": f"""{POLICIES} AND EXISTS (
        SELECT FROM (VALUES (p.qual), (p.with_check)) AS e (text)
        WHERE e.text ~ 'auth\\.(uid|jwt|role|email)\\(\\)'
            AND e.text !~* 'select\\s+auth\\.(uid|jwt|role|email)\\(\\)')""",
    # no primary key
    "0004": f"""{CLASSES} AND o.relkind = 'r'
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.oid AND i.indisprimary)""",
    # policies that nothing asks
    "0007": f"{POLICIES} AND NOT o.relrowsecurity",
    # row-level security that lets nobody through
    "0008": f"""{CLASSES} AND o.relkind = 'r' AND o.relrowsecurity
        AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = o.oid)""",
    # a view that reads as its owner
    "0010": f"{CLASSES} AND o.relkind = 'v' AND {READABLE} AND NOT {INVOKER}",
    # a function that looks names up in its caller's path
    "0011": f"{FUNCTIONS} AND NOT EXISTS (SELECT FROM unnest(o.proconfig) AS c WHERE c LIKE 'search_path=%')",
    # a table of the API without row-level security
    "0013": f"{CLASSES} AND o.relkind = 'r' AND NOT o.relrowsecurity AND {READABLE} AND {ENTERABLE}",
    # an extension in public
    "0014": "SELECT extname::text FROM pg_extension WHERE extnamespace = 'public'::regnamespace",
    # a policy that trusts what a user may edit
    "0015": f"""{POLICIES} AND concat(p.qual, ' ', p.with_check) ~ 'user_metadata'""",
    # a materialized view in the API
    "0016": f"{CLASSES} AND o.relkind = 'm' AND {READABLE}",
    # a foreign table in the API
    "0017": f"{CLASSES} AND o.relkind = 'f' AND {READABLE} AND {ENTERABLE}",
    # a policy that is always true
    "0024": f"""{POLICIES} AND p.permissive = 'PERMISSIVE' AND p.roles && '{{public,anon,authenticated}}'
        AND 'true' IN (p.qual, p.with_check)""",
    # a SECURITY DEFINER function that the API's callers may execute
    "0028": f"{FUNCTIONS} AND o.prosecdef AND has_function_privilege('anon', o.oid, 'EXECUTE')",
    "0029": f"{FUNCTIONS} AND o.prosecdef AND has_function_privilege('authenticated', o.oid, 'EXECUTE')",
}

VIOLATIONS = {
    "0002": "CREATE VIEW planted.x WITH (security_invoker) AS SELECT id FROM auth.users; "
    "GRANT SELECT ON planted.x TO anon",
    "0003": "CREATE TABLE planted.x (id uuid); ALTER TABLE planted.x ENABLE ROW LEVEL SECURITY; "
    "CREATE POLICY p ON planted.x USING (auth.uid() = id)",
    "0004": "CREATE TABLE planted.x (id uuid)",
    "0007": "CREATE TABLE planted.x (id uuid); CREATE POLICY p ON planted.x USING (id IS NULL)",
    "0008": "CREATE TABLE planted.x (id uuid); ALTER TABLE planted.x ENABLE ROW LEVEL SECURITY",
    "0010": "CREATE VIEW planted.x AS SELECT * FROM federation_link.hospital_patients; "
    "GRANT SELECT ON planted.x TO anon",
    "0011": "CREATE FUNCTION planted.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "0013": "CREATE TABLE planted.x (id uuid); GRANT SELECT ON planted.x TO anon",
    "0014": "CREATE EXTENSION hstore SCHEMA public",
    "0015": "CREATE TABLE planted.x (id uuid); "
    "CREATE POLICY p ON planted.x USING ((SELECT auth.jwt()) -> 'user_metadata' ->> 'id' = id::text)",
    "0016": "CREATE MATERIALIZED VIEW planted.x AS SELECT 1 AS id; GRANT SELECT ON planted.x TO authenticated",
    "0017": "CREATE FOREIGN TABLE planted.x (id uuid) SERVER hospital; GRANT SELECT ON planted.x TO authenticated",
    "0024": "CREATE TABLE planted.x (id uuid); CREATE POLICY p ON planted.x TO authenticated USING (true)",
    "0028": "CREATE FUNCTION planted.x() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    "0029": "CREATE FUNCTION planted.x() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; "
    "REVOKE ALL ON FUNCTION planted.x() FROM PUBLIC; GRANT EXECUTE ON FUNCTION planted.x() TO authenticated",
}


def findings(connection: psycopg.Connection[tuple[str, ...]]) -> set[tuple[str, str]]:
    connection.execute("SET LOCAL search_path = pg_catalog")
    return {
        (lint, name)
        for lint, query in LINTS.items()
        for (name,) in connection.execute(query).fetchall()  # type: ignore[arg-type]
    }


def explained() -> set[tuple[str, str]]:
    """The findings that the page explains: | 0000 | `name` | why |."""
    page = (ROOT / "docs" / "secure.md").read_text()
    return set(re.findall(r"^\| (\d{4}) \| `([\w.]+)` \| .+ \|$", page, re.MULTILINE))


def test_the_linter_finds_nothing_that_the_page_does_not_explain(federated: Deployment) -> None:
    with federated.superuser("cloud") as superuser:
        superuser.execute("BEGIN")
        assert findings(superuser) == explained()


def test_the_hospitals_policies_pass_the_same_checks(federated: Deployment) -> None:
    """They would move to any Supabase as they are. The linter itself does not run there."""
    with federated.superuser("local") as superuser:
        for lint in ("0003", "0007", "0008", "0011", "0015", "0024"):
            assert superuser.execute(LINTS[lint]).fetchall() == [], lint  # type: ignore[arg-type]


def test_each_check_finds_a_planted_violation(federated: Deployment) -> None:
    """The negative control."""
    assert set(VIOLATIONS) == set(LINTS)
    with federated.superuser("cloud") as superuser:
        for lint, violation in VIOLATIONS.items():
            superuser.execute("BEGIN")
            superuser.execute("CREATE SCHEMA planted; GRANT USAGE ON SCHEMA planted TO anon, authenticated")
            superuser.execute(violation)  # type: ignore[arg-type]
            found = findings(superuser) - explained()
            superuser.execute("ROLLBACK")
            assert (lint, "hstore" if lint == "0014" else "planted.x") in found, lint
