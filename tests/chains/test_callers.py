"""What callers may do through the cloud, at every pair of releases that can meet."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic import command
from deployments import OTHER
from psycopg import sql

from federation.administration import accounts
from federation.environments import alembic_config
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

RELEASES = ("0001", "0002", "0003", "0004")
PAIRS = [(cloud, local) for local in RELEASES for cloud in RELEASES if cloud <= local]


def tables(cloud: str) -> list[str]:
    names = ["hospital_patients", "hospital_queues", "hospital_prescriptions"]
    return names + (["hospital_patient_reviews"] if cloud >= "0002" else [])


def at(deployment: Deployment, cloud: str, local: str) -> Deployment:
    command.upgrade(alembic_config(deployment.config, "local"), local)
    command.upgrade(alembic_config(deployment.config, "cloud"), cloud)
    return deployment


@pytest.mark.parametrize(("cloud", "local"), PAIRS, ids=lambda release: release)
def test_every_pair_of_releases_reads_and_writes(deployment: Deployment, cloud: str, local: str) -> None:
    at(deployment, cloud, local)
    with deployment.as_user() as caller:
        caller.execute("INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, 'Asha') RETURNING *", [SITE_ID])
        patient = dict(zip([column.name for column in caller.description or ()], caller.fetchone() or (), strict=True))
        assert isinstance(patient["id"], uuid.UUID)
        assert patient["created_at"] is not None
        caller.execute(
            "INSERT INTO hospital_queues (hospital_id, patient_id, queue_number) VALUES (%s, %s, 1) "
            "RETURNING id, status",
            [SITE_ID, patient["id"]],
        )
        queue, status = caller.fetchone() or (None, None)
        assert status == "pending"
        caller.execute(
            "INSERT INTO hospital_prescriptions (hospital_id, patient_id, queue_id) VALUES (%s, %s, %s) "
            "RETURNING medications",
            [SITE_ID, patient["id"], queue],
        )
        assert caller.fetchone() == ([],)
        if cloud >= "0002":
            caller.execute(
                "INSERT INTO hospital_patient_reviews (hospital_id, patient_id, next_review_date) "
                "VALUES (%s, %s, current_date) RETURNING status",
                [SITE_ID, patient["id"]],
            )
            assert caller.fetchone() == ("pending",)
    for table in tables(cloud):
        with deployment.as_user(read_only=True) as caller:
            assert caller.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)  # type: ignore[arg-type]
        with deployment.as_user(OTHER, read_only=True) as caller:
            assert caller.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[arg-type]
        with pytest.raises(psycopg.errors.InsufficientPrivilege), deployment.as_user(None, "anon") as caller:
            caller.execute(f"SELECT count(*) FROM {table}")  # type: ignore[arg-type]
    with deployment.as_user() as caller:
        updated = caller.execute("UPDATE hospital_patients SET name = 'Asha K' WHERE name = 'Asha'").rowcount
        assert updated == 1
        caller.execute("DELETE FROM hospital_patients WHERE id = %s", [patient["id"]])
        assert caller.rowcount == 1
    with deployment.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_queues").fetchone() == (0,)


def plant(deployment: Deployment) -> None:
    """One patient, written at the hospital by its own people."""
    with deployment.owner("local") as owner:
        owner.execute("INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, 'Asha')", [SITE_ID])


@pytest.mark.claim("S7")
def test_another_account_cannot_write(federated: Deployment) -> None:
    plant(federated)
    with (
        pytest.raises(
            psycopg.errors.InsufficientPrivilege,
            match='new row violates row-level security policy for table "hospital_patients"',
        ),
        federated.as_user(OTHER) as caller,
    ):
        caller.execute("INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, 'Eve')", [SITE_ID])
    for statement in ("UPDATE hospital_patients SET name = 'Eve'", "DELETE FROM hospital_patients"):
        with federated.as_user(OTHER) as caller:
            assert caller.execute(statement).rowcount == 0  # type: ignore[arg-type]
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT name FROM hospital_patients").fetchall() == [("Asha",)]


@pytest.mark.claim("S7")
def test_a_row_for_another_hospital_is_refused(federated: Deployment) -> None:
    plant(federated)
    for statement in (
        f"INSERT INTO hospital_patients (hospital_id, name) VALUES ('{OTHER}', 'Eve')",
        f"UPDATE hospital_patients SET hospital_id = '{OTHER}'",
    ):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="new row violates row-level security policy"),
            federated.as_user() as caller,
        ):
            caller.execute(statement)  # type: ignore[arg-type]


@pytest.mark.claim("S8")
def test_the_hospital_refuses_such_a_row_whatever_the_cloud_thinks(federated: Deployment) -> None:
    """The service's session, past the view's check option, still meets the site's CHECK."""
    with (
        pytest.raises(psycopg.errors.CheckViolation, match="hospital_patients_site_check"),
        federated.owner("cloud") as owner,
    ):
        owner.execute(
            "INSERT INTO federation_link.hospital_patients (id, hospital_id, name) "
            "VALUES (gen_random_uuid(), %s, 'Eve')",
            [OTHER],
        )


