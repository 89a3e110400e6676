"""What of the app's queries the hospital is sent: the benchmark's own shapes, at a tenth of its rows."""

from __future__ import annotations

import json
import re
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from deployments import ROOT

from federation.administration.analyze import analyze
from federation.servers.pair import SITE_ID

sys.path.insert(0, str(ROOT / "benchmarks"))
import pushdown

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
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
LATEST = "created_at DESC NULLS FIRST LIMIT 50"


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ("single row", ["((id = "]),
        ("latest 50", [f"ORDER BY {LATEST}"]),
        ("filtered list", ["((doctor_id = ", "((created_at >= ", "((status = 'pending'))"]),
        ("ILIKE", ["((name ~~* '%meena k%'))"]),
        ("pending, latest 50", ["((status = 'pending'))"]),
        ("count", ["SELECT count(*) FROM"]),
        ("two tables", [JOIN, LATEST]),
        ("three tables", [JOIN, "INNER JOIN public.hospital_prescriptions", LATEST]),
        ("embed one, !inner", [JOIN, LATEST]),
    ],
)
def test_one_statement_is_sent_with_the_callers_predicate_and(
    hospital: Deployment, shape: str, parts: list[str]
) -> None:
    (statement,) = sent(hospital, shape)
    assert "hospital_id = $1::uuid" in statement
    for part in parts:
        assert part in statement


@pytest.mark.parametrize("shape", ["filtered list", "ILIKE", "pending, latest 50"])
def test_missed_the_limit_beside_a_filter_is_not_sent(hospital: Deployment, shape: str) -> None:
    """The planner takes ``hospital_id = $1`` for one row in two hundred, so it thinks that few are left to sort."""
    (statement,) = sent(hospital, shape)
    assert "LIMIT" not in statement
    assert "ORDER BY" not in statement


def test_the_limit_beside_a_filter_is_sent_once_the_planner_knows_that_there_is_one_site(hospital: Deployment) -> None:
    """All that is kept for it is the site's id, which the cloud has anyway."""
    table = "federation_link.hospital_prescriptions"
    with hospital.owner("cloud") as owner, owner.transaction(force_rollback=True), owner.cursor() as cursor:
        cursor.execute(f"ALTER FOREIGN TABLE {table} ALTER COLUMN hospital_id SET STATISTICS 1")
        cursor.execute(f"ANALYZE {table}")
        kept = cursor.execute(
            "SELECT attname, n_distinct, most_common_vals::text, histogram_bounds::text FROM pg_stats "
            "WHERE schemaname = 'federation_link'"
        ).fetchall()
        assert kept == [("hospital_id", 1, f"{{{SITE_ID}}}", None)]
        cursor.execute("SET LOCAL ROLE authenticated")
        claims = json.dumps({"sub": SITE_ID, "role": "authenticated"})
        cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
        (statement,) = remote(cursor, SHAPES["pending, latest 50"].sql)
    assert "((status = 'pending'))" in statement
    assert LATEST in statement


def test_missed_the_left_embed_reads_both_tables(hospital: Deployment) -> None:
    """PostgREST's row_to_json(x.*) is a whole row that may be NULL, and postgres_fdw sends no join with such a one."""
    queues, patients = sent(hospital, "embed one")
    assert "FROM public.hospital_queues WHERE ((hospital_id = $1::uuid)) ORDER BY" in queues
    assert "LIMIT" not in queues
    assert patients.endswith("FROM public.hospital_patients WHERE ((hospital_id = $1::uuid))")


def test_missed_the_embed_of_many_asks_once_an_outer_row(hospital: Deployment) -> None:
    queues, prescriptions = sent(hospital, "embed many")
    assert "LIMIT" not in queues
    assert "((queue_id = $2::uuid))" in prescriptions


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
        assert "((id = $2::uuid))" in patients


def test_the_pages_embed_of_many_asks_by_key(hospital: Deployment, functions: object) -> None:
    query = SHAPES["embed many"].sql.replace(
        "FROM hospital_prescriptions AS r_1 WHERE r_1.queue_id = hospital_queues.id",
        "FROM public.hospital_prescriptions(hospital_queues) AS r_1",
    )
    assert query != SHAPES["embed many"].sql
    with hospital.as_user(read_only=True) as caller:
        _, prescriptions = remote(caller, query)
    assert "((queue_id = $2::uuid))" in prescriptions


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


OF_SITE = f"hospital_id = '{SITE_ID}'"


def test_a_request_that_names_the_hospital_is_sent_with_its_limit(hospital: Deployment) -> None:
    """The cloud compares that id with the caller's once, before the scan (One-Time Filter)."""
    query = f"SELECT * FROM hospital_queues WHERE {OF_SITE} ORDER BY created_at DESC LIMIT 50"
    with hospital.as_user(read_only=True) as caller:
        (statement,) = remote(caller, query)
    assert f"WHERE (({OF_SITE})) ORDER BY {LATEST}" in statement


def test_missed_a_join_that_names_the_hospital_is_sent_from_18_on_only(hospital: Deployment) -> None:
    query = SHAPES["two tables"].sql.replace(" ORDER BY", f" WHERE q.{OF_SITE} ORDER BY")
    with hospital.as_user(read_only=True) as caller:
        statements = remote(caller, query)
    if hospital.pair.cloud.binaries.major >= 18:
        assert LATEST in statements[0]
        assert JOIN in statements[0]
    else:
        assert len(statements) == 2
