"""An app that the toolkit does not know: another schema, policies per user, per clinic and per role."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from federation.administration import accounts
from federation.check import check
from federation.errors import PreconditionMissing
from federation.lockstep import downgrade, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments import Deployment, Deployments

PATIENT, STAFF, PROVIDER, STRANGER = (f"00000000-0000-0000-0000-00000000000{n}" for n in "abcd")


@pytest.fixture
def clinics(deployments: Deployments, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """At base, with the app's schema on both sides, as its administrators have it."""
    with deployments.at_base(Path(__file__).parent) as deployment:
        for side in ("local", "cloud"):
            with deployment.owner(side) as owner:
                owner.execute("CREATE SCHEMA healthcare")
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


def test_without_the_apps_schema_nothing_begins(clinics: Deployment) -> None:
    with clinics.owner("local") as owner:
        owner.execute("DROP SCHEMA healthcare")
    with pytest.raises(PreconditionMissing, match="may not create in schema healthcare"):
        upgrade(clinics.config)
