"""`federation check` and `alembic check`: exit codes, JSON, and that nothing is written."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from deployments import copy_root

from federation.check import check
from federation.cli import main
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment

OBJECTS = """
    SELECT c.oid::text, c.relname, c.xmin::text FROM pg_class c UNION ALL
    SELECT n.oid::text, n.nspname, CASE WHEN n.nspname LIKE 'pg_t%' THEN '' ELSE n.xmin::text END FROM pg_namespace n
    WHERE n.nspname NOT LIKE 'pg_temp%' AND n.nspname NOT LIKE 'pg_toast_temp%' UNION ALL
    SELECT t.oid::text, t.typname, t.xmin::text FROM pg_type t UNION ALL
    SELECT p.oid::text, p.polname, p.xmin::text FROM pg_policy p ORDER BY 1
"""
"""Every object with the transaction that made or changed it, temporary ones included."""


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["check", *words])


def objects(deployment: Deployment) -> list[list[tuple[str, ...]]]:
    found = []
    for side in ("local", "cloud"):
        with deployment.superuser(side) as superuser:
            found.append(superuser.execute(OBJECTS).fetchall())
    return found


def differ(deployment: Deployment) -> None:
    """A policy too many, a default too few, a statistics target that is wrong, a password too many."""
    with deployment.owner("local") as owner:
        owner.execute("CREATE POLICY everyone ON hospital_patients USING (true)")
    with deployment.owner("cloud") as owner:
        owner.execute("GRANT SELECT ON public.hospital_patients TO anon")
        owner.execute("DROP USER MAPPING FOR service_role SERVER hospital")
        owner.execute(
            "CREATE USER MAPPING FOR authenticated SERVER hospital OPTIONS (user 'eve', password 'hush-hush')"
        )
        owner.execute("ALTER VIEW public.hospital_queues RESET (security_invoker)")


def test_nothing_differs_at_head(federated: Deployment) -> None:
    result = run()
    assert (result.exit_code, result.stdout) == (0, "both databases are as declared\n"), result.stderr
    result = run("--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"schema_version": 1, "differences": []})


def test_what_differs_is_a_table_with_marks_and_exits_with_3(federated: Deployment) -> None:
    differ(federated)
    before = objects(federated), [federated.dump(side) for side in ("local", "cloud")]
    result = run()
    assert result.exit_code == 3, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["side", "what", "name", "detail"]
    assert " ".join(rows.pop()) == "`federation repair` grants and revokes what the releases do"
    assert [row[:2] for row in rows[1:]] == [
        ["-", "local"],
        ["+", "cloud"],
        ["~", "cloud"],
        ["~", "cloud"],
        ["-", "cloud"],
    ]
    told = json.loads((said := run("--json")).stdout)
    assert said.exit_code == 3
    assert [set(item) for item in told["differences"]] == [{"side", "mark", "what", "name", "detail"}] * 5
    assert told["differences"][0] == {
        "side": "local",
        "mark": "-",
        "what": "policy",
        "name": "public.hospital_patients.everyone",
        "detail": "",
    }
    assert (objects(federated), [federated.dump(side) for side in ("local", "cloud")]) == before
    secrets = ["hush-hush", *(value for name, value in federated.environ.items() if name.endswith("_PASSWORD"))]
    for output in (result.stdout, result.stderr, said.stdout, said.stderr):
        assert not any(secret in output for secret in secrets)


def test_alembic_says_it_with_its_own_exit_code(federated: Deployment) -> None:
    differ(federated)
    for side in ("local", "cloud"):
        result = federated.alembic(side, "check")
        assert result.returncode == 255
        assert "New upgrade operations detected" in result.stderr + result.stdout
        assert "hush-hush" not in result.stderr + result.stdout


def test_a_database_that_is_not_at_head_cannot_be_checked(deployment: Deployment) -> None:
    upgrade(deployment.config, "0003")
    result = run()
    assert result.exit_code == 3
    assert result.stderr.startswith("federation: local: the database cannot be checked")
    assert result.stderr.rstrip().endswith("federation upgrade")
    told = json.loads(run("--json").stdout)
    assert (told["error"], told["exit_code"], told["side"]) == ("PendingChanges", 3, "local")


def test_a_database_or_a_link_that_cannot_be_reached_exits_with_6(
    federated: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = federated.environ["FEDERATION_CLOUD_URL"]
    nobody = url.replace(f":{federated.pair.cloud.port}/", ":1/")
    assert nobody != url
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("FEDERATION_CLOUD_URL", nobody)
        assert run().exit_code == 6
    with federated.owner("cloud") as owner:
        owner.execute("ALTER USER MAPPING FOR CURRENT_USER SERVER hospital OPTIONS (SET password 'hush-hush')")
    result = run()
    assert result.exit_code == 6
    assert "the cloud does not reach the hospital" in result.stderr
    assert "hush-hush" not in result.stderr


@pytest.fixture
def unknown(federated: Deployment, tmp_path: Path) -> Deployment:
    """The hospital has an extension that the cloud lacks, and a declared column is of its type."""
    federated.root = copy_root(tmp_path)
    models = federated.root / "versions" / "models.py"
    text = models.read_text().replace("import JSONB", "import CITEXT, JSONB", 1)
    models.write_text(text.replace('sa.Column("phone", sa.Text())', 'sa.Column("phone", CITEXT())', 1))
    with federated.superuser("local") as superuser:
        superuser.execute("CREATE EXTENSION citext")
    return federated


def test_a_column_of_a_type_that_the_cloud_lacks_is_refused_by_name(unknown: Deployment) -> None:
    before = objects(unknown), sorted(unknown.root.rglob("*.py"))
    for command in (
        ("federation", "check"),
        ("federation", "revision", "-m", "x", "--autogenerate"),
        ("alembic", "-n", "cloud", "check"),
    ):
        result = unknown.run(*command)
        assert result.returncode == 8, result.stderr
        assert "cloud: column hospital_patients.phone is declared with type CITEXT" in result.stderr
        assert "CREATE EXTENSION" in result.stderr
    assert (objects(unknown), sorted(unknown.root.rglob("*.py"))) == before
    with unknown.superuser("cloud") as superuser:
        superuser.execute("CREATE EXTENSION citext")
    assert unknown.federation("revision", "-m", "numbers", "--autogenerate").returncode == 0
    result = unknown.federation("upgrade")
    assert result.returncode == 0, result.stderr
    assert unknown.federation("check").returncode == 0


def test_a_process_that_checks_often_imports_from_no_more_folders(federated: Deployment) -> None:
    """Alembic puts the folder of alembic.ini in front of sys.path each time that it reads a chain."""
    check(federated.config)
    before = len(sys.path)
    check(federated.config)
    assert len(sys.path) == before
    assert sys.path[0] == str(federated.root)
