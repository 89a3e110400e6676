"""The app's tests: two people at one clinic, through the cloud, as PostgREST asks for them."""

import clinic
import psycopg
import pytest

from federation.testing.pair import FederationPair

ASHA, RAVI = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


@pytest.fixture
def pair(federation_pair: FederationPair) -> FederationPair:
    """Asha has a cat with two visits, Ravi a dog with one; the clinic admits both."""
    for sub in (ASHA, RAVI):
        federation_pair.add_account(sub)
    pets = federation_pair.load(
        {"pets": [{"user_id": ASHA, "name": "Mira"}, {"user_id": RAVI, "name": "Bruno"}]},
    )["pets"]
    days = {ASHA: ("2026-03-02", "2026-03-01"), RAVI: ("2026-03-03",)}
    federation_pair.load(
        {
            "visits": [
                {"user_id": pet["user_id"], "pet_id": pet["id"], "day": day}
                for pet in pets
                for day in days[str(pet["user_id"])]
            ]
        }
    )
    return federation_pair


def test_everybody_sees_their_own_visits(pair: FederationPair) -> None:
    with pair.as_user(ASHA, read_only=True) as asha:
        assert clinic.planned_visits(asha) == [("Mira", "2026-03-01"), ("Mira", "2026-03-02")]
    with pair.as_user(RAVI, read_only=True) as ravi:
        assert clinic.planned_visits(ravi) == [("Bruno", "2026-03-03")]


def test_a_visit_is_kept_at_the_clinic(pair: FederationPair) -> None:
    with pair.as_user(RAVI) as ravi:
        clinic.plan_visit(ravi, RAVI, "Bruno", "2026-04-01")
    found = pair.owner("local").execute("SELECT count(*) FROM visits WHERE day = '2026-04-01'").fetchone()
    assert found == (1,)


def test_nobody_plans_for_somebody_else(pair: FederationPair) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), pair.as_user(RAVI) as ravi:
        clinic.plan_visit(ravi, ASHA, "Bruno", "2026-04-01")


@pytest.mark.federation(release="0001")
def test_before_chips_a_pet_is_found_by_name(federation_pair: FederationPair) -> None:
    federation_pair.load({"pets": [{"name": "Mira"}]})
    federation_pair.upgrade("0002")
    assert federation_pair.owner("local").execute("SELECT name, chip FROM pets").fetchall() == [("Mira", None)]


def test_a_closed_clinic_is_said_and_is_no_empty_list(pair: FederationPair) -> None:
    with pair.local_down(), pytest.raises(clinic.ClinicClosed), pair.as_user(ASHA) as asha:
        clinic.planned_visits(asha)
    with pair.as_user(ASHA) as asha:
        assert len(clinic.planned_visits(asha)) == 2


def test_the_page_keeps_few_round_trips(pair: FederationPair) -> None:
    with pair.proxied_link() as link:
        link.counting = True
        with pair.as_user(ASHA) as asha:
            clinic.planned_visits(asha)  # logs in at the clinic, and binds Asha
            before = link.tally.round_trips
            clinic.planned_visits(asha)
            assert link.tally.round_trips - before <= 6  # a cursor for each table: DECLARE, FETCH, CLOSE
