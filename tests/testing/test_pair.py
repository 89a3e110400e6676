"""A pair of databases for a test: what it is, the ways in, broken links, rows."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chains_of_three
import psycopg
import pytest
from deployments import OTHER
from pytest_postgresql import factories
from waiting import until

from federation.errors import FederationError, PreconditionMissing, Refused
from federation.lockstep import read_status
from federation.servers.pair import SITE_ID
from federation.testing.databases import Databases
from federation.testing.rows import Rows

if TYPE_CHECKING:
    from deployments import Deployments

    from federation.errors import Side
    from federation.servers import Binaries, Pair
    from federation.servers.proxy import Proxy
    from federation.testing.pair import FederationPair

CONNECT_TIMEOUT = 5.0
"""Seconds that the cloud tries to connect (docs/failures.md)."""

hospital = factories.postgresql("federation_local_noproc")
cloud = factories.postgresql("federation_cloud_noproc")


def releases(pair: FederationPair) -> tuple[str | None, str | None]:
    status = read_status(pair.config)
    return status.local, status.cloud


def names(pair: FederationPair, **caller: Any) -> list[str]:
    with pair.as_user(**caller) as cursor:
        return [name for (name,) in cursor.execute("SELECT name FROM hospital_patients ORDER BY name").fetchall()]


def databases_of(deployments: Deployments, side: Side) -> set[str]:
    with deployments.server(side).connect() as server:
        return {name for (name,) in server.execute("SELECT datname FROM pg_database").fetchall()}


def test_it_is_at_head_and_linked(federation_pair: FederationPair) -> None:
    assert releases(federation_pair) == ("0004", "0004")
    federation_pair.load({"hospital_patients": [{"name": "Asha"}]})
    assert names(federation_pair) == ["Asha"]


@pytest.mark.parametrize("test", ["one", "the next"])
def test_each_test_has_its_own(federation_pair: FederationPair, test: str) -> None:
    assert names(federation_pair) == []
    with federation_pair.as_user() as caller:
        caller.execute("INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, %s)", [SITE_ID, test])
    assert names(federation_pair) == [test]
    assert federation_pair.owner("local").execute("SELECT name FROM hospital_patients").fetchall() == [(test,)]


@pytest.mark.federation(release="0003")
def test_a_test_may_begin_at_an_earlier_release_and_walk(federation_pair: FederationPair) -> None:
    assert releases(federation_pair) == ("0003", "0003")
    federation_pair.load({"hospital_patients": [{"name": "Asha"}]})
    federation_pair.upgrade()
    assert releases(federation_pair) == ("0004", "0004")
    federation_pair.downgrade("0002")
    assert (releases(federation_pair), names(federation_pair)) == (("0002", "0002"), ["Asha"])
    federation_pair.downgrade("base")
    assert releases(federation_pair) == (None, None)


@pytest.mark.federation(release="0002", local="0004")
def test_the_hospital_may_be_ahead(federation_pair: FederationPair) -> None:
    assert releases(federation_pair) == ("0004", "0002")
    federation_pair.load({"hospital_patients": [{"name": "Asha", "phone": "000001"}]})
    assert names(federation_pair) == ["Asha"]
    with federation_pair.owner("local") as owner:  # its guard knows what the cloud needs
        assert owner.execute("SELECT cloud_release FROM federation.guard").fetchone() == ("0002",)
    federation_pair.upgrade()
    assert releases(federation_pair) == ("0004", "0004")


def test_a_hospital_that_lacks_what_its_cloud_needs_is_refused(deployments: Deployments) -> None:
    said = "at 0002 does not have what a cloud at 0004 needs.* — with the cloud at 0004, local is one of 0004$"
    with pytest.raises(Refused, match=said), deployments.make_pair("0004", local="0002"):
        pass


def test_in_a_contract_release_the_cloud_goes_first_and_the_hospital_may_be_behind(pair: Pair, tmp_path: Path) -> None:
    root = chains_of_three.write(tmp_path)
    for file in root.glob("versions/*/0003*.py"):
        file.write_text(f'{file.read_text()}\nphase = "contract"\n')
    with Databases(pair, root / "federation.toml", "contract") as databases:
        with databases.make_pair("0003", local="0002") as behind:
            assert releases(behind) == ("0002", "0003")
        said = "with the cloud at 0001, local is one of 0001, 0002$"
        with pytest.raises(Refused, match=said), databases.make_pair("0001", local="0003"):
            pass


def test_a_side_that_there_is_none_of_is_said(federation_pair: FederationPair) -> None:
    hospital_: Any = "hospital"
    for way_in in (federation_pair.owner, federation_pair.superuser, federation_pair.url, federation_pair.dbname):
        with pytest.raises(PreconditionMissing, match="a pair has no side 'hospital' — name \"local\""):
            way_in(hospital_)


def test_a_release_that_is_made_from_a_lower_one_has_its_own_hospital(deployments: Deployments) -> None:
    for release in ("0001", "0002"):
        deployments.template(release)
    with deployments.make_pair("0002") as pair:
        pair.load({"hospital_patient_reviews": 1})
        with pair.as_user() as caller:
            assert caller.execute("SELECT count(*) FROM hospital_patient_reviews").fetchone() == (1,)
    for names_ in deployments.templates.values():
        with deployments.servers.local.connect(names_["local"]) as template:
            found = template.execute("SELECT to_regclass('public.hospital_patients')").fetchone()
            assert found == (None,) or template.execute("SELECT FROM hospital_patients").rowcount == 0


def test_a_clone_has_its_templates_owner_privileges_and_settings(deployments: Deployments) -> None:
    query = """
        SELECT datdba::regrole::text, ARRAY(SELECT x::text FROM unnest(datacl) AS x ORDER BY 1),
            ARRAY(SELECT format('%%s %%s', setrole::regrole, setconfig) FROM pg_db_role_setting
                WHERE setdatabase = d.oid ORDER BY 1)
        FROM pg_database AS d WHERE datname = %s
    """
    template = deployments.template()["local"]
    with deployments.server("local").connect() as server:
        server.execute(f"ALTER ROLE federation_link IN DATABASE {template} SET work_mem = '5MB'")
        server.execute(f"ALTER DATABASE {template} SET work_mem = '6MB'")
    with deployments.make_pair() as pair:
        for side in ("local", "cloud"):
            with deployments.server(side).connect() as server:
                of_template = server.execute(query, [deployments.template()[side]]).fetchone()
                assert server.execute(query, [pair.dbname(side)]).fetchone() == of_template
        with deployments.servers.local.connect() as server:
            _, privileges, settings = server.execute(query, [pair.local_dbname]).fetchone() or ((), (), ())
    assert privileges, "PUBLIC may connect: nothing is compared"
    assert len(settings) == 2
    with deployments.server("local").connect() as server:
        server.execute(f"ALTER ROLE federation_link IN DATABASE {template} RESET ALL")
        server.execute(f"ALTER DATABASE {template} RESET ALL")


def test_what_a_test_has_opened_is_closed_and_its_databases_are_dropped(deployments: Deployments) -> None:
    with deployments.make_pair() as pair:
        opened = [pair.superuser("local"), pair.owner("cloud"), pair.link_role()]
        opened[2].execute("SELECT taken FROM federation.bind WHERE sub = %s", [SITE_ID])
    assert all(connection.closed for connection in opened)
    for side in ("local", "cloud"):
        until(lambda side=side: pair.dbname(side) not in databases_of(deployments, side))


def test_the_ways_in_are_who_they_say(federation_pair: FederationPair) -> None:
    who = "SELECT session_user::text, current_database()"
    for connection, user, dbname in (
        (federation_pair.superuser("local"), "postgres", federation_pair.local_dbname),
        (federation_pair.superuser("cloud"), "supabase_admin", federation_pair.cloud_dbname),
        (federation_pair.owner("local"), "hospital_owner", federation_pair.local_dbname),
        (federation_pair.owner("cloud"), "postgres", federation_pair.cloud_dbname),
        (federation_pair.link_role(), "federation_link", federation_pair.local_dbname),
        (federation_pair.link_role("service"), "federation_service", federation_pair.local_dbname),
    ):
        assert connection.execute(who).fetchone() == (user, dbname)


def test_a_user_is_who_postgrest_would_be(federation_pair: FederationPair) -> None:
    query = """
        SELECT session_user::text, current_user::text, auth.uid()::text, auth.role(), auth.jwt() -> 'app_metadata'
    """
    with federation_pair.as_user(OTHER, app_metadata={"ward": 3}) as caller:
        row = caller.execute(query).fetchone()
        assert row == ("authenticator", "authenticated", OTHER, "authenticated", {"ward": 3})
    with federation_pair.as_user(None, role="service_role") as caller:
        assert caller.execute(query).fetchone() == ("authenticator", "service_role", None, "service_role", None)


def test_an_account_must_be_admitted_to_have_rows(federation_pair: FederationPair) -> None:
    federation_pair.load({"hospital_patients": [{"name": "Asha"}]})
    assert names(federation_pair, sub=OTHER) == []
    federation_pair.add_account(OTHER, ward=3)
    with federation_pair.link_role() as link:
        link.execute("SELECT taken FROM federation.bind WHERE sub = %s", [OTHER])
        assert link.execute("SELECT auth.jwt() -> 'ward'").fetchone() == (3,)


def test_what_a_user_does_is_committed_unless_it_fails(federation_pair: FederationPair) -> None:
    insert = "INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, 'Asha')"
    with pytest.raises(ZeroDivisionError), federation_pair.as_user() as caller:
        caller.execute(insert, [SITE_ID])
        raise ZeroDivisionError
    assert names(federation_pair) == []
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), federation_pair.as_user(read_only=True) as caller:
        caller.execute(insert, [SITE_ID])
    with federation_pair.as_user() as caller:
        caller.execute(insert, [SITE_ID])
    assert names(federation_pair) == ["Asha"]


def test_a_hospital_that_is_down_is_an_error_and_then_it_heals(federation_pair: FederationPair) -> None:
    federation_pair.load({"hospital_patients": [{"name": "Asha"}]})
    with psycopg.connect(federation_pair.authenticator_url) as pooled:  # whose link session is open before

        def request() -> list[tuple[str]]:
            with pooled.transaction():
                pooled.execute("SET LOCAL ROLE authenticated")
                pooled.execute("SELECT set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{SITE_ID}"}}'])
                return pooled.execute("SELECT name FROM hospital_patients").fetchall()

        assert request() == [("Asha",)]
        with federation_pair.local_down():
            for _ in range(2):
                with pytest.raises(psycopg.errors.SqlclientUnableToEstablishSqlconnection):
                    request()
            assert federation_pair.owner("local").execute("SELECT name FROM hospital_patients").rowcount == 1
        assert request() == [("Asha",)]


def test_a_hospital_that_goes_down_in_a_transaction_fails_it(federation_pair: FederationPair) -> None:
    query = "SELECT count(*) FROM hospital_patients"
    with pytest.raises(psycopg.Error) as failure, federation_pair.as_user() as caller:
        assert caller.execute(query).fetchone() == (0,)
        with federation_pair.local_down():
            caller.execute(query)
    assert (failure.value.sqlstate or "")[:2] in {"08", "HV", "57"}, failure.value
    assert names(federation_pair) == []


def test_a_silent_hospital_is_an_error_in_time(federation_pair: FederationPair) -> None:
    began = time.monotonic()
    with federation_pair.local_silent(), pytest.raises(psycopg.Error):
        names(federation_pair)
    assert time.monotonic() - began > CONNECT_TIMEOUT - 1, "it was refused, and not silent"
    assert names(federation_pair) == []


def test_a_hospital_that_falls_silent_in_a_transaction_is_an_error(federation_pair: FederationPair) -> None:
    query, cloud_ = "SELECT count(*) FROM hospital_patients", federation_pair.superuser("cloud")
    waits = (
        "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active' "
        "AND clock_timestamp() - query_start > interval '300ms'"
    )

    def speak_when_it_is_too_late(link: Proxy, pid: int) -> None:
        """Up to 16 the cloud's server waits for the hospital even to cancel the query: docs/failures.md."""
        try:
            until(lambda: cloud_.execute(waits, [pid]).rowcount)
        finally:
            link.speak()

    with (
        ThreadPoolExecutor(1) as pool,
        federation_pair.proxied_link() as link,
        federation_pair.as_user() as caller,
    ):
        assert caller.execute(query).fetchone() == (0,)
        caller.execute("SET LOCAL statement_timeout = '200ms'")
        link.silence()
        assert link.silent
        speaks = pool.submit(speak_when_it_is_too_late, link, caller.connection.info.backend_pid)
        with pytest.raises(psycopg.errors.QueryCanceled):
            caller.execute(query)
        speaks.result()
        caller.connection.rollback()
    assert names(federation_pair) == []


