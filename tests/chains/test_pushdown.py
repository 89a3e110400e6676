"""What of the app's queries the hospital is sent: the benchmark's own shapes, at a tenth of its rows."""

from __future__ import annotations

import re
import sys
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from deployments import ROOT

from federation.administration.analyze import analyze
from federation.servers.pair import SITE_ID

sys.path.insert(0, str(ROOT / "benchmarks"))
import pushdown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments import Deployment, Deployments

SCALE = 0.1
SHAPES = {shape.name: shape for shape in pushdown.SHAPES}
EXPLAIN = b"EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) "


@pytest.fixture(scope="module")
def hospital(deployments: Deployments) -> Iterator[Deployment]:
    with deployments.at_head() as deployment:
        pushdown.load(deployment.pair, deployment.local_dbname, SCALE)
        analyze(deployment.config)
        yield deployment


def remote(cursor: psycopg.Cursor[Any], query: str, parameters: dict[str, object] | None = None) -> list[str]:
    """The statements for the hospital in the plan of ``query``, the outer ones first."""
    cursor.execute(EXPLAIN + query.encode(), parameters)
    ((plans,),) = cursor.fetchall()

    def walk(plan: dict[str, Any]) -> Iterator[str]:
        if "Remote SQL" in plan:
            yield plan["Remote SQL"]
        for part in plan.get("Plans", ()):
            yield from walk(part)

    return list(walk(plans[0]["Plan"]))


def sent(deployment: Deployment, name: str) -> list[str]:
    shape = SHAPES[name]
    with deployment.as_user(read_only=not shape.writes) as caller:
        return remote(caller, shape.sql, {"id": uuid.uuid4()} if shape.writes else None)


JOIN = "INNER JOIN public.hospital_patients"
PREDICATE = "(((hospital_id = $1::uuid) = $2::boolean))"
BARE = "SELECT * FROM federation_link.hospital_prescriptions WHERE hospital_id = (SELECT federation.bind_claims())"
LATEST = "created_at DESC NULLS FIRST LIMIT 50"


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ("single row", ["((id = "]),
        ("latest 50", [f"ORDER BY {LATEST}"]),
        ("filtered list", ["((doctor_id = ", "((created_at >= ", "((status = 'pending'))"]),
        ("ILIKE", ["((name ~~* '%meena k%'))"]),
        ("pending, latest 50", ["((status = 'pending'))", LATEST]),
        ("count", ["SELECT count(*) FROM"]),
        ("two tables", [JOIN, LATEST]),
        ("two tables, of the site", [JOIN, f".hospital_id = '{SITE_ID}')", LATEST]),
        ("three tables", [JOIN, "INNER JOIN public.hospital_prescriptions", LATEST]),
        ("embed one, !inner", [JOIN, LATEST]),
    ],
)
def test_one_statement_is_sent_with_the_callers_predicate_and(
    hospital: Deployment, shape: str, parts: list[str]
) -> None:
    (statement,) = sent(hospital, shape)
    assert "hospital_id = $1::uuid) = $2::boolean)" in statement
    for part in parts:
        assert part in statement


@pytest.mark.parametrize("shape", ["filtered list", "ILIKE", "pending, of the site"])
def test_missed_a_limit_is_not_sent_when_the_planner_expects_fewer_rows(hospital: Deployment, shape: str) -> None:
    """Without statistics an equality is one row in two hundred and this pattern one in ten thousand."""
    (statement,) = sent(hospital, shape)
    assert "LIMIT" not in statement
    assert "ORDER BY" not in statement


def test_a_planner_that_knows_the_site_sends_the_limit(deployments: Deployments) -> None:
    with deployments.at_head() as deployment:
        pushdown.load(deployment.pair, deployment.local_dbname, SCALE)
        tables = deployment.config.tables.model_copy(update={"site_statistics": True})
        analyze(deployment.config.model_copy(update={"tables": tables}))
        (statement,) = sent(deployment, "pending, of the site")
        with deployment.as_user(read_only=True) as caller:
            caller.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            caller.execute(
                b"PREPARE pending(uuid) AS " + SHAPES["pending, of the site"].sql.replace(f"'{SITE_ID}'", "$1").encode()
            )
            (generic,) = remote(caller, f"EXECUTE pending('{SITE_ID}')")
    assert LATEST in statement
    assert LATEST in generic


def test_the_limit_beside_a_filter_would_not_be_sent_with_a_bare_equality(hospital: Deployment) -> None:
    """It is taken for one row in two hundred; the equality of two booleans, as the views have it, for one in two."""
    query = SHAPES["pending, latest 50"].sql.replace("FROM hospital_prescriptions", f"FROM ({BARE}) AS bare")
    with hospital.owner("cloud") as owner, owner.cursor() as cursor:
        (statement,) = remote(cursor, query)
    assert "((hospital_id = $1::uuid)) AND ((status = 'pending'))" in statement
    assert "LIMIT" not in statement


