"""Copies of the hospital, edited files, older checkouts, standbys and wrong clocks are told for what they are."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import pytest
from psycopg import sql
from runs import end_started

from federation.lockstep import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments


@pytest.fixture
def second(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the second of them."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        yield deployment
        end_started()


@contextmanager
def copied(deployment: Deployment) -> Iterator[str]:
    """A copy of the hospital's database, as ``createdb -T`` makes it; its name."""
    name = f"{deployment.local_dbname}_copy"
    for session in deployment._lookers.values():
        session.close()
    with deployment.pair.local.connect() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s",
            [deployment.local_dbname],
        )
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER hospital_owner TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(deployment.local_dbname)
            )
        )
        try:
            yield name
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_link_that_leads_to_a_copy_of_the_hospital_is_refused(second: Deployment) -> None:
    with copied(second) as copy:
        assert second.federation("status").returncode == 0
        applied = second.federation("link", "apply", FEDERATION_LINK_DBNAME=copy)
        assert applied.returncode == 0, "the control: a copy lists the site, so the link itself is not refused"
        for words in (("status",), ("plan",), ("upgrade",)):
            stopped = second.federation(*words)
            assert stopped.returncode == 8, (words, stopped.stderr)
            assert "the link leads to another database than FEDERATION_LOCAL_URL" in stopped.stdout + stopped.stderr
        assert second.federation("link", "apply").returncode == 0
        assert second.federation("status").returncode == 0
        assert second.federation("upgrade").returncode == 0


def test_a_local_url_that_leads_to_a_copy_is_told_by_its_oid_as_a_restored_database_is(second: Deployment) -> None:
    with copied(second) as copy:
        url = second.environ["FEDERATION_LOCAL_URL"].replace(f"/{second.local_dbname}", f"/{copy}")
        assert url.endswith(copy)
        assert second.federation("upgrade", FEDERATION_LOCAL_URL=url).returncode == 4
        assert second.federation("upgrade").returncode == 0


def test_the_row_is_locked_for_a_moment_and_status_stops_nobody(second: Deployment) -> None:
    """While a step holds the row it cannot be told, and is not."""
    with second.owner("local") as step:
        step.execute("BEGIN; UPDATE federation.guard SET cloud_release = cloud_release")
        assert second.federation("status").returncode == 0
        step.execute("ROLLBACK")


def test_the_row_is_let_go_as_soon_as_the_link_waits_for_it(second: Deployment) -> None:
    """Also where the link's session is younger than the first look at who waits."""
    before = len(second.pair.local.log_text())
    for words in (("status",), ("plan",), ("upgrade", "0003")):
        assert second.federation(*words).returncode == 0
    log = second.pair.local.log_text()[before:]
    assert "FOR UPDATE" in log, "the control: the row is asked for over the link"
    assert "lock timeout" not in log


def test_a_file_that_was_edited_after_it_ran_is_named(second: Deployment) -> None:
    def said(*words: str) -> str:
        ran = second.federation(*words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    assert "edited" not in said("status") + said("plan", "0003"), "the control"
    for side in ("local", "cloud"):
        with (second.root / "versions" / side / "0002.py").open("a") as file:
            file.write("# corrected\n")
    named = [f"versions/{side}/0002.py was edited after it ran" for side in ("local", "cloud")]
    assert all(name in said("status") for name in named)
    assert json.loads(said("status", "--json"))["edited"] == ["versions/local/0002.py", "versions/cloud/0002.py"]
    assert all(name in said("upgrade") for name in named)
    said("downgrade", "0001", "--yes")
    assert "edited" not in said("status"), "what is not in force is no matter"


def test_check_from_an_older_checkout_is_refused_as_status_is(second: Deployment) -> None:
    below = second.federation("check")
    assert below.returncode == 3, "the control: a newer checkout"
    assert "federation upgrade" in below.stderr
    for side in ("local", "cloud"):
        for release in ("0002", "0003"):
            (second.root / "versions" / side / f"{release}.py").unlink()
    for words in (("check",), ("status",), ("plan",), ("upgrade",)):
        assert second.federation(*words).returncode == 8, words
    assert "for which there is no revision file" in second.federation("check").stderr


def test_check_of_a_database_that_cannot_be_written_does_not_send_to_upgrade(second: Deployment) -> None:
    second.look("local", f"ALTER DATABASE {second.local_dbname} SET default_transaction_read_only = on")
    checked = second.federation("check")
    assert checked.returncode == 3
    assert "the database is read-only" in checked.stderr


def order(deployment: Deployment) -> list[tuple[str, str, str]]:
    rows = json.loads(deployment.federation("history", "--json").stdout)["history"]
    return [(row["side"], row["from_release"], row["to_release"]) for row in rows]


@pytest.mark.parametrize("skew", ["26 hours", "-26 hours"])
def test_the_history_is_in_the_order_of_events_whatever_the_clocks_say(second: Deployment, skew: str) -> None:
    assert second.federation("downgrade", "0001", "--yes").returncode == 0
    assert second.federation("upgrade").returncode == 0
    before = order(second)
    assert before == [
        ("local", "base", "0001"),
        ("cloud", "base", "0001"),
        ("local", "0001", "0002"),
        ("cloud", "0001", "0002"),
        ("cloud", "0002", "0001"),
        ("local", "0002", "0001"),
        ("local", "0001", "0002"),
        ("cloud", "0001", "0002"),
        ("local", "0002", "0003"),
        ("cloud", "0002", "0003"),
    ]
    second.look("cloud", f"UPDATE federation.history SET started_at = started_at + interval '{skew}'")
    rows: list[dict[str, Any]] = json.loads(second.federation("history", "--json").stdout)["history"]
    assert order(second) == before
    by_time = sorted(rows, key=lambda row: str(row["started_at"]))
    assert [row["side"] for row in by_time] != [side for side, _, _ in before], "the control"
