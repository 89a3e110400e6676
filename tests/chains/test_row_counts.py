"""The cloud's planner knows how many rows the hospital has, and nothing else about them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from federation.administration.analyze import analyze
from federation.check import check
from federation.errors import PreconditionMissing, Refused
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

    from federation.config import Config

ROWS = 5000
OTHER = "00000000-0000-0000-0000-0000000000b0"


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


def knowing_the_site(config: Config) -> Config:
    return config.model_copy(update={"tables": config.tables.model_copy(update={"site_statistics": True})})


def statistics(deployment: Deployment) -> list[tuple[Any, ...]]:
    """Column, values and statistics target, where pg_statistic holds anything of a foreign table."""
    return deployment.look(
        "cloud",
        "SELECT s.tablename, s.attname, s.most_common_vals::text, s.histogram_bounds, s.n_distinct, a.attstattarget "
        "FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename AND c.relkind = 'f' "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = s.attname",
    )


@pytest.mark.claim("S30")
def test_the_planner_may_know_the_site_and_nothing_else(filled: Deployment) -> None:
    config = knowing_the_site(filled.config)
    analyze(filled.config)
    (unknown,) = check(config)
    assert (unknown.what, unknown.name) == ("statistics", "federation_link.hospital_patients")
    assert "federation analyze" in unknown.detail
    analyze(config)
    assert statistics(filled) == [("hospital_patients", "hospital_id", f"{{{SITE_ID}}}", None, 1.0, 0)]
    assert check(config) == []
    (kept_still,) = check(filled.config)
    assert "pg_statistic holds values of hospital_id" in kept_still.detail
    analyze(filled.config)  # what was let in while it was wanted is no reason to refuse


@pytest.mark.claim("S30")
def test_another_sites_id_is_not_kept(filled: Deployment) -> None:
    with filled.owner("local") as owner:
        owner.execute("ALTER TABLE hospital_patients DROP CONSTRAINT hospital_patients_site_check")
        owner.execute(
            "INSERT INTO hospital_patients (hospital_id, name) SELECT %s, n FROM generate_series(1, 100) n", [OTHER]
        )
    with pytest.raises(Refused, match=r"hospital_patients does not hold the site's id alone"):
        analyze(knowing_the_site(filled.config))
    assert statistics(filled) == []
    targets = "SELECT DISTINCT attstattarget FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    assert filled.look("cloud", targets, ["federation_link.hospital_patients"]) == [(0,)]


@pytest.mark.claim("S30")
def test_values_that_somebody_has_let_in_are_found_whatever_the_target_is_by_now(filled: Deployment) -> None:
    analyze(filled.config)
    with filled.owner("cloud") as owner:
        for statement in (
            "ALTER FOREIGN TABLE federation_link.hospital_patients ALTER COLUMN name SET STATISTICS 10",
            "ANALYZE federation_link.hospital_patients",
            "ALTER FOREIGN TABLE federation_link.hospital_patients ALTER COLUMN name SET STATISTICS 0",
        ):
            owner.execute(statement)
    (difference,) = check(filled.config)
    assert (difference.what, difference.name) == ("statistics", "federation_link.hospital_patients")
    assert "pg_statistic holds values of name" in difference.detail


def test_analyze_says_what_it_did(filled: Deployment) -> None:
    result = filled.federation("analyze", "--json")
    assert result.returncode == 0, result.stderr
    tables = {item["table"]: item["rows"] for item in json.loads(result.stdout)["tables"]}
    assert tables["hospital_patients"] == ROWS


def test_analyze_at_base_has_nothing_to_look_at(deployment: Deployment) -> None:
    with pytest.raises(PreconditionMissing, match="holds no foreign table"):
        analyze(deployment.config)
