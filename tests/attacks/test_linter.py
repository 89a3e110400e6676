"""Supabase's database linter: what its checks find in our cloud, docs/secure.md explains.

Source: https://github.com/supabase/splinter, whose file ``lints/<key of LINTS>.sql`` each check is written anew after;
where its versions differ, the stricter one. Here are those of tables, views, foreign tables, functions, policies and
extensions. Those of indexes and keys without one (0001, 0005, 0009, 0030_invalid_index), bloat (0020), buckets
(0025_public_bucket_allows_listing) and replication slots (0031) have nothing of ours to look at.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
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

SHOWN = "EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_graphql')"
ASKS = r"(auth\.(uid|jwt|role|email)\(\)|current_setting\()"
NULL = r"(auth\.(uid|jwt|role)\(\)|current_setting\([^)]*true\))( AS \w+)?\)* IS NULL"
NOT_NULL = NULL.replace("IS NULL", "IS NOT NULL")
SENSITIVE = (
    "pass(word|wd|phrase|port)|pwd|secret|key|token|jwt|code|session|otp|2fa|two_factor|ssn|social_security|licen[cs]e|"
    "national_id|tax_id|card|cv[vcn]|account|routing|iban|swift|bic|record|patient_id|insurance|treatment|mac_?addr|imei|"
    "device|certificate|facial"
)
"""Anywhere in a column's name; the linter asks for whole names, each of which this finds."""

