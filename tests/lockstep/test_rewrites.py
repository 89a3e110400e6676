"""A step that rewrites a table at the hospital: who waits for it is answered rightly, or it does not happen."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import pytest
from runs import AT_THE_GATE, add_note, at, gate, joined, rewrite, settings, start, until, waiting

from federation.check import check
from federation.databases import connect
from federation.errors import Refused
from federation.guard import storage
from federation.lockstep import downgrade, run, upgrade
from federation.lockstep.ahead import StepAhead
from federation.lockstep.planned import preview
from federation.preview.relations import Relations
from federation.preview.rewrite_rules import rewrites
from federation.preview.tokens import tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

ROWS = 7
OPEN = "SELECT pg_advisory_unlock_all()"
WRITTEN = "op.add_column('note', sa.Column('code', sa.Uuid, server_default=sa.text('gen_random_uuid()')))"
ALTER = "ALTER TABLE public.note ADD COLUMN code uuid DEFAULT gen_random_uuid()"
HIDDEN = f"op.execute(\"DO $$ BEGIN EXECUTE '{ALTER}'; END $$\")"
LIGHT = "op.add_column('note', sa.Column('code', sa.Text, server_default='x'))"
BACK = "op.drop_column('note', 'code')"


@pytest.fixture
def three_notes(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the second of them, and rows."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        settings(deployment.root, rewrite_timeout="60s")
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        for _ in range(ROWS):
            add_note(deployment)
        deployment.superuser("local").execute("ANALYZE note")
        yield deployment


def request(deployment: Deployment, statement: str = "SELECT count(*) FROM note", role: str = "authenticated") -> Any:
    """What a caller of the app gets; it is as patient as its server lets it be."""
    with deployment.as_user(role=role) as caller:
        caller.execute("SET LOCAL statement_timeout = 0")
        caller.execute(statement)
        return caller.fetchone()[0] if caller.description else caller.rowcount


@contextmanager
def requested(deployment: Deployment, *roles: str) -> Iterator[list[Future[Any]]]:
    """Requests under way, one a role, that wait for a lock; in the block they still do."""
    with ThreadPoolExecutor(len(roles)) as pool:
        asked = [pool.submit(request, deployment, role=role) for role in roles]
        until(lambda: who_waits(deployment) >= len(roles) or any(one.done() for one in asked), "nobody waits")
        yield asked


WHO_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
    "AND wait_event = 'relation'"
)


def who_waits(deployment: Deployment) -> int:
    """Requests that wait for a relation, in the cloud or, over the link, at the hospital."""
    return sum(int(deployment.look(side, WHO_WAITS)[0][0]) for side in ("local", "cloud"))


@pytest.mark.parametrize("step", [WRITTEN, HIDDEN], ids=["declared", "found while it runs"])
def test_who_waits_while_a_step_rewrites_a_table_is_shown_all_rows(three_notes: Deployment, step: str) -> None:
    rewrite(three_notes, {"local": {"0003": (joined(step, AT_THE_GATE), BACK)}})
    with gate(three_notes, "local") as keeper:
        running = start(three_notes, "upgrade")
        until(lambda: waiting(three_notes, "local", lock="advisory"), "the step does not get to the gate")
        with requested(three_notes, "authenticated", "authenticated") as asked:
            if step == WRITTEN:  # they wait in the cloud, before they have sent anything
                assert three_notes.look("cloud", WHO_WAITS) == [(2,)]
            keeper.execute(OPEN)
            assert [one.result() for one in asked] == [ROWS, ROWS]
    assert running.wait() == 0, running.stderr and running.stderr.read()
    assert at(three_notes) == ("0003", "0003")


def test_without_the_locks_they_are_shown_none(three_notes: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what happened before the app was kept out."""
    monkeypatch.setattr(storage, "files", lambda *_: {})
    monkeypatch.setattr(run.Ahead, "of", lambda *_: StepAhead())
    rewrite(three_notes, {"local": {"0003": (joined(WRITTEN, AT_THE_GATE), BACK)}})
    with ThreadPoolExecutor(2) as pool, gate(three_notes, "local") as keeper:
        running = pool.submit(upgrade, three_notes.config)
        until(lambda: waiting(three_notes, "local", lock="advisory"), "the step does not get to the gate")
        with requested(three_notes, "authenticated") as asked:
            keeper.execute(OPEN)
            assert [one.result() for one in asked] == [0]
        running.result()


