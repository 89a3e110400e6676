"""The cloud is like Supabase where it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from federation.servers import Pair

API_ROLES = ("anon", "authenticated", "service_role")
SUB = "11111111-1111-1111-1111-111111111111"


@pytest.fixture
def owner(pair: Pair) -> Iterator[psycopg.Connection]:
    """The app's owner, in a transaction that is rolled back."""
    with psycopg.connect(pair.environment()["FEDERATION_CLOUD_URL"]) as connection:
        yield connection
        connection.rollback()


def test_the_owner_is_mighty_but_no_superuser(owner: psycopg.Connection) -> None:
    row = owner.execute(
        """SELECT current_user::text, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
           FROM pg_roles WHERE rolname = current_user"""
    ).fetchone()
    assert row == ("postgres", False, True, True, True, True)


def test_the_owner_may_not_use_the_wrapper_before_the_bootstrap(owner: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("CREATE EXTENSION postgres_fdw")


def test_the_owner_owns_database_and_publication_but_not_auth(owner: psycopg.Connection) -> None:
    row = owner.execute(
        """SELECT pg_get_userbyid(datdba), pg_get_userbyid(pubowner), nspowner::regrole::text
           FROM pg_database, pg_publication, pg_namespace
           WHERE datname = current_database() AND pubname = 'supabase_realtime' AND nspname = 'auth'"""
    ).fetchone()
    assert row == ("postgres", "postgres", "supabase_admin")
    owner.execute("CREATE TABLE public.mine (user_id uuid REFERENCES auth.users)")
    owner.execute("ALTER PUBLICATION supabase_realtime ADD TABLE public.mine")
    owner.execute("CREATE SCHEMA federation")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("CREATE TABLE auth.mine ()")


def test_who_bypasses_row_level_security(owner: psycopg.Connection) -> None:
    rows = owner.execute(
        "SELECT rolname, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1", [list(API_ROLES)]
    ).fetchall()
    assert rows == [("anon", False, False), ("authenticated", False, False), ("service_role", True, False)]


def test_a_new_table_of_public_is_the_apis_at_once(owner: psycopg.Connection) -> None:
    owner.execute("CREATE TABLE public.fresh (id int GENERATED ALWAYS AS IDENTITY)")
    owner.execute("CREATE FUNCTION public.hello() RETURNS int LANGUAGE sql RETURN 1")
    for role in API_ROLES:
        row = owner.execute(
            """SELECT has_table_privilege(%(role)s, 'public.fresh', 'SELECT'),
                      has_table_privilege(%(role)s, 'public.fresh', 'INSERT'),
                      has_table_privilege(%(role)s, 'public.fresh', 'TRUNCATE'),
                      has_sequence_privilege(%(role)s, 'public.fresh_id_seq', 'USAGE'),
                      has_function_privilege(%(role)s, 'public.hello()', 'EXECUTE'),
                      has_schema_privilege(%(role)s, 'auth', 'USAGE'),
                      has_table_privilege(%(role)s, 'auth.users', 'SELECT')""",
            {"role": role},
        ).fetchone()
        assert row == (True, True, True, True, True, True, False)


def test_the_authenticator_has_no_rights_until_it_becomes_a_caller(pair: Pair) -> None:
    with psycopg.connect(pair.authenticator_url()) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("SELECT auth.uid()")
        for role in API_ROLES:
            with connection.transaction():
                connection.execute(psycopg.sql.SQL("SET LOCAL ROLE {}").format(psycopg.sql.Identifier(role)))
                assert connection.execute("SELECT auth.uid(), auth.jwt(), auth.role()").fetchone() == (None, None, None)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("SET LOCAL ROLE postgres")


def test_the_caller_is_read_from_the_requests_claims(pair: Pair) -> None:
    with psycopg.connect(pair.authenticator_url()) as connection:
        connection.execute("SET LOCAL ROLE authenticated")
        claims = Jsonb({"sub": SUB, "role": "authenticated"})
        connection.execute("SELECT set_config('request.jwt.claims', %s::text, true)", [claims])
        row = connection.execute("SELECT auth.uid()::text, auth.jwt() ->> 'sub', auth.role()").fetchone()
        assert row == (SUB, SUB, "authenticated")


def test_extensions_have_a_schema_of_their_own_in_the_owners_path(owner: psycopg.Connection) -> None:
    assert owner.execute("SELECT current_schemas(false)::text[]").fetchone() == (["public", "extensions"],)


def test_a_prepared_database_is_a_template_and_the_environment_follows(pair: Pair) -> None:
    pair.cloud.create_database("prepared")
    pair.prepare_cloud_database("prepared")
    pair.cloud.create_database("clone", owner="postgres", template="prepared")
    with psycopg.connect(pair.environment(cloud_dbname="clone")["FEDERATION_CLOUD_URL"]) as connection:
        connection.execute("CREATE TABLE public.fresh ()")
        row = connection.execute("SELECT current_database(), has_table_privilege('anon', 'public.fresh', 'SELECT')")
        assert row.fetchone() == ("clone", True)
    pair.cloud.drop_database("clone")
    pair.cloud.drop_database("prepared")


def test_the_environment_is_that_of_the_interface(pair: Pair) -> None:
    environment = pair.environment(local_dbname="h")
    assert set(environment) == {
        "FEDERATION_LOCAL_URL",
        "FEDERATION_CLOUD_URL",
        "FEDERATION_LOCAL_ADMIN_URL",
        "FEDERATION_CLOUD_ADMIN_URL",
        "FEDERATION_LINK_HOST",
        "FEDERATION_LINK_PASSWORD",
        "FEDERATION_SERVICE_PASSWORD",
        "FEDERATION_SITE_ID",
    }
    assert environment["FEDERATION_LOCAL_URL"].startswith("postgresql://hospital_owner:")
    assert environment["FEDERATION_LOCAL_URL"].endswith(f"@127.0.0.1:{pair.local.port}/h")
    for name in ("FEDERATION_LOCAL_ADMIN_URL", "FEDERATION_CLOUD_ADMIN_URL"):
        with psycopg.connect(environment[name]) as connection:
            assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (
                True,
            )