LINTS = {
    # auth.users reached by a view of the API
    "0002_auth_users_exposed": f"""{CLASSES} AND o.relkind IN ('v', 'm') AND {READABLE} AND EXISTS (
        SELECT FROM pg_rewrite r JOIN pg_depend u ON u.objid = r.oid
        WHERE r.ev_class = o.oid AND u.refobjid = to_regclass('auth.users'))""",
    # a policy that asks for the caller at every row
    "0003_auth_rls_initplan": f"""{POLICIES} AND EXISTS (
        SELECT FROM (VALUES (p.qual), (p.with_check)) AS e (text)
        WHERE e.text ~ '{ASKS}' AND e.text !~* 'select\\s+{ASKS}')""",
    "0004_no_primary_key": f"""{CLASSES} AND o.relkind = 'r'
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.oid AND i.indisprimary)""",
    # several policies to be asked of one role for one command
    "0006_multiple_permissive_policies": f"""
        SELECT DISTINCT n.nspname || '.' || o.relname FROM pg_policy p
        JOIN pg_class o ON o.oid = p.polrelid JOIN pg_namespace n ON n.oid = o.relnamespace
        JOIN pg_roles r ON p.polroles = '{{0}}' OR r.oid = ANY (p.polroles)
        CROSS JOIN unnest('{{r,a,w,d}}'::"char"[]) AS command
        WHERE {OURS} AND p.polcmd IN ('*', command) AND NOT r.rolbypassrls AND r.rolname !~ '^pg_|^supabase.*admin$'
        GROUP BY n.nspname, o.relname, r.oid, command HAVING count(*) > 1""",
    # policies that nothing asks
    "0007_policy_exists_rls_disabled": f"{POLICIES} AND NOT o.relrowsecurity",
    # row-level security that lets nobody through
    "0008_rls_enabled_no_policy": f"""{CLASSES} AND o.relkind = 'r' AND o.relrowsecurity
        AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = o.oid)""",
    # a view that reads as its owner
    "0010_security_definer_view": f"{CLASSES} AND o.relkind = 'v' AND {READABLE} AND NOT {INVOKER}",
    # a function that looks names up in its caller's path
    "0011_function_search_path_mutable": f"""{FUNCTIONS}
        AND NOT EXISTS (SELECT FROM unnest(o.proconfig) AS c WHERE c LIKE 'search_path=%')""",
    # a policy for who is signed in that does not ask whether anonymously
    "0012_auth_allow_anonymous_sign_ins": f"""{POLICIES}
        AND coalesce(p.qual, '') !~ 'auth\\.jwt\\(\\).*->>.*is_anonymous'
        AND ('public' = ANY (p.roles) OR EXISTS (SELECT FROM pg_roles r
            WHERE r.rolname = ANY (p.roles) AND NOT r.rolsuper AND pg_has_role(r.oid, 'authenticated', 'MEMBER')))""",
    # a table of the API without row-level security
    "0013_rls_disabled_in_public": f"""{CLASSES} AND o.relkind = 'r' AND NOT o.relrowsecurity
        AND {READABLE} AND {ENTERABLE}""",
    "0014_extension_in_public": "SELECT extname::text FROM pg_extension WHERE extnamespace = 'public'::regnamespace",
    # a policy that trusts what a user may edit
    "0015_rls_references_user_metadata": f"{POLICIES} AND concat(p.qual, ' ', p.with_check) ~ 'user_metadata'",
    "0016_materialized_view_in_api": f"{CLASSES} AND o.relkind = 'm' AND {READABLE}",
    "0017_foreign_table_in_api": f"{CLASSES} AND o.relkind = 'f' AND {READABLE} AND {ENTERABLE}",
    # a column whose values pg_upgrade does not carry over
    "0018_unsupported_reg_types": f"""{CLASSES} AND EXISTS (SELECT FROM pg_attribute a
        WHERE a.attrelid = o.oid AND a.atttypid::regtype::text ~ '^reg' AND a.atttypid NOT IN (
            'regclass'::regtype, 'regrole'::regtype, 'regtype'::regtype))""",
    # a queue of pgmq's without row-level security
    "0019_insecure_queue_exposed_in_api": f"""{CLASSES} AND o.relkind IN ('r', 'p') AND NOT o.relrowsecurity
        AND {READABLE} AND n.nspname = 'pgmq' AND o.relname LIKE 'q\\_%'""",
    # a foreign key to what auth keeps unique besides its primary keys
    "0021_fkey_to_auth_unique": f"""{CLASSES} AND EXISTS (
        SELECT FROM pg_constraint f JOIN pg_index i ON i.indexrelid = f.conindid
        JOIN pg_class t ON t.oid = f.confrelid
        WHERE f.contype = 'f' AND f.conrelid = o.oid AND NOT i.indisprimary
            AND t.relnamespace = to_regnamespace('auth'))""",
    "0022_extension_versions_outdated": """SELECT name::text FROM pg_available_extensions
        WHERE installed_version <> default_version""",
    # a table of the API without row-level security, and with a telling column
    "0023_sensitive_columns_exposed": f"""{CLASSES} AND o.relkind = 'r' AND NOT o.relrowsecurity AND {READABLE}
        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND replace(a.attname, '-', '_') ~* '{SENSITIVE}')""",
    "0024_rls_policy_always_true": f"""{POLICIES} AND p.permissive = 'PERMISSIVE'
        AND p.roles && '{{public,anon,authenticated}}' AND 'true' IN (p.qual, p.with_check)""",
    "0025_pg17_deprecated_extensions": """SELECT extname::text FROM pg_extension
        WHERE extname IN ('adminpack', 'plv8', 'timescaledb')""",
    # a relation that pg_graphql describes to everybody
    "0026_pg_graphql_anon_table_exposed": f"""{CLASSES} AND o.relkind IN ('r', 'p', 'v', 'm', 'f') AND {SHOWN}
        AND has_any_column_privilege('anon', o.oid, 'SELECT')""",
    # one that it describes to whoever is signed in
    "0027_pg_graphql_authenticated_table_exposed": f"""{CLASSES} AND o.relkind IN ('r', 'p', 'v', 'm', 'f') AND {SHOWN}
        AND has_any_column_privilege('authenticated', o.oid, 'SELECT')""",
    # a SECURITY DEFINER function that the API's callers may execute
    "0028_anon_security_definer_function_executable": f"""{FUNCTIONS}
        AND o.prosecdef AND has_function_privilege('anon', o.oid, 'EXECUTE')""",
    "0029_authenticated_security_definer_function_executable": f"""{FUNCTIONS}
        AND o.prosecdef AND has_function_privilege('authenticated', o.oid, 'EXECUTE')""",
    "0030_autovacuum_disabled": f"{CLASSES} AND 'autovacuum_enabled=false' = ANY (o.reloptions)",
    # a policy that lets all through where nobody is signed in
    "0030_rls_policy_null_auth_disjunct": f"""{POLICIES} AND p.permissive = 'PERMISSIVE' AND p.cmd IN ('ALL', 'SELECT')
        AND p.roles && '{{public,anon,authenticated}}' AND p.qual ~ '\\mOR\\M'
        AND (p.qual ~ '{NULL}' OR p.qual ~ 'NOT \\(+(SELECT )?{NOT_NULL}')""",
}

