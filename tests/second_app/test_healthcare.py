"""An app that the toolkit does not know: another schema, policies per user, per clinic and per role."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from deployments import Deployments

from federation.administration import accounts, bootstrap
from federation.check import check
from federation.config import Config
from federation.drift.declared import Declared
from federation.errors import PreconditionMissing
from federation.lockstep import downgrade, upgrade
from federation.scaffold import revision
from federation.testing import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments import Deployment

    from federation.servers import Pair

PATIENT, STAFF, PROVIDER, STRANGER = (f"00000000-0000-0000-0000-00000000000{n}" for n in "abcd")


class Clinics(Deployments):
    """Databases as bootstrap makes them for this app, and nothing done by hand."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        self.file, self.label = Path(__file__).parent / "federation.toml", "clinics"


@pytest.fixture(scope="module")
def all_clinics(pair: Pair) -> Iterator[Clinics]:
    with Clinics(pair) as databases:
        yield databases


@pytest.fixture
def clinics(all_clinics: Clinics, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """At base."""
    with all_clinics.at_base(Path(__file__).parent) as deployment:
        deployment.enter(monkeypatch)
        yield deployment


@pytest.fixture
def judged(clinics: Deployment) -> Deployment:
    """At head: three listed accounts; the patient's own row is of clinic A, and one of clinic B is nobody's."""
    upgrade(clinics.config)
    accounts.add(clinics.config, UUID(PATIENT))
    accounts.add(clinics.config, UUID(STAFF), {"clinic_id": "A"})
    accounts.add(clinics.config, UUID(PROVIDER), {"role": "provider"})
    with clinics.owner("local") as owner:
        owner.execute(
            "INSERT INTO healthcare.patients (patient_id, first_name, last_name, user_id, clinic_id) VALUES "
            "('1', 'Asha', 'K', %s, 'A'), ('2', 'Ravi', 'M', NULL, 'A'), ('3', 'Mira', 'S', NULL, 'B')",
            [PATIENT],
        )
        owner.execute(
            "INSERT INTO healthcare.prior_auth_requests (patient_id, clinic_id, payer_id) "
            "SELECT id, clinic_id, patient_id FROM healthcare.patients"
        )
    return clinics


@contextmanager
def caller(deployment: Deployment, sub: str | None, role: str = "authenticated") -> Iterator[psycopg.Cursor[Any]]:
    """A caller who claims to be of clinic B and an admin: only what the hospital lists counts."""
    with deployment.as_user(sub, role, clinic_id="B", app_role="admin") as cursor:
        yield cursor


def seen(deployment: Deployment, sub: str | None, role: str = "authenticated") -> tuple[list[str], list[str]]:
    with caller(deployment, sub, role) as cursor:
        patients = cursor.execute("SELECT first_name FROM healthcare.patients ORDER BY patient_id").fetchall()
        requests = cursor.execute("SELECT payer_id FROM healthcare.prior_auth_requests ORDER BY 1").fetchall()
    return [name for (name,) in patients], [payer for (payer,) in requests]


def test_it_goes_up_down_and_up_and_is_as_declared(clinics: Deployment) -> None:
    before = [clinics.dump(side) for side in ("local", "cloud")]
    upgrade(clinics.config)
    at_head = [clinics.dump(side) for side in ("local", "cloud")]
    assert check(clinics.config) == []
    downgrade(clinics.config, "0001")
    downgrade(clinics.config, "base")
    assert [clinics.dump(side) for side in ("local", "cloud")] == before
    upgrade(clinics.config)
    assert [clinics.dump(side) for side in ("local", "cloud")] == at_head
    assert check(clinics.config) == []


def test_reads_are_judged_by_user_by_clinic_and_by_role(judged: Deployment) -> None:
    assert seen(judged, PATIENT) == (["Asha"], [])
    assert seen(judged, STAFF) == (["Asha", "Ravi"], ["1", "2"])
    assert seen(judged, PROVIDER) == ([], ["1", "2", "3"])
    assert seen(judged, STRANGER) == ([], [])
    assert seen(judged, None, "service_role") == (["Asha", "Ravi", "Mira"], ["1", "2", "3"])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        seen(judged, None, "anon")


def test_writes_are_judged_too(judged: Deployment) -> None:
    with judged.owner("local") as owner:
        ids = dict(owner.execute("SELECT clinic_id, min(id::text) FROM healthcare.patients GROUP BY 1").fetchall())
    insert = "INSERT INTO healthcare.prior_auth_requests (patient_id, clinic_id) VALUES (%s, %s) RETURNING status"
    with caller(judged, STAFF) as cursor:
        assert cursor.execute(insert, [ids["A"], "A"]).fetchone() == ("pending",)
    for sub, clinic in ((STAFF, "B"), (PATIENT, "A"), (PROVIDER, "A"), (STRANGER, "A")):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), caller(judged, sub) as cursor:
            cursor.execute(insert, [ids[clinic], clinic])
    rename = "UPDATE healthcare.patients SET last_name = 'L'"
    for sub, rows in ((PATIENT, 1), (STAFF, 2), (PROVIDER, 0), (STRANGER, 0)):
        with caller(judged, sub) as cursor:
            assert cursor.execute(rename).rowcount == rows
    with pytest.raises(psycopg.errors.InsufficientPrivilege), caller(judged, STAFF) as cursor:
        cursor.execute("UPDATE healthcare.patients SET clinic_id = 'B'")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), caller(judged, STAFF) as cursor:
        cursor.execute("DELETE FROM healthcare.patients")