def test_a_delay_is_that_of_each_round_trip(federation_pair: FederationPair) -> None:
    def seconds() -> float:
        with federation_pair.as_user() as caller:
            caller.execute("SELECT FROM hospital_patients")  # logs in
            began = time.monotonic()
            caller.execute("SELECT FROM hospital_patients")
            return time.monotonic() - began

    with federation_pair.proxied_link() as link:
        link.counting = True
        seconds()
        trips = link.tally.round_trips
    assert trips > 3
    with federation_pair.link_delay(100):
        assert seconds() >= 0.3  # DECLARE, FETCH, CLOSE
    until(lambda: seconds() < 0.3)  # which no delayed request is, however often it is tried


def test_a_proxied_link_counts_rows(federation_pair: FederationPair) -> None:
    federation_pair.load({"hospital_patients": 7})
    with federation_pair.proxied_link() as link:
        link.counting = True
        assert len(names(federation_pair)) == 7
        assert link.tally.rows >= 7


def test_rows_need_no_more_than_what_the_test_cares_about(federation_pair: FederationPair) -> None:
    made = federation_pair.load(
        {
            "hospital_patients": [{"name": "Asha"}, {}],
            "hospital_queues": [{"status": "completed"}],
            "hospital_prescriptions": [{"medications": [{"drug": "x"}], "metadata": {"a": 1}}],
        }
    )
    asha, other = made["hospital_patients"]
    (queue,), (prescription,) = made["hospital_queues"], made["hospital_prescriptions"]
    assert (asha["name"], str(asha["hospital_id"])) == ("Asha", SITE_ID)
    assert other["name"] != "Asha"
    assert asha["phone"] is None
    assert (queue["patient_id"], queue["status"]) == (other["id"], "completed")
    assert (prescription["medications"], prescription["metadata"]) == ([{"drug": "x"}], {"a": 1})
    assert len(names(federation_pair)) == 2


