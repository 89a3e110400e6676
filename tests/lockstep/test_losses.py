"""Values are not dropped without a word: `plan` counts them, `upgrade` asks, and a saved plan is what runs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import add_note, joined, rewrite

from federation.lockstep import upgrade
from federation.lockstep.planned import plan_hash, preview
from federation.lockstep.status import read_status
from federation.preview.changes import Change, StepChanges, grouped
from federation.preview.relations import Relations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

DROP = {
    "local": {"0003": ('op.drop_column("note", "text")', 'op.add_column("note", sa.Column("text", sa.Text))')},
    "cloud": {"0003": tuple(reversed(three.CLOUD["0002"]))},
}


@pytest.fixture
def dropping(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """At the second release of three, of which the third is a contract release that drops the column text."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        rewrite(deployment, DROP, "0003")
        upgrade(deployment.config, "0002")
        yield deployment


def releases(deployment: Deployment) -> tuple[str | None, str | None]:
    status = read_status(deployment.config)
    return status.local, status.cloud


def test_the_plan_names_objects_and_counts_values_that_go(dropping: Deployment) -> None:
    for text in ("x", "y"):
        add_note(dropping, text=text)
    cloud, local = preview(dropping.config, "head")
    assert local.changes == (Change("-", "column", "note.text"),)
    assert Change("-", "foreign column", "federation_link.note.text") in cloud.changes
    assert [str(loss) for loss in local.drops] == ["note.text, 2 values"]
    assert cloud.drops == ()
    shown = dropping.federation("plan").stdout
    assert "  drops note.text, 2 values\n" in shown
    assert "  - column note.text\n" in shown
    found = json.loads(dropping.federation("plan", "--json").stdout)["steps"][1]["drops"]
    assert found == [{"table": "public.note", "column": "text", "values": 2}]


def test_an_upgrade_that_drops_values_needs_yes_without_a_terminal(dropping: Deployment) -> None:
    add_note(dropping, text="x")
    refused = dropping.federation("upgrade")
    assert refused.returncode == 8
    assert refused.stderr == (
        "federation: local 0003 drops note.text, 1 value; nothing was changed — say --yes if that is meant\n"
    )
    assert releases(dropping) == ("0002", "0002")
    assert dropping.federation("upgrade", "--yes").returncode == 0
    assert releases(dropping) == ("0003", "0003")


def test_an_upgrade_that_drops_no_value_does_not_ask(dropping: Deployment) -> None:
    add_note(dropping)
    assert dropping.federation("upgrade").returncode == 0


@pytest.mark.parametrize(("answer", "code", "at"), [(b"n\n", 1, "0002"), (b"y\n", 0, "0003")])
def test_on_a_terminal_it_asks(dropping: Deployment, answer: bytes, code: int, at: str) -> None:
    add_note(dropping, text="x")
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
    done = subprocess.run(
        [sys.executable, "-m", "federation", "upgrade"],
        cwd=dropping.root,
        env=environ | dropping.environ,
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done.stderr
    assert "local 0003 drops note.text, 1 value" in done.stderr
    assert releases(dropping) == (at, at)


def test_a_column_that_the_plan_renames_first_is_counted(dropping: Deployment) -> None:
    add_note(dropping, text="x")
    body = joined('op.alter_column("note", "text", new_column_name="words")', 'op.drop_column("note", "words")')
    rewrite(dropping, {**DROP, "local": {"0003": (body, "pass")}}, "0003")
    assert [str(loss) for loss in preview(dropping.config, "head")[1].drops] == ["note.text, 1 value"]


def test_a_table_that_is_locked_is_not_counted_and_not_waited_for(dropping: Deployment) -> None:
    with dropping.superuser("local") as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
        (loss,) = preview(dropping.config, "head")[1].drops
    assert str(loss) == "note.text, whose values could not be counted"


def test_a_downgrade_plans_what_it_drops(dropping: Deployment) -> None:
    add_note(dropping, text="x")
    drops = [str(loss) for item in preview(dropping.config, "base") for loss in item.drops]
    assert drops == ["note.text, 1 value", "note, 1 row", "federation.account, 2 rows"]


def test_a_contract_release_that_asks_its_database_needs_yes(dropping: Deployment) -> None:
    body = joined("assert op.get_bind().scalar(sa.text('SELECT 1')) == 1", DROP["local"]["0003"][0])
    rewrite(dropping, {**DROP, "local": {"0003": (body, "pass")}}, "0003")
    refused = dropping.federation("upgrade")
    assert refused.returncode == 8
    assert "what local 0003 drops is not known before it runs" in refused.stderr


def test_a_saved_plan_runs_without_being_asked_or_is_refused(dropping: Deployment) -> None:
    add_note(dropping, text="x")
    digest = plan_hash(preview(dropping.config, "head"))
    file = dropping.root / "versions/local/0003.py"
    file.write_text(f"{file.read_text()}\n# edited\n")
    refused = dropping.federation("upgrade", "--plan", digest)
    assert refused.returncode == 8
    edited = plan_hash(preview(dropping.config, "head"))
    assert f"what would run now has sha256 {edited} and is not what was planned" in refused.stderr
    assert releases(dropping) == ("0002", "0002")
    assert dropping.federation("upgrade", "--plan", edited[:12]).returncode == 8
    assert dropping.federation("upgrade", "--plan", edited).returncode == 0
    assert releases(dropping) == ("0003", "0003")
    assert dropping.federation("upgrade", "--plan", edited).returncode == 8  # nothing is left of it


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON a.t (x)", ["+ index i"]),
        ("CREATE TEMP TABLE t (x int)", []),
        ('ALTER TABLE "T" ADD CONSTRAINT c CHECK (x > 0), DROP y, ADD z int', None),
        ("CREATE POLICY own ON a.t USING (true)", ["+ policy own on a.t"]),
        ("DROP POLICY own ON t", ["- policy own on t"]),
        ("DROP FUNCTION a.f(int), g()", ["- function a.f", "- function g"]),
        ("CREATE OR REPLACE FUNCTION a.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", ["+ function a.f"]),
        ("TRUNCATE a.t", ["~ table a.t"]),
        ("CREATE USER MAPPING FOR PUBLIC SERVER s", ["+ user mapping public"]),
        (
            "IMPORT FOREIGN SCHEMA x LIMIT TO (a, b) FROM SERVER s INTO l",
            ["+ foreign table l.a", "+ foreign table l.b"],
        ),
        ("COMMENT ON TABLE t IS 'DROP TABLE t'", []),
        ("ALTER TABLE t RENAME CONSTRAINT a TO b", ["~ constraint a on t"]),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", ["~ table t"]),
        ("ALTER TYPE mood ADD VALUE 'x'", ["~ type mood"]),
    ],
)
def test_the_objects_of_a_statement(statement: str, expected: list[str] | None) -> None:
    step = StepChanges(Relations())
    step.read(statement)
    if expected is None:
        expected = ["+ constraint c on T", "- column T.y", "+ column T.z"]
        assert step.emptied == [(("public", "T"), "y")]
    assert [str(change) for change in step.found] == expected


def test_many_objects_of_one_kind_are_one_line_but_what_is_dropped_is_not() -> None:
    made = tuple(Change("+", "function", f"auth.f{n}") for n in range(4))
    gone = tuple(Change("-", "table", f"app.t{n}") for n in range(4))
    columns = tuple(Change("-", "column", f"app.t.{name}") for name in "ab")
    shown = list(grouped(made + gone + columns))
    assert shown == ["+ 4 functions in auth", *map(str, gone), "- columns of app.t: a, b"]