def test_service_role_works_for_the_app(federated: Deployment) -> None:
    plant(federated)
    with federated.as_user(None, "service_role") as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (1,)
        caller.execute("INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, 'Ravi')", [SITE_ID])
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (2,)


@pytest.fixture
def two_users(federated: Deployment) -> Deployment:
    """A policy per user at the hospital, two listed accounts with a row each, the site's account's row beside them."""
    for sub in (OTHER, "00000000-0000-0000-0000-000000000003"):
        accounts.add(federated.config, uuid.UUID(sub), {})
    with federated.owner("local") as owner:
        for (name,) in owner.execute(
            "SELECT polname FROM pg_policy WHERE polrelid = 'hospital_patients'::regclass AND 0 = ANY (polroles)"
        ).fetchall():
            owner.execute(sql.SQL("DROP POLICY {} ON hospital_patients").format(sql.Identifier(name)))
        owner.execute(
            "CREATE POLICY per_user ON hospital_patients "
            "USING ((SELECT auth.uid()) = linked_user_id OR (SELECT auth.uid()) = hospital_id)"
        )
        for name, sub in (("Asha", OTHER), ("Ravi", "00000000-0000-0000-0000-000000000003")):
            owner.execute(
                "INSERT INTO hospital_patients (hospital_id, name, linked_user_id) VALUES (%s, %s, %s)",
                [SITE_ID, name, sub],
            )
    return federated


@pytest.mark.claim("S1")
def test_the_hospitals_policies_decide_about_each_row(two_users: Deployment) -> None:
    for sub, names in ((OTHER, ["Asha"]), ("00000000-0000-0000-0000-000000000003", ["Ravi"])):
        with two_users.as_user(sub, read_only=True) as caller:
            assert caller.execute("SELECT name FROM hospital_patients").fetchall() == [(name,) for name in names]
    with two_users.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (2,)
    unlisted = "00000000-0000-0000-0000-0000000000ff"
    with two_users.as_user(unlisted, read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)


@pytest.mark.claim("S11")
def test_a_second_caller_in_one_transaction_is_refused_and_sees_none_of_the_firsts_rows(two_users: Deployment) -> None:
    seen: list[tuple[str, ...]] = []
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="another caller is bound"),
        two_users.as_user(OTHER, read_only=True) as caller,
    ):
        assert caller.execute("SELECT name FROM hospital_patients").fetchall() == [("Asha",)]
        caller.execute(
            "SELECT set_config('request.jwt.claims', %s, true)",
            ['{"sub": "00000000-0000-0000-0000-000000000003", "role": "authenticated"}'],
        )
        seen = caller.execute("SELECT name FROM hospital_patients").fetchall()
    assert seen == []


@pytest.mark.claim("S17")
def test_a_forged_mark_binds_nobody_and_the_hospital_says_so(federated: Deployment) -> None:
    plant(federated)
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="no caller is bound"),
        federated.as_user(OTHER, read_only=True) as caller,
    ):
        caller.execute(
            "SELECT set_config('federation.bound', %s || '@' || transaction_timestamp(), true), "
            "set_config('federation.listed', 'true', true)",
            [OTHER],
        )
        caller.execute("SELECT * FROM hospital_patients").fetchall()


@pytest.mark.claim("N2")
def test_whoever_holds_the_links_password_can_name_a_listed_account_and_invent_none(federated: Deployment) -> None:
    plant(federated)
    config = federated.config
    user, password = config.link_login("link")
    with psycopg.connect(federated.pair.local.url(user, password, federated.local_dbname)) as link:
        link.execute("SELECT set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{SITE_ID}"}}'])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no caller is bound"):
            link.execute("SELECT * FROM hospital_patients")
        link.rollback()
        link.execute("SELECT set_config('federation.account', %s, true)", [OTHER])
        assert link.execute("SELECT auth.uid(), auth.jwt()").fetchone() == (None, None)
        assert link.execute("SELECT * FROM hospital_patients").fetchall() == []


