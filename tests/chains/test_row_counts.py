"""The cloud's planner knows how many rows the hospital has, and nothing else about them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from federation.administration.analyze import analyze
from federation.drift.check import check
from federation.errors import PreconditionMissing, Refused
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

ROWS = 5000


@pytest.fixture
def filled(federated: Deployment) -> Deployment:
    with federated.owner("local") as owner:
        owner.execute(
            "INSERT INTO hospital_patients (hospital_id, name) "
            "SELECT %s, 'Patient ' || n FROM generate_series(1, %s) n",
            [SITE_ID, ROWS],
        )
        owner.execute("ANALYZE hospital_patients")
    return federated


def kept(deployment: Deployment) -> tuple[int, int]:
    """What the cloud keeps of the patients: the row count, and entries of pg_statistic."""
    with deployment.superuser("cloud") as superuser:
        row = superuser.execute(
            "SELECT reltuples::int, (SELECT count(*) FROM pg_statistic WHERE starelid = c.oid) "
            "FROM pg_class c WHERE oid = 'federation_link.hospital_patients'::regclass"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_analyze_brings_the_count_and_no_value(filled: Deployment) -> None:
    found = {item.table: item.rows for item in analyze(filled.config)}
    assert found["hospital_patients"] == ROWS
    assert kept(filled) == (ROWS, 0)


def test_an_old_count_is_found_until_analyze_has_run(filled: Deployment) -> None:
    (difference,) = check(filled.config)
    assert (difference.what, difference.name) == ("row count", "federation_link.hospital_patients")
    assert "federation analyze" in difference.detail
    analyze(filled.config)
    assert check(filled.config) == []


def test_analyze_is_refused_while_it_would_copy_values(filled: Deployment) -> None:
    with filled.owner("cloud") as owner:
        owner.execute("ALTER FOREIGN TABLE federation_link.hospital_patients ALTER COLUMN name SET STATISTICS 10")
    with pytest.raises(Refused, match=r"hospital_patients \(name\)"):
        analyze(filled.config)
    assert kept(filled)[1] == 0


def test_analyze_says_what_it_did(filled: Deployment) -> None:
    result = filled.federation("analyze", "--json")
    assert result.returncode == 0, result.stderr
    tables = {item["table"]: item["rows"] for item in json.loads(result.stdout)["tables"]}
    assert tables["hospital_patients"] == ROWS


def test_analyze_at_base_has_nothing_to_look_at(deployment: Deployment) -> None:
    with pytest.raises(PreconditionMissing, match="holds no foreign table"):
        analyze(deployment.config)
