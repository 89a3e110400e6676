"""A release takes its locks in the order in which the app takes them: no request is the victim of a deadlock."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from runs import until, waiting

from federation.lockstep import downgrade, run, upgrade
from federation.lockstep.ahead import StepAhead
from federation.operations import bindings, foreign_tables, locking

if TYPE_CHECKING:
    from deployments import Deployment

REQUESTS = 3
PATIENT = "INSERT INTO hospital_patients (hospital_id, name) VALUES (%s, 'Asha')"
WHO_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND application_name <> 'federation'"
)


def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the toolkit did until it locked views first and parents first; the control."""
    monkeypatch.setattr(run.Ahead, "of", lambda *_: StepAhead())
    monkeypatch.setattr(locking, "in_order", lambda *_: sql.SQL("SELECT"))
    for module in (foreign_tables, bindings):
        monkeypatch.setattr(module, "lock_views_over", lambda *_: None)


def patient(deployment: Deployment, turn: str) -> None:
    """How long the runner waits at a time: longer than deadlock_timeout in the control."""
    file = deployment.root / "federation.toml"
    text = file.read_text()
    assert "[database]" not in text
    file.write_text(f"{text}\n[database]\nlock_timeout = {turn!r}\nlock_attempts = 200\n")


@pytest.fixture
def at_three(deployment: Deployment, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """BeanHealth's databases at 0003, with a patient, in a folder of their own."""
    from deployments import copy_root

    deployment.root = copy_root(tmp_path)
    deployment.enter(monkeypatch)
    upgrade(deployment.config, "0003")
    deployment.superuser("local").execute(PATIENT, [deployment.config.site()])
    return deployment


def count(deployment: Deployment) -> int:
    """A request of the app, which waits as long as it must."""
    with deployment.as_user() as caller:
        caller.execute("SET LOCAL statement_timeout = 0")
        caller.execute("SELECT count(*) FROM hospital_patients")
        return int(caller.fetchone()[0])  # type: ignore[index]


def answers(deployment: Deployment, release: str) -> list[int | str]:
    """What requests get that arrive while a release's half in the cloud waits for one that has read before it."""
    done = deployment.alembic("local", "upgrade", release)
    assert done.returncode == 0, done.stderr
    with ThreadPoolExecutor(REQUESTS + 1) as pool:
        with deployment.as_user() as reader:
            reader.execute("SET LOCAL statement_timeout = 0")
            reader.execute("SELECT count(*) FROM hospital_patients")
            running = pool.submit(upgrade, deployment.config, release)
            until(lambda: running.done() or waiting(deployment, "cloud", lock="relation"), "the release does not wait")
            assert not running.done(), running.exception()
            asked = [pool.submit(count, deployment) for _ in range(REQUESTS)]
            until(lambda: deployment.look("cloud", WHO_WAITS)[0][0] == REQUESTS, "the requests do not wait")
        running.result()
        return [answer(one) for one in asked]


def answer(asked: Future[int]) -> int | str:
    try:
        return asked.result()
    except psycopg.Error as error:
        return str(error.sqlstate)


def test_requests_that_arrive_while_a_release_waits_are_answered(at_three: Deployment) -> None:
    patient(at_three, "60s")
    assert answers(at_three, "0004") == [1] * REQUESTS


def test_where_the_foreign_table_is_locked_first_they_are_the_victims(
    at_three: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    as_before(monkeypatch)
    patient(at_three, "60s")
    assert "40P01" in answers(at_three, "0004")


@pytest.mark.parametrize("order", ["written", "found ahead", "as before"])
def test_a_transaction_that_goes_from_parents_to_children_is_no_victim(
    at_three: Deployment, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    downgrade(at_three.config, "0001")
    if order == "as before":
        as_before(monkeypatch)
    if order == "found ahead":  # by the run, where the release says nothing of it
        (file,) = (at_three.root / "versions/local").glob("0002*.py")
        text = file.read_text()
        assert "op.lock_tables(" in text
        file.write_text(re.sub(r"op.lock_tables\(.*\)", "pass", text))
    patient(at_three, "60s")
    before = len(at_three.pair.local.log_text())
    with ThreadPoolExecutor(1) as pool, at_three.superuser("local") as app:
        app.autocommit = False
        app.execute("LOCK TABLE hospital_patients IN ROW EXCLUSIVE MODE")  # as a DELETE does
        running = pool.submit(upgrade, at_three.config, "0002")
        until(lambda: running.done() or waiting(at_three, "local", lock="relation"), "the release does not wait")
        assert not running.done(), running.exception()
        if order != "as before":
            app.execute("LOCK TABLE hospital_prescriptions IN ROW EXCLUSIVE MODE")  # as its cascade does
            app.commit()
            running.result()
            assert deadlocks(at_three, before) == 0
        else:  # one of the two is the victim; the release tries again
            with suppress(psycopg.errors.DeadlockDetected):
                app.execute("LOCK TABLE hospital_prescriptions IN ROW EXCLUSIVE MODE")  # as its cascade does
            app.rollback()
            running.result()
            assert deadlocks(at_three, before) > 0, "nobody was a victim"


def deadlocks(deployment: Deployment, before: int) -> int:
    """Those that the hospital's server has ended since its log was ``before`` long."""
    return deployment.pair.local.log_text()[before:].count("deadlock detected")