def test_a_step_that_rewrites_nothing_keeps_nobody_out(three_notes: Deployment) -> None:
    """The control of the control: who waits for a step without a rewrite has always been shown all rows."""
    rewrite(three_notes, {"local": {"0003": (joined(LIGHT, AT_THE_GATE), BACK)}})
    with gate(three_notes, "local") as keeper:
        running = start(three_notes, "upgrade")
        until(lambda: waiting(three_notes, "local", lock="advisory"), "the step does not get to the gate")
        with requested(three_notes, "authenticated") as asked:
            assert three_notes.look("local", WHO_WAITS) == [(1,)]
            keeper.execute(OPEN)
            assert [one.result() for one in asked] == [ROWS]
    assert running.wait() == 0


@pytest.mark.parametrize("step", [WRITTEN, HIDDEN], ids=["declared", "found while it runs"])
def test_a_rewrite_that_takes_too_long_is_undone(
    three_notes: Deployment, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    settings(three_notes.root, rewrite_timeout="200ms")
    rewrite(three_notes, {"local": {"0003": (joined(step, AT_THE_GATE), BACK)}})
    if step == HIDDEN:
        rewrite(three_notes, {"local": {"0003": (joined(step, slow_the_second_time()), BACK)}})
        monkeypatch.setattr(sys, "rewritten", 0, raising=False)
        with pytest.raises(Refused, match=r"rewriting note takes longer than rewrite_timeout \(200ms\)") as caught:
            upgrade(three_notes.config)
    else:
        with gate(three_notes, "local"), pytest.raises(Refused, match="rewriting note takes longer") as caught:
            upgrade(three_notes.config)
    assert caught.value.exit_code == 8
    assert "without a rewrite" in str(caught.value)
    assert at(three_notes) == ("0002", "0002")
    assert request(three_notes) == ROWS


def slow_the_second_time() -> str:
    """The first time the rewrite is found, the second time it takes for ever, if nobody ends it."""
    return joined(
        "import sys",
        "sys.rewritten = getattr(sys, 'rewritten', 0) + (not op.get_context().as_sql)",
        "op.execute('SELECT pg_sleep(600)') if sys.rewritten == 2 else None",
    )


def test_plain_alembic_does_not_rewrite_a_table_that_the_cloud_reads(three_notes: Deployment) -> None:
    rewrite(three_notes, {"local": {"0003": (WRITTEN, BACK)}})
    refused = three_notes.alembic("local", "upgrade", "head")
    assert refused.returncode == 8
    assert "the step rewrites note, and requests that wait meanwhile would see no rows" in refused.stderr
    assert at(three_notes) == ("0002", "0002")
    done = three_notes.alembic("local", "-x", "override=nobody is at work", "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert at(three_notes) == ("0003", "0002")
    said = "SELECT override, refusal FROM federation.history ORDER BY id DESC LIMIT 1"
    ((override, refusal),) = three_notes.look("local", said)
    assert override == "nobody is at work"
    assert refusal.startswith("the step rewrites note")


def test_plain_alembic_rewrites_what_no_cloud_reads(three_notes: Deployment) -> None:
    downgrade(three_notes.config, "base")
    rewrite(three_notes, {"local": {"0003": (WRITTEN, BACK)}})
    done = three_notes.alembic("local", "upgrade", "head")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("override", [(), ("-x", "override=nobody is at work")], ids=["refused", "overridden"])
def test_a_script_does_not_rewrite_a_table_that_the_cloud_reads(
    three_notes: Deployment, override: tuple[str, ...]
) -> None:
    rewrite(three_notes, {"local": {"0003": (WRITTEN, BACK)}})
    script = three_notes.alembic("local", *override, "upgrade", "0002:0003", "--sql")
    assert script.returncode == 0, script.stderr
    psql = three_notes.pair.local.binaries.program("psql")
    url = three_notes.environ["FEDERATION_LOCAL_URL"]
    done = subprocess.run([psql, "-X", "-q", url], input=script.stdout, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == bool(override), done.stderr
    assert ("the step rewrites note" in done.stderr) != bool(override)
    assert at(three_notes) == ("0003" if override else "0002", "0002")


def test_a_rewrite_before_the_step_leaves_its_transaction_is_found(three_notes: Deployment) -> None:
    leaving = joined(HIDDEN, "with op.get_context().autocommit_block():", "    op.execute('VACUUM note')")
    rewrite(three_notes, {"local": {"0003": (leaving, BACK)}})
    refused = three_notes.alembic("local", "upgrade", "head")
    assert refused.returncode == 8
    assert not three_notes.look(
        "local", "SELECT FROM pg_attribute WHERE attname = 'code' AND attrelid = 'note'::regclass"
    )


def test_plan_says_what_is_rewritten(three_notes: Deployment) -> None:
    rewrite(three_notes, {"local": {"0003": (WRITTEN, BACK)}})
    (local,) = (item for item in preview(three_notes.config, "head") if item.step.side == "local")
    assert [str(one) for one in local.rewrites] == [f"rewrites note, {ROWS} rows"]
    assert f"rewrites note, {ROWS} rows" in three_notes.federation("plan").stdout
    assert f"--   rewrites note, {ROWS} rows" in three_notes.federation("plan", "--sql").stdout


ACTIONS = [
    "ADD COLUMN a uuid DEFAULT gen_random_uuid()",
    "ADD COLUMN a timestamptz DEFAULT now()",
    "ADD COLUMN a timestamptz DEFAULT clock_timestamp()",
    "ADD COLUMN a text DEFAULT 'x' NOT NULL",
    "ADD COLUMN a text DEFAULT upper('gen_random_uuid()')",
    "ADD COLUMN a serial",
    "ADD COLUMN a bigint GENERATED ALWAYS AS IDENTITY",
    "ADD COLUMN a integer GENERATED ALWAYS AS (length(t)) STORED",
    "ADD COLUMN a text, ADD COLUMN b float DEFAULT random()",
    "ADD CONSTRAINT c CHECK (random() < 2)",
    "ADD PRIMARY KEY (id)",
    "ALTER COLUMN t TYPE varchar",
    "ALTER COLUMN t TYPE varchar(30)",
    "ALTER COLUMN v TYPE varchar(30)",
    "ALTER COLUMN v TYPE character varying (10)",
    "ALTER COLUMN v TYPE text",
    "ALTER COLUMN v SET DATA TYPE varchar(9)",
    "ALTER COLUMN n TYPE numeric(12, 2)",
    "ALTER COLUMN n TYPE numeric(12, 3)",
    "ALTER COLUMN n TYPE numeric",
    "ALTER COLUMN n TYPE decimal(10,2)",
    "ALTER COLUMN i TYPE bigint",
    "ALTER COLUMN i TYPE integer",
    "ALTER COLUMN t TYPE date USING t::date",
    "ALTER COLUMN t SET NOT NULL",
    "ALTER COLUMN t SET DEFAULT gen_random_uuid()::text",
    "SET UNLOGGED",
    "SET (fillfactor = 50)",
    "DROP COLUMN v",
]


@pytest.mark.parametrize("action", ACTIONS)
def test_which_actions_rewrite_is_what_the_server_does(deployment: Deployment, action: str) -> None:
    with deployment.owner("local") as owner:
        owner.execute("CREATE TABLE zoo (id integer, t text, v varchar(10), n numeric(10, 2), i integer)")
        with connect(deployment.config, "local") as connection:
            relations = Relations.read(connection)
        said = any(rewrites(tokens_of(part), ("public", "zoo"), relations) for part in action.split(", ADD"))
        said = said or any(
            rewrites(tokens_of(f"ADD{part}"), ("public", "zoo"), relations) for part in action.split(", ADD")[1:]
        )
        file = "SELECT relfilenode FROM pg_class WHERE oid = 'zoo'::regclass"
        before = owner.execute(file).fetchone()
        owner.execute(f"ALTER TABLE zoo {action}")  # type: ignore[arg-type]
        assert said == (owner.execute(file).fetchone() != before)


@pytest.mark.parametrize("done", ["CLUSTER {} USING note_pkey", "VACUUM FULL {}", "TRUNCATE {}", "VACUUM {}"])
def test_check_finds_what_a_dba_has_rewritten_until_a_run_takes_note(three_notes: Deployment, done: str) -> None:
    upgrade(three_notes.config)
    three_notes.owner("local").execute(done.format("note"))  # type: ignore[arg-type]
    found = [difference for difference in check(three_notes.config) if difference.what == "table"]
    if done == "VACUUM {}":
        assert found == []
        return
    (difference,) = found
    assert (difference.side, difference.name) == ("local", "public.note")
    assert "CLUSTER, VACUUM FULL or TRUNCATE" in difference.detail
    noted = three_notes.federation("upgrade")
    assert noted.returncode == 0
    assert "rewritten since the last step (CLUSTER, VACUUM FULL or TRUNCATE): note" in noted.stderr
    assert not [difference for difference in check(three_notes.config) if difference.what == "table"]


def test_a_rewrite_waits_for_who_is_inside_the_link_with_no_view(three_notes: Deployment) -> None:
    """A caller that is bound has its snapshot at the hospital, before it reads any view."""
    rewrite(three_notes, {"local": {"0003": (WRITTEN, BACK)}})
    with three_notes.as_user() as caller:
        caller.execute("SET LOCAL statement_timeout = 0")
        caller.execute("SELECT federation.bind_claims()")
        running = start(three_notes, "upgrade")
        until(lambda: waiting(three_notes, "cloud", lock="relation"), "the release does not wait")
        caller.execute("SELECT count(*) FROM note")
        assert caller.fetchone() == (ROWS,)
    assert running.wait() == 0
    assert at(three_notes) == ("0003", "0003")