def test_a_row_that_others_need_is_made(federation_pair: FederationPair) -> None:
    (review,) = federation_pair.load({"hospital_patient_reviews": 1})["hospital_patient_reviews"]
    found = federation_pair.owner("local").execute("SELECT id FROM hospital_patients").fetchall()
    assert found == [(review["patient_id"],)]


ODD = """
    CREATE TYPE colour AS ENUM ('red', 'blue');
    CREATE DOMAIN short AS varchar(3) NOT NULL;
    CREATE TABLE odd (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (4) STORED,
        colour colour NOT NULL, code short UNIQUE, kind char(2) NOT NULL, tags text[] NOT NULL, at timestamptz NOT NULL,
        price numeric(6, 2) NOT NULL, net inet NOT NULL, yes boolean NOT NULL, raw bytea NOT NULL, data json NOT NULL,
        size text NOT NULL CHECK (size IN ('it''s small', 'large')), level int DEFAULT 3,
        parent int REFERENCES odd);
    CREATE TABLE point_in_time (id int PRIMARY KEY, place point NOT NULL);
    CREATE TABLE picky (id int PRIMARY KEY, n int NOT NULL, CONSTRAINT n_is_large CHECK (n > 1000));
"""


def test_rows_of_every_common_type_can_be_made_up(federation_pair: FederationPair) -> None:
    federation_pair.owner("local").execute(ODD)
    made = federation_pair.load({"odd": 12})["odd"]
    assert {(row["colour"], row["size"], row["level"], row["twice"]) for row in made} == {("red", "it's small", 3, 4)}
    assert len({row["code"] for row in made}) == 12