def test_a_join_is_sent_though_no_column_holds_the_site(judged: Deployment) -> None:
    """A predicate that names no column at all would keep it from being sent, before 18."""
    query = (
        "EXPLAIN (VERBOSE, COSTS OFF) SELECT r.*, p.last_name FROM healthcare.prior_auth_requests r "
        "JOIN healthcare.patients p ON p.id = r.patient_id ORDER BY r.created_at DESC"
    )
    with caller(judged, STAFF) as cursor:
        plan = [line for (line,) in cursor.execute(query).fetchall() if "Remote SQL" in line]
    assert len(plan) == 1
    assert "INNER JOIN healthcare.patients" in plan[0]
    assert "ORDER BY" in plan[0]


def test_what_changes_behind_its_back_is_found(judged: Deployment) -> None:
    with judged.owner("local") as owner:
        owner.execute("ALTER TABLE healthcare.patients ALTER last_name TYPE varchar(99)")
        owner.execute('ALTER POLICY "rows of the clinic" ON healthcare.prior_auth_requests USING (true)')
    found = [(item.side, item.mark, item.what, item.name) for item in check(judged.config)]
    assert found == [
        ("local", "~", "column", "patients.last_name"),
        ("local", "~", "policy", "healthcare.prior_auth_requests.rows of the clinic"),
        ("cloud", "~", "hospital's column", "patients.last_name"),
        ("local", "~", "table", "healthcare.patients"),  # the change of type has rewritten it
    ]


@pytest.fixture
def generating(clinics: Deployment, tmp_path: Path) -> Deployment:
    """At base, in a folder with the declarations and without any release.

    A generated binding acts as the account's role, which then needs the privileges itself.
    """
    here = Path(__file__).parent
    for name in ("alembic.ini", "federation.toml", "healthcare_models.py"):
        shutil.copy(here / name, tmp_path / name)
    for side in ("local", "cloud"):
        (tmp_path / "versions" / side).mkdir(parents=True)
    toml = (tmp_path / "federation.toml").read_text()
    link = '"@link" = ["SELECT", "INSERT", "UPDATE"]\n'
    assert link in toml
    (tmp_path / "federation.toml").write_text(toml.replace(link, link + link.replace('"@link"', "authenticated")))
    clinics.root = tmp_path
    return clinics


def test_generated_releases_need_nothing_done_by_hand(generating: Deployment) -> None:
    for message in ("the link", "tables"):
        (written,) = revision(generating.config, message, autogenerate=True)
        upgrade(generating.config)
    grants = "op.grant(('USAGE',), 'healthcare', to=('authenticated', 'service_role'), kind='SCHEMA')"
    assert grants in written.cloud.read_text()
    assert "kind='SCHEMA'" not in written.local.read_text()  # bootstrap has granted it
    assert check(generating.config) == []
    accounts.add(generating.config, UUID(STAFF), {"clinic_id": "A"})
    with caller(generating, STAFF) as cursor:
        names = "patient_id, first_name, last_name, clinic_id"
        cursor.execute(f"INSERT INTO healthcare.patients ({names}) VALUES ('1', 'A', 'B', 'A')")
    assert seen(generating, STAFF) == (["A"], [])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        seen(generating, None, "anon")
    before = [generating.dump(side) for side in ("local", "cloud")]
    downgrade(generating.config, "0001")
    upgrade(generating.config)
    assert [generating.dump(side) for side in ("local", "cloud")] == before