@pytest.mark.parametrize("role", ["federation_link", "federation_service"])
def test_the_hospital_takes_the_predicate_for_an_equality_and_reads_its_index_in_order(
    hospital: Deployment, role: str
) -> None:
    """What is sent for the latest 50, planned there with its parameters; the service's policy names no site."""
    (statement,) = sent(hospital, "latest 50")
    url = hospital.config.link_login("link" if role == "federation_link" else "service")
    with (
        psycopg.connect(hospital.pair.local.url(*url, hospital.local_dbname)) as link,
        psycopg.RawCursor(link) as cursor,
    ):
        if role == "federation_link":
            cursor.execute("SELECT count(taken) FROM federation.bind WHERE sub = $1", [SITE_ID])
        cursor.execute(f"EXPLAIN (COSTS OFF) {statement}".encode(), [SITE_ID, True])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan Backward using hospital_queues_hospital_id_created_at_idx" in plan
    assert f"Index Cond: (hospital_id = '{SITE_ID}'::uuid)" in plan
    assert "Sort" not in plan


def test_missed_the_left_embed_reads_both_tables(hospital: Deployment) -> None:
    """PostgREST's row_to_json(x.*) is a whole row that may be NULL, and postgres_fdw sends no join with such a one."""
    queues, patients = sent(hospital, "embed one")
    assert f"FROM public.hospital_queues WHERE {PREDICATE} ORDER BY" in queues
    assert "LIMIT" not in queues
    assert patients.endswith(f"FROM public.hospital_patients WHERE {PREDICATE}")


def test_missed_the_embed_of_many_asks_once_an_outer_row(hospital: Deployment) -> None:
    queues, prescriptions = sent(hospital, "embed many")
    assert "LIMIT" not in queues
    assert "((queue_id = $1::uuid))" in prescriptions


PATIENTS, BY_ROW, PRESCRIPTIONS = re.findall(
    r"^~~~sql\n(.*?)^~~~$", (ROOT / "docs" / "embeds.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture
def functions(hospital: Deployment) -> Iterator[psycopg.Connection[Any]]:
    """The page's computed relationships, until the end of the test."""
    with hospital.owner("cloud") as owner:
        owner.execute(PATIENTS)
        owner.execute(PRESCRIPTIONS)
        yield owner
        owner.execute("DROP FUNCTION hospital_patients(hospital_queues), hospital_prescriptions(hospital_queues)")


def embedded(deployment: Deployment, kind: str) -> list[str]:
    called = "public.hospital_patients(hospital_queues) AS p_1"
    with deployment.as_user(read_only=True) as caller:
        return remote(caller, pushdown.to_one(kind, called, pushdown.LATEST.format(50)))


def test_the_pages_function_is_sent_as_one_join_with_inner(hospital: Deployment, functions: object) -> None:
    (statement,) = embedded(hospital, "INNER")
    assert JOIN in statement
    assert LATEST in statement
    assert len(embedded(hospital, "LEFT")) == 2


def test_the_pages_function_with_offset_asks_by_key(hospital: Deployment, functions: psycopg.Connection[Any]) -> None:
    functions.execute(BY_ROW)
    for kind in ("INNER", "LEFT"):
        _, patients = embedded(hospital, kind)
        assert "((id = $1::uuid))" in patients


def test_the_pages_embed_of_many_asks_by_key(hospital: Deployment, functions: object) -> None:
    query = SHAPES["embed many"].sql.replace(
        "FROM hospital_prescriptions AS r_1 WHERE r_1.queue_id = hospital_queues.id",
        "FROM public.hospital_prescriptions(hospital_queues) AS r_1",
    )
    assert query != SHAPES["embed many"].sql
    with hospital.as_user(read_only=True) as caller:
        _, prescriptions = remote(caller, query)
    assert "((queue_id = $1::uuid))" in prescriptions


def test_a_list_of_keys_is_one_statement(hospital: Deployment) -> None:
    keys = ", ".join(f"'{uuid.uuid4()}'" for _ in range(50))
    with hospital.as_user(read_only=True) as caller:
        (statement,) = remote(caller, f"SELECT * FROM hospital_prescriptions WHERE queue_id IN ({keys})")
    assert "queue_id = ANY" in statement


def test_an_insert_and_a_delete_are_one_statement_each(hospital: Deployment) -> None:
    (insert,) = sent(hospital, "insert")
    assert insert.startswith("INSERT INTO public.hospital_patients(")
    assert " RETURNING " in insert
    (delete,) = sent(hospital, "delete")
    assert delete.startswith("DELETE FROM public.hospital_patients WHERE ")
    assert " RETURNING id" in delete


def test_missed_an_update_locks_its_row_first(hospital: Deployment) -> None:
    """The cloud looks at the new row for the view's check option, so the UPDATE is not sent as it is."""
    update, select = sent(hospital, "update")
    assert update.startswith("UPDATE public.hospital_patients SET name = $2 WHERE ctid = $1")
    assert select.endswith(" FOR UPDATE")


def test_a_request_that_names_the_hospital_is_sent_with_its_limit(hospital: Deployment) -> None:
    """The view's predicate is no bare equality, so the planner does not compare the two ids once, before the scan."""
    of_site = f"hospital_id = '{SITE_ID}'"
    query = f"SELECT * FROM hospital_queues WHERE {of_site} ORDER BY created_at DESC LIMIT 50"
    with hospital.as_user(read_only=True) as caller:
        (statement,) = remote(caller, query)
    assert f"WHERE (({of_site})) AND {PREDICATE} ORDER BY {LATEST}" in statement