def test_a_row_that_is_its_callers_by_default_is_the_sites_accounts(federation_pair: FederationPair) -> None:
    """Past the link there is no caller, and auth.uid() is NULL."""
    federation_pair.owner("local").execute(
        "CREATE TABLE notes (id int PRIMARY KEY, doctor uuid NOT NULL DEFAULT auth.uid(), by uuid DEFAULT auth.uid())"
    )
    (note,) = federation_pair.load({"notes": 1})["notes"]
    assert (str(note["doctor"]), note["by"]) == (SITE_ID, None)


def test_a_row_that_is_taken_away_comes_back_as_it_was(federation_pair: FederationPair) -> None:
    """For every session it is gone; what points at it stays, and triggers do not run."""
    owner = federation_pair.owner("local")
    owner.execute(ODD)
    owner.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$; "
        "CREATE TRIGGER refuse BEFORE DELETE ON odd FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    rows = federation_pair.new_rows()
    first = rows.insert("odd", {"data": {"a": [1]}, "tags": ["x", "y"]})
    rows.insert("odd", {"parent": first["id"]})
    query = "SELECT odd::text FROM odd ORDER BY id"
    before = owner.execute(query).fetchall()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), rows.without("odd", {"id": first["id"]}):
            assert owner.execute(query).fetchall() == before[1:]
            raise ZeroDivisionError
        assert owner.execute(query).fetchall() == before
    with pytest.raises(psycopg.errors.RaiseException):
        owner.execute("DELETE FROM odd")