def test_a_schema_that_nobody_may_use_is_found(judged: Deployment) -> None:
    with judged.owner("local") as hospital, judged.owner("cloud") as cloud:
        hospital.execute("REVOKE USAGE ON SCHEMA healthcare FROM federation_link")
        cloud.execute("REVOKE USAGE ON SCHEMA healthcare FROM authenticated")
    found = {(item.side, item.mark, item.what, item.name, item.detail) for item in check(judged.config)}
    assert ("local", "+", "grant", "schema healthcare", "USAGE to LINK") in found
    assert ("cloud", "+", "grant", "schema healthcare", "USAGE to authenticated") in found


def test_what_the_owner_may_not_grant_is_the_administrators(judged: Deployment) -> None:
    with judged.superuser("local") as hospital:
        hospital.execute("ALTER SCHEMA healthcare OWNER TO postgres")
        hospital.execute("GRANT USAGE, CREATE ON SCHEMA healthcare TO hospital_owner")
        hospital.execute("REVOKE USAGE ON SCHEMA healthcare FROM federation_link")
    (found,) = [item for item in check(judged.config) if item.what == "schema"]
    statement = "an administrator runs GRANT USAGE ON SCHEMA healthcare TO federation_link"
    assert (found.side, found.mark, found.name) == ("local", "~", "healthcare")
    assert found.detail == f"cannot be used by federation_link: {statement}"


def test_a_link_role_that_may_not_use_the_schema_is_named_before_anything_runs(clinics: Deployment) -> None:
    with clinics.owner("local") as owner:
        owner.execute("REVOKE USAGE ON SCHEMA healthcare FROM federation_service")
    with pytest.raises(PreconditionMissing, match="role federation_service may not use schema healthcare") as refused:
        upgrade(clinics.config)
    assert "federation bootstrap local" in str(refused.value)
    bootstrap.apply(clinics.config, "local")
    upgrade(clinics.config)


def test_a_metadata_of_another_schema_is_refused() -> None:
    config = Config.load(Path(__file__).parent / "federation.toml", {})
    metadata = sa.MetaData()
    for name in config.tables.exported:
        sa.Table(name, metadata, sa.Column("id", sa.Uuid(), primary_key=True))
    with pytest.raises(PreconditionMissing) as refused:
        _ = Declared(config, metadata).tables
    assert str(refused.value) == (
        "healthcare_models:metadata declares patients, prior_auth_requests in schema public, and tables.schema of "
        'federation.toml is healthcare — declare them in that schema (MetaData(schema="healthcare")), or change '
        "tables.schema"
    )


ACCOUNTS: dict[str, dict[str, object]] = {
    "00000000-0000-0000-0000-000000000001": {"clinic_id": "A"},
    "00000000-0000-0000-0000-000000000acc": {"clinic_id": "B"},
}


def test_the_kits_checks_pass_in_a_schema_of_its_own(all_clinics: Clinics, pytestconfig: pytest.Config) -> None:
    checks.test_check_is_clean_at_head(all_clinics)
    checks.test_no_table_without_policies_is_exposed(all_clinics)
    for release in all_clinics.releases.ids:
        checks.test_each_release_up_down_and_up_leaves_the_same_catalogs(all_clinics, release)
        checks.test_older_clouds_read_and_write(all_clinics, release, ACCOUNTS, {}, pytestconfig)
    for table in ("patients", "prior_auth_requests"):
        checks.test_every_view_answers(all_clinics, table)
        checks.test_two_accounts_see_and_change_only_their_own_rows(all_clinics, table, ACCOUNTS, {}, pytestconfig)


def test_without_the_apps_schema_nothing_begins(clinics: Deployment) -> None:
    with clinics.owner("local") as owner:
        owner.execute("DROP SCHEMA healthcare")
    with pytest.raises(PreconditionMissing, match="may not create in schema healthcare"):
        upgrade(clinics.config)