TABLE = "CREATE TABLE planted.x (id uuid)"
GUARDED = f"{TABLE}; ALTER TABLE planted.x ENABLE ROW LEVEL SECURITY"
NOBODYS = "CREATE POLICY p ON planted.x TO authenticated USING (id IS NULL)"
FUNCTION = "CREATE FUNCTION planted.x() RETURNS int LANGUAGE sql"
VIOLATIONS = {
    "0002_auth_users_exposed": "CREATE VIEW planted.x WITH (security_invoker) AS SELECT id FROM auth.users; "
    "GRANT SELECT ON planted.x TO anon",
    "0003_auth_rls_initplan": f"{GUARDED}; CREATE POLICY p ON planted.x USING (auth.uid() = id)",
    "0004_no_primary_key": TABLE,
    "0006_multiple_permissive_policies": f"{GUARDED}; {NOBODYS}; "
    "CREATE POLICY q ON planted.x FOR SELECT USING (id IS NULL)",
    "0007_policy_exists_rls_disabled": f"{TABLE}; {NOBODYS}",
    "0008_rls_enabled_no_policy": GUARDED,
    "0010_security_definer_view": "CREATE VIEW planted.x AS SELECT * FROM federation_link.hospital_patients; "
    "GRANT SELECT ON planted.x TO anon",
    "0011_function_search_path_mutable": f"{FUNCTION} AS 'SELECT 1'",
    "0012_auth_allow_anonymous_sign_ins": f"{GUARDED}; {NOBODYS}",
    "0013_rls_disabled_in_public": f"{TABLE}; GRANT SELECT ON planted.x TO anon",
    "0014_extension_in_public": "CREATE EXTENSION hstore SCHEMA public",
    "0015_rls_references_user_metadata": f"{TABLE}; CREATE POLICY p ON planted.x "
    "USING ((SELECT auth.jwt()) -> 'user_metadata' ->> 'id' = id::text)",
    "0016_materialized_view_in_api": "CREATE MATERIALIZED VIEW planted.x AS SELECT 1 AS id; "
    "GRANT SELECT ON planted.x TO authenticated",
    "0017_foreign_table_in_api": "CREATE FOREIGN TABLE planted.x (id uuid) SERVER hospital; "
    "GRANT SELECT ON planted.x TO authenticated",
    "0018_unsupported_reg_types": "CREATE TABLE planted.x (id regnamespace)",
    "0019_insecure_queue_exposed_in_api": "ALTER SCHEMA planted RENAME TO pgmq; CREATE TABLE pgmq.q_x (id uuid); "
    "GRANT SELECT ON pgmq.q_x TO anon",
    "0021_fkey_to_auth_unique": "CREATE TABLE auth.y (id uuid UNIQUE); "
    "CREATE TABLE planted.x (id uuid REFERENCES auth.y (id))",
    "0022_extension_versions_outdated": "UPDATE pg_extension SET extversion = '0' WHERE extname = 'postgres_fdw'",
    "0023_sensitive_columns_exposed": "CREATE TABLE planted.x (Access_Token text); GRANT SELECT ON planted.x TO anon",
    "0024_rls_policy_always_true": f"{TABLE}; CREATE POLICY p ON planted.x TO authenticated USING (true)",
    "0025_pg17_deprecated_extensions": "UPDATE pg_extension SET extname = 'adminpack' WHERE extname = 'plpgsql'",
    "0026_pg_graphql_anon_table_exposed": f"{GUARDED}; GRANT SELECT (id) ON planted.x TO anon",
    "0027_pg_graphql_authenticated_table_exposed": f"{GUARDED}; GRANT SELECT (id) ON planted.x TO authenticated",
    "0028_anon_security_definer_function_executable": f"{FUNCTION} SECURITY DEFINER AS 'SELECT 1'",
    "0029_authenticated_security_definer_function_executable": f"{FUNCTION} SECURITY DEFINER AS 'SELECT 1'; "
    "REVOKE ALL ON FUNCTION planted.x() FROM PUBLIC; GRANT EXECUTE ON FUNCTION planted.x() TO authenticated",
    "0030_autovacuum_disabled": "CREATE TABLE planted.x (id uuid) WITH (autovacuum_enabled = false)",
    "0030_rls_policy_null_auth_disjunct": f"{GUARDED}; CREATE POLICY p ON planted.x "
    "USING ((SELECT auth.uid()) IS NULL OR (SELECT auth.uid()) = id)",
}
FOUND = {
    "0014_extension_in_public": "hstore",
    "0019_insecure_queue_exposed_in_api": "pgmq.q_x",
    "0022_extension_versions_outdated": "postgres_fdw",
    "0025_pg17_deprecated_extensions": "adminpack",
}
"""What a planted violation is found as, where it is not planted.x."""