@pytest.mark.claim("S2")
def test_a_removed_account_sees_nothing_from_its_next_transaction(two_users: Deployment) -> None:
    accounts.remove(two_users.config, uuid.UUID(OTHER))
    with two_users.as_user(OTHER, read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)


@pytest.mark.claim("S9")
def test_callers_cannot_reach_the_foreign_tables_or_the_bindings_parts(federated: Deployment) -> None:
    for statement in (
        "SELECT count(*) FROM federation_link.hospital_patients",
        "SELECT federation_private.send(false)",
        "SELECT * FROM federation_private.bind",
        "SELECT * FROM federation_private.site",
        "SELECT * FROM federation.alembic_version",
        "SELECT * FROM federation.history",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), federated.as_user() as caller:
            caller.execute(statement)  # type: ignore[arg-type]


@pytest.mark.claim("S30")
def test_no_value_of_a_patient_is_in_the_clouds_statistics(federated: Deployment) -> None:
    plant(federated)
    with federated.owner("cloud") as owner:
        owner.execute("ANALYZE")
        for table in tables("0004"):
            owner.execute(f"ANALYZE federation_link.{table}")  # type: ignore[arg-type]
        kept = "SELECT count(*) FROM pg_statistic s JOIN pg_foreign_table f ON f.ftrelid = s.starelid"
    with federated.superuser("cloud") as superuser:
        assert superuser.execute(kept).fetchone() == (0,)
        # The negative control: with the default target the same ANALYZE brings the patient's name over.
        superuser.execute("ALTER FOREIGN TABLE federation_link.hospital_patients ALTER COLUMN name SET STATISTICS -1")
    with federated.owner("cloud") as owner:
        owner.execute("ANALYZE federation_link.hospital_patients")
    with federated.superuser("cloud") as superuser:
        assert superuser.execute(kept).fetchone() == (1,)


@pytest.mark.claim("S26")
def test_every_function_pins_its_search_path(federated: Deployment) -> None:
    loose = """
        SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('federation', 'federation_private', 'public', 'auth') AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
          AND pg_get_userbyid(p.proowner) NOT IN ('supabase_admin')
          AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)
    """
    for side in ("local", "cloud"):
        with federated.superuser(side) as superuser:
            assert superuser.execute(loose).fetchall() == []
            superuser.execute("CREATE FUNCTION public.loose() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            superuser.execute("ALTER FUNCTION public.loose() OWNER TO CURRENT_USER")
            owner = "hospital_owner" if side == "local" else "postgres"
            superuser.execute(f"ALTER FUNCTION public.loose() OWNER TO {owner}")  # type: ignore[arg-type]
            assert superuser.execute(loose).fetchall() == [("loose()",)], "the query finds nothing"


def test_a_prescription_keeps_its_review(federated: Deployment) -> None:
    plant(federated)
    with federated.as_user() as caller:
        caller.execute(
            "INSERT INTO hospital_prescriptions (hospital_id, patient_id, next_review_date) "
            "SELECT hospital_id, id, '2026-12-01' FROM hospital_patients RETURNING id"
        )
        (prescription,) = caller.fetchone() or (None,)
        review = "SELECT status, next_review_date::text FROM hospital_patient_reviews WHERE source_prescription_id = %s"
        assert caller.execute(review, [prescription]).fetchone() == ("pending", "2026-12-01")
        caller.execute(
            "UPDATE hospital_prescriptions SET next_review_date = '2026-12-24' WHERE id = %s", [prescription]
        )
        assert caller.execute(review, [prescription]).fetchone() == ("pending", "2026-12-24")
        caller.execute("UPDATE hospital_prescriptions SET status = 'cancelled' WHERE id = %s", [prescription])
        assert (caller.execute(review, [prescription]).fetchone() or ())[0] == "cancelled"


def test_the_app_reads_the_name_of_the_first_unique_index(federated: Deployment) -> None:
    plant(federated)
    with federated.as_user() as caller:
        caller.execute(
            "INSERT INTO hospital_queues (hospital_id, patient_id, queue_number) "
            "SELECT hospital_id, id, 1 FROM hospital_patients"
        )
    with (
        pytest.raises(psycopg.errors.UniqueViolation, match="uq_prescriptions_queue_id_nonnull"),
        federated.as_user() as caller,
    ):
        for _ in range(2):
            caller.execute(
                "INSERT INTO hospital_prescriptions (hospital_id, patient_id, queue_id) "
                "SELECT hospital_id, patient_id, id FROM hospital_queues"
            )


def test_the_whole_query_is_sent(federated: Deployment) -> None:
    with federated.owner("local") as owner:
        owner.execute(
            "INSERT INTO hospital_patients (hospital_id, name) "
            "SELECT %s, 'Patient ' || n FROM generate_series(1, 50000) n",
            [SITE_ID],
        )
    with federated.owner("cloud") as owner:
        owner.execute("ANALYZE federation_link.hospital_patients")

    def remote_sql(query: str) -> str:
        with federated.as_user(read_only=True) as caller:
            plan = caller.execute(f"EXPLAIN (VERBOSE, COSTS OFF) {query}").fetchall()  # type: ignore[arg-type]
        return "\n".join(line for (line,) in plan).split("Remote SQL:")[-1]

    latest = remote_sql("SELECT id, name FROM hospital_patients ORDER BY created_at DESC LIMIT 50")
    assert "hospital_id = $1::uuid" in latest
    assert "ORDER BY created_at DESC NULLS FIRST LIMIT 50" in latest
    assert "~~* '%ash%'" in remote_sql("SELECT id FROM hospital_patients WHERE name ILIKE '%ash%'")
    assert "count(*)" in remote_sql("SELECT count(*) FROM hospital_patients")


def test_a_policy_written_to_authenticated_decides_at_the_hospital_unchanged(federated: Deployment) -> None:
    plant(federated)
    with federated.owner("local") as owner:
        owner.execute("ALTER POLICY own_rows ON hospital_patients TO authenticated")
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (1,)
    with federated.owner("local") as owner:
        owner.execute("ALTER POLICY own_rows ON hospital_patients TO federation_service")
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)