def test_a_row_that_cannot_be_made_says_what_to_give(federation_pair: FederationPair) -> None:
    federation_pair.owner("local").execute(ODD)
    rows: Rows = federation_pair.new_rows()
    for table, given, error, said in (
        (
            "picky",
            {},
            FederationError,
            r"no row could be made for public.picky \(.*; its constraint is n_is_large — give",
        ),
        (
            "point_in_time",
            {},
            PreconditionMissing,
            r"no value can be made up for public.point_in_time.place of type point",
        ),
        (
            "odd",
            {"colours": "red"},
            PreconditionMissing,
            r"public.odd has no column colours at this release — its columns",
        ),
        ("odds", {}, PreconditionMissing, r"there is no table public.odds at this release — the tables are hospital_"),
    ):
        with pytest.raises(error, match=said):
            rows.load({table: [given]})
    assert rows.load({"picky": [{"n": 1001}], "point_in_time": [{"place": "(1,2)"}]})


def test_pytest_postgresqls_own_fixtures_clone_the_same_templates(
    binaries: Binaries, hospital: psycopg.Connection[Any], cloud: psycopg.Connection[Any]
) -> None:
    for connection in (hospital, cloud):
        found = connection.execute("SELECT version_num FROM federation.alembic_version").fetchone()
        assert found == ("0004",)