PG_GRAPHQL = """
    CREATE EXTENSION hstore SCHEMA extensions;
    UPDATE pg_extension SET extname = 'pg_graphql' WHERE extname = 'hstore'
"""
"""Another extension in its place, by name: the checks of what it would show ask for no more."""


def findings(connection: psycopg.Connection[tuple[str, ...]]) -> set[tuple[str, str]]:
    connection.execute("SET LOCAL search_path = pg_catalog")
    return {
        (lint[:4], name)
        for lint, query in LINTS.items()
        for (name,) in connection.execute(query).fetchall()  # type: ignore[arg-type]
    }


def explained(side: str) -> set[tuple[str, str]]:
    """The findings that the page explains: | 0000 | side | `name`, `name` | why |."""
    page = (ROOT / "docs" / "secure.md").read_text()
    rows = re.findall(rf"^\| (\d{{4}}) \| {side} \| (.+?) \| .+ \|$", page, re.MULTILINE)
    return {(lint, name) for lint, names in rows for name in re.findall(r"`([\w.]+)`", names)}


@pytest.mark.claim("S38")
def test_the_linter_finds_nothing_that_the_page_does_not_explain(federated: Deployment) -> None:
    with federated.superuser("cloud") as superuser:
        superuser.execute("BEGIN")
        superuser.execute(PG_GRAPHQL)
        assert findings(superuser) == explained("cloud")


@pytest.mark.claim("S38")
def test_at_the_hospital_its_checks_find_nothing_that_the_page_does_not_explain(federated: Deployment) -> None:
    """The linter itself does not run there; the app's policies, which have moved there, came from where it does."""
    with federated.superuser("local") as superuser:
        superuser.execute("BEGIN")
        superuser.execute("CREATE ROLE anon")  # whom the checks ask about, and who has not come along
        assert findings(superuser) == explained("hospital")


def test_each_check_finds_a_planted_violation(federated: Deployment) -> None:
    """The negative control."""
    assert set(VIOLATIONS) == set(LINTS)
    with federated.superuser("cloud") as superuser:
        for lint, violation in VIOLATIONS.items():
            superuser.execute("BEGIN")
            superuser.execute(PG_GRAPHQL)
            superuser.execute("CREATE SCHEMA planted; GRANT USAGE ON SCHEMA planted TO anon, authenticated")
            superuser.execute(violation)  # type: ignore[arg-type]
            superuser.execute("SET LOCAL search_path = pg_catalog")
            found = {name for (name,) in superuser.execute(LINTS[lint])}  # type: ignore[arg-type]
            superuser.execute("ROLLBACK")
            planted = FOUND.get(lint, "planted.x")
            assert planted in found, lint
            assert (lint[:4], planted) not in explained("cloud")


def test_a_column_that_the_linter_calls_sensitive_is_called_so_here() -> None:
    for name in (
        "password",
        "api_key",
        "session_id",
        "2fa_code",
        "ssn",
        "drivers_license",
        "credit_card",
        "patient_id",
    ):
        assert re.search(SENSITIVE, name), name