def test_the_role_that_an_account_takes_ends_with_the_transaction(federated: Deployment) -> None:
    plant(federated)
    with federated.as_user(read_only=True) as caller:
        caller.execute("SELECT count(*) FROM hospital_patients")
    with federated.as_user(OTHER, read_only=True) as caller:  # nobody takes no role
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (1,)


BY_SERVICE = """
    CREATE FUNCTION public.by_service(id uuid) RETURNS void LANGUAGE sql SECURITY DEFINER AS
    $$ INSERT INTO public.hospital_patients (hospital_id, name) VALUES ($1, 'Ravi') $$;
    REVOKE ALL ON FUNCTION public.by_service(uuid) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION public.by_service(uuid) TO authenticated;
"""


@pytest.mark.claim("S20")
def test_writes_of_both_kinds_in_one_transaction_are_refused(federated: Deployment) -> None:
    with federated.owner("cloud") as owner:
        owner.execute(BY_SERVICE)
    own = "INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, 'Asha')"
    service = "SELECT by_service(%s)"
    for first, second in ((own, service), (service, own)):
        with (
            pytest.raises(psycopg.errors.FeatureNotSupported, match="in one transaction"),
            federated.as_user() as caller,
        ):
            caller.execute(first, [SITE_ID])
            caller.execute(second, [SITE_ID])
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)
    for statement in (own, service):  # each alone, and after a refused one was rolled back to a savepoint
        with federated.as_user() as caller:
            caller.execute("SAVEPOINT before")
            caller.execute(own if statement is service else service, [SITE_ID])
            caller.execute("ROLLBACK TO before")
            caller.execute(statement, [SITE_ID])
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (2,)


@pytest.mark.claim("S31")
def test_a_constraint_error_over_the_link_carries_no_row(federated: Deployment) -> None:
    """PostgreSQL leaves the row out of DETAIL under row-level security, and both link roles are under it."""
    plant(federated)
    for role, statement in (
        ("authenticated", "INSERT INTO hospital_queues (hospital_id, completed_by_name) VALUES ('{0}', 'Asha')"),
        ("service_role", "INSERT INTO hospital_queues (hospital_id, completed_by_name) VALUES ('{0}', 'Asha')"),
        (
            "service_role",
            "INSERT INTO federation_link.hospital_patients (id, hospital_id, name) "
            f"VALUES (gen_random_uuid(), '{OTHER}', 'Asha')",
        ),
    ):
        connect = federated.as_user(SITE_ID, role) if "federation_link" not in statement else federated.owner("cloud")
        with pytest.raises(psycopg.errors.IntegrityError) as raised, connect as caller:
            caller.execute(statement.format(SITE_ID))  # type: ignore[arg-type]
        assert "Asha" not in str(raised.value)
        assert raised.value.diag.message_detail is None
    with (
        pytest.raises(psycopg.errors.NotNullViolation, match="Failing row contains"),
        federated.owner("local") as owner,
    ):
        owner.execute("INSERT INTO hospital_queues (hospital_id, completed_by_name) VALUES (%s, 'Asha')", [SITE_ID])
