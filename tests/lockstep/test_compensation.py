"""A release that fails leaves both databases at the last whole one, and nothing that was written is lost."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import (
    AT_THE_GATE,
    PAST_THE_LOCK,
    add_note,
    at,
    catalogs,
    gate,
    joined,
    mark,
    no_lock_left,
    rewrite,
    settings,
    until,
    waiting,
)
from sqlalchemy import event
from sqlalchemy.engine import Engine

from federation.errors import FederationError, Refused, ReleasesDiffer
from federation.lockstep import downgrade, read_status, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

FAILS = "op.execute('SELECT 1/0')"
WRITES_AT_THE_HOSPITAL = (
    "with __import__('psycopg').connect(__import__('os').environ['FEDERATION_LOCAL_URL'], autocommit=True) as it: "
    "it.execute({statement!r})"
)


@pytest.fixture
def triple(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at base; short waits for locks."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        settings(tmp_path, lock_timeout="1s", lock_attempts=2)
        deployment.enter(monkeypatch)
        yield deployment


@dataclass(frozen=True)
class Way:
    """A way in which the cloud's step fails: what it does, the exit code, what the error says; what undoes it."""

    statement: str
    code: int
    says: str
    back: str = "pass"


def importing(table: str) -> str:
    return (
        f'op.import_foreign_schema("public", server="hospital", into="public", '
        f'tables={{"{table}": [sa.Column("x", sa.Text)]}})'
    )


NOBODY_THERE = "op.execute(\"ALTER SERVER hospital OPTIONS (SET port '1')\")"
ENDS_ITSELF = "op.execute('SELECT pg_terminate_backend(pg_backend_pid())')"
PAST_THE_LINK_ROLE = "op.execute('{} USER MAPPING {} EXISTS FOR authenticated SERVER hospital')"

WAYS = {
    "a missing privilege": Way("op.execute('CREATE TABLE secured.x ()')", 9, "permission denied for schema secured"),
    "a name in the way": Way("op.execute('CREATE TABLE public.busy ()')", 8, 'relation "busy" already exists'),
    "a type that the cloud lacks": Way(importing("moody"), 9, 'type "public.mood" does not exist'),
    "a statement's error": Way(FAILS, 1, "division by zero"),
    "a Python error": Way("raise KeyError('absent')", 1, "KeyError in 0002.py, line"),
    "a table that the hospital lacks": Way(importing("absent"), 7, "the hospital has no table absent"),
    "a column of another type": Way(
        importing("plain"), 7, "column plain.x is integer at the hospital and declared text"
    ),
    "a hospital that is not reached": Way(
        joined(NOBODY_THERE, "op.execute('SELECT federation_private.require_hospital()')"),
        6,
        "the cloud does not reach the hospital",
    ),
    "a lock": Way("op.execute('LOCK TABLE public.busy')", 5, "timed out waiting for a lock"),
    "a session that is ended": Way(ENDS_ITSELF, 6, "the database cannot be reached"),
    "a verification that fails": Way(
        PAST_THE_LINK_ROLE.format("CREATE", "IF NOT"),
        7,
        "authenticated has a user mapping of its own",
        PAST_THE_LINK_ROLE.format("DROP", "IF"),
    ),
}


SOME = (
    "a statement's error",
    "a hospital that is not reached",
    "a lock",
    "a session that is ended",
    "a verification that fails",  # on the way up: on the way down it stops nobody
)
first = pytest.mark.parametrize("way", SOME, indirect=True)
downwards = pytest.mark.parametrize("way", SOME[:-1], indirect=True)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, triple: Deployment) -> Iterator[Way]:
    """The way, with what it needs there, and a lock held on table busy."""
    with triple.superuser("cloud") as superuser:
        superuser.execute("CREATE SCHEMA secured")
        superuser.execute("CREATE TABLE public.busy ()")
        superuser.execute("ALTER TABLE public.busy OWNER TO postgres")
    with triple.owner("local") as owner:
        owner.execute("CREATE TYPE mood AS ENUM ('good')")
        owner.execute("CREATE TABLE moody (m mood)")
        owner.execute("CREATE TABLE plain (x integer)")
    with triple.superuser("cloud") as busy:
        busy.autocommit = False
        busy.execute("LOCK TABLE public.busy IN ACCESS SHARE MODE")
        yield WAYS[request.param]


def expect(deployment: Deployment, way: Way, release: str, whole: str | None) -> None:
    """The command fails as ``way`` says, and both databases are as they were at ``whole``."""
    before = catalogs(deployment)
    with pytest.raises(FederationError) as raised:
        if (whole or "") < release:
            upgrade(deployment.config, release)
        else:
            downgrade(deployment.config, "base")
    error = raised.value
    assert (error.exit_code, error.side, error.release) == (way.code, "cloud", release), str(error)
    assert way.says in error.message
    assert error.message.endswith(f"; both databases are at {whole or 'base'}")
    assert at(deployment) == (whole, whole)
    assert mark(deployment) == (whole or "")
    assert catalogs(deployment) == before
    assert no_lock_left(deployment)


def test_a_cloud_step_that_fails_leaves_the_last_whole_release(triple: Deployment, way: Way) -> None:
    upgrade(triple.config, "0001")
    up, down = three.CLOUD["0002"]
    rewrite(triple, {"cloud": {"0002": (joined(way.statement, up), joined(down, way.back))}})
    expect(triple, way, "0002", "0001")


@first
def test_the_first_release_that_fails_leaves_base(triple: Deployment, way: Way) -> None:
    upgrade(triple.config, "0001")
    downgrade(triple.config, "base")  # the toolkit's books stay
    up, down = three.CLOUD["0001"]
    if way.code == 6 and "ALTER SERVER" in way.statement:
        server = 'op.create_foreign_server("hospital")'
        up = up.replace(server, joined(server, NOBODY_THERE))
    else:
        up = joined(up, way.statement)
    rewrite(triple, {"cloud": {"0001": (up, joined(way.back, down))}})
    expect(triple, way, "0001", None)


@downwards
def test_a_cloud_step_that_fails_on_the_way_down_leaves_the_last_whole_release(triple: Deployment, way: Way) -> None:
    up, down = three.CLOUD["0002"]
    rewrite(triple, {"cloud": {"0002": (joined(way.back, up), joined(way.statement, down))}})
    upgrade(triple.config, "0002")
    expect(triple, way, "0002", "0002")


@downwards
def test_a_contract_releases_cloud_step_that_fails_on_the_way_down_leaves_the_last_whole_release(
    triple: Deployment, way: Way
) -> None:
    """The hospital has brought its column back by then, which is undone."""
    chains = {side: {"0003": chain["0002"][::-1]} for side, chain in (("local", three.LOCAL), ("cloud", three.CLOUD))}
    up, down = chains["cloud"]["0003"]
    chains["cloud"]["0003"] = (joined(way.back, up), joined(way.statement, down))
    rewrite(triple, chains, "0003")
    upgrade(triple.config)
    expect(triple, way, "0003", "0003")


# What the half of 0002 at the hospital does and undoes, and what holds a value then.
HOLDING = {
    "a column that the half filled": (
        joined(three.LOCAL["0002"][0], "op.execute(\"UPDATE note SET text = 'x'\")"),
        three.LOCAL["0002"][1],
        "column note.text",
    ),
    "a table that the half filled": (
        joined("op.create_table('extra', sa.Column('x', sa.Text))", 'op.execute("INSERT INTO extra VALUES (NULL)")'),
        "op.drop_table('extra')",
        "table extra",
    ),
    "a column of a table that shows its owner no row": (
        joined(
            three.LOCAL["0002"][0],
            "op.execute(\"UPDATE note SET text = 'x'\")",
            "op.execute('ALTER TABLE note FORCE ROW LEVEL SECURITY')",
        ),
        joined("op.execute('ALTER TABLE note NO FORCE ROW LEVEL SECURITY')", three.LOCAL["0002"][1]),
        "column note.text",
    ),
    "a column with an odd name": (
        joined(
            """op.add_column("note", sa.Column('a "%:x\\'', sa.Text))""",
            """op.execute('UPDATE note SET "a ""%\\\\:x\\'\\'" = 1')""".replace("\\'\\'", "\\'"),
        ),
        """op.drop_column("note", 'a "%:x\\'')""",
        "column note.a \"%:x'",
    ),
}


def fail_after(deployment: Deployment, up: str, down: str, *before: str) -> None:
    """0002's half at the hospital is ``up`` and ``down``; the cloud's does ``before`` and fails."""
    rewrite(deployment, {"local": {"0002": (up, down)}, "cloud": {"0002": (joined(*before, FAILS), "pass")}})


def mend(deployment: Deployment, up: str, down: str) -> None:
    rewrite(deployment, {"local": {"0002": (up, down)}, "cloud": {"0002": ("pass", "pass")}})


@pytest.mark.parametrize("what", HOLDING)
def test_a_half_that_would_lose_a_value_is_not_undone(triple: Deployment, what: str) -> None:
    up, down, names = HOLDING[what]
    upgrade(triple.config, "0001")
    add_note(triple)
    fail_after(triple, up, down)
    with pytest.raises(ReleasesDiffer) as raised:
        upgrade(triple.config, "0002")
    assert f"undoing it would drop {names}, which holds values" in raised.value.message
    assert "division by zero" in raised.value.message
    assert at(triple) == ("0002", "0001")
    status = read_status(triple.config)
    assert status.next_command == "federation upgrade 0002"
    mend(triple, up, down)
    assert triple.federation(*str(status.next_command).split()[1:]).returncode == 0
    assert at(triple) == ("0002", "0002")


@pytest.mark.parametrize("what", HOLDING)
def test_the_same_half_is_undone_where_there_is_no_value(triple: Deployment, what: str) -> None:
    up, down, _ = HOLDING[what]
    upgrade(triple.config, "0001")
    before = triple.dump("local")
    fail_after(triple, up.replace("INSERT INTO extra VALUES (NULL)", "DELETE FROM extra"), down)
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(triple.config, "0002")
    assert at(triple) == ("0001", "0001")
    assert triple.dump("local") == before


def test_a_value_that_somebody_wrote_meanwhile_is_not_lost(triple: Deployment) -> None:
    upgrade(triple.config, "0001")
    add_note(triple)
    fail_after(triple, *three.LOCAL["0002"], WRITES_AT_THE_HOSPITAL.format(statement="UPDATE note SET text = 'x'"))
    result = triple.federation("upgrade", "0002")
    assert result.returncode == 4
    assert "would drop column note.text, which holds values" in result.stderr
    with triple.owner("local") as owner:
        assert owner.execute("SELECT text FROM note").fetchall() == [("x",)]


def test_downgrade_drops_knowingly_what_compensation_would_not(triple: Deployment) -> None:
    up, down, _ = HOLDING["a column that the half filled"]
    upgrade(triple.config, "0001")
    add_note(triple)
    fail_after(triple, up, down)
    assert triple.federation("upgrade", "0002").returncode == 4
    assert triple.federation("downgrade", "0001", "--yes").returncode == 0
    assert at(triple) == ("0001", "0001")


def test_a_column_that_gets_its_old_name_back_is_not_lost(triple: Deployment) -> None:
    """By its name alone it would seem to be dropped."""
    upgrade(triple.config, "0002")
    add_note(triple, text="x")
    rename = (
        "op.alter_column('note', 'text', new_column_name='body')",
        "op.alter_column('note', 'body', new_column_name='text')",
    )
    rewrite(triple, {"local": {"0003": rename}, "cloud": {"0003": (FAILS, "pass")}})
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(triple.config)
    assert at(triple) == ("0002", "0002")
    with triple.owner("local") as owner:
        assert owner.execute("SELECT text FROM note").fetchall() == [("x",)]


def test_a_generated_column_holds_nothing_of_its_own(triple: Deployment) -> None:
    upgrade(triple.config, "0001")
    add_note(triple)
    up = "op.add_column('note', sa.Column('both', sa.Text, sa.Computed(\"id || ''\", persisted=True)))".replace(
        "id || ''", "'x'"
    )
    fail_after(triple, up, "op.drop_column('note', 'both')")
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(triple.config)
    assert at(triple) == ("0001", "0001")


def test_a_half_whose_undoing_leaves_the_transaction_is_not_undone(triple: Deployment) -> None:
    upgrade(triple.config, "0001")
    leaving = "with op.get_context().autocommit_block(): op.execute('{}')"
    up = leaving.format("CREATE INDEX CONCURRENTLY IF NOT EXISTS note_site ON note (site)")
    down = leaving.format("DROP INDEX CONCURRENTLY IF EXISTS note_site")
    fail_after(triple, up, down)
    with pytest.raises(ReleasesDiffer, match="leaves the transaction") as raised:
        upgrade(triple.config, "0002")
    assert "op.create_index_concurrently" in str(raised.value.hint)
    assert at(triple) == ("0002", "0001")
    mend(triple, up, down)
    upgrade(triple.config, "0002")
    downgrade(triple.config, "0001")
    assert at(triple) == ("0001", "0001")


INDEX = 'op.{}_index_concurrently("note_site", "note", ["site"])'


@pytest.mark.parametrize("more", [(), three.LOCAL["0002"]], ids=["alone", "with a column"])
def test_an_index_built_concurrently_is_undone(triple: Deployment, more: tuple[str, ...]) -> None:
    upgrade(triple.config, "0001")
    before = triple.dump("local")
    add_note(triple)
    fail_after(triple, joined(INDEX.format("create"), *more[:1]), joined(INDEX.format("drop"), *more[1:]))
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(triple.config, "0002")
    assert at(triple) == ("0001", "0001")
    assert triple.dump("local") == before


def test_an_index_that_a_half_dropped_concurrently_is_built_again(triple: Deployment) -> None:
    """On the way down the cloud's half is brought back, on the way up the hospital's."""
    rewrite(
        triple,
        {
            "local": {"0002": (INDEX.format("create"), INDEX.format("drop"))},
            "cloud": {"0002": ("pass", "pass"), "0003": (FAILS, "pass")},
        },
    )
    upgrade(triple.config, "0002")
    before = triple.dump("local")
    rewrite(
        triple,
        {
            "local": {
                "0002": (INDEX.format("create"), INDEX.format("drop")),
                "0003": (INDEX.format("drop"), INDEX.format("create")),
            },
            "cloud": {"0002": ("pass", "pass"), "0003": (FAILS, "pass")},
        },
    )
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(triple.config)
    assert at(triple) == ("0002", "0002")
    assert triple.dump("local") == before


def test_a_value_that_is_written_while_an_index_is_built_again_is_not_lost(triple: Deployment) -> None:
    """The build waits for a snapshot that somebody holds; its transaction and its locks are left by then."""
    settings(triple.root, lock_timeout="10min")
    built = {"local": {"0002": (INDEX.format("create"), INDEX.format("drop"))}, "cloud": {"0002": ("pass", "pass")}}
    rewrite(triple, built)
    upgrade(triple.config, "0002")
    add_note(triple)
    up, down = three.LOCAL["0002"]
    built["local"]["0003"] = joined(INDEX.format("drop"), up), joined(INDEX.format("create"), down)
    built["cloud"]["0003"] = joined(AT_THE_GATE, FAILS), "pass"
    rewrite(triple, built)
    with ThreadPoolExecutor(1) as thread, triple.superuser("local") as reader, triple.owner("local") as app:
        with gate(triple, "cloud"):
            run = thread.submit(upgrade, triple.config)
            until(lambda: run.done() or waiting(triple, "cloud", lock="advisory"), "the cloud's step does not run")
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT 1")
        until(lambda: run.done() or waiting(triple, "local", "CREATE INDEX%", lock="virtualxid"), "it is not built")
        app.execute("UPDATE note SET text = 'x'")
        reader.execute("ROLLBACK")
        with pytest.raises(ReleasesDiffer, match=r"would drop column note\.text, which holds values"):
            run.result()
        assert app.execute("SELECT text FROM note").fetchall() == [("x",)]
    assert at(triple) == ("0003", "0002")


def test_what_a_dba_has_undone_meanwhile_is_not_undone_again(triple: Deployment) -> None:
    upgrade(triple.config, "0001")
    alembic = (
        "__import__('subprocess').run([__import__('sys').executable, "
        f"'-c', {PAST_THE_LOCK!r}, *'-n local downgrade 0001'.split()], check=True)"
    )
    fail_after(triple, *three.LOCAL["0002"], alembic)
    with pytest.raises(FederationError, match="division by zero") as raised:
        upgrade(triple.config, "0002")
    assert not isinstance(raised.value, ReleasesDiffer)
    assert at(triple) == ("0001", "0001")


def test_what_a_dba_has_done_meanwhile_is_not_undone(triple: Deployment) -> None:
    """The same step, taken by plain alembic while the run takes it."""
    upgrade(triple.config, "0001")
    up, down = three.LOCAL["0002"]
    first = (
        "import os, subprocess, sys",
        "nested = {**os.environ, 'NESTED': 'yes'}",
        f"command = [sys.executable, '-c', {PAST_THE_LOCK!r}, *'-n local upgrade 0002'.split()]",
        "'NESTED' in os.environ or subprocess.run(command, check=True, env=nested)",
    )
    rewrite(triple, {"local": {"0002": (joined(*first, up), down)}})
    with pytest.raises(ReleasesDiffer, match="local is at 0002, cloud at 0001") as raised:
        upgrade(triple.config, "0002")
    assert 'column "text" of relation "note" already exists' in raised.value.message
    assert at(triple) == ("0002", "0001")


def test_a_downgrade_beyond_base_is_refused(triple: Deployment) -> None:
    upgrade(triple.config)
    with pytest.raises(Refused, match="no 4 releases below 0003"):
        downgrade(triple.config, "-4")
    assert at(triple) == ("0003", "0003")


def test_a_value_that_waits_for_the_look_is_not_lost(triple: Deployment) -> None:
    """An INSERT that waits while the undoing looks is not let in between the look and the DROP.

    It would be acknowledged, and its value would go with the column.
    """
    rewrite(triple, {"cloud": {"0002": (FAILS, "pass")}})
    upgrade(triple.config, "0001")
    written: list[Future[object]] = []

    def waits(pid: int) -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        return triple.look("local", query, [pid]) != [(0,)]

    def writing(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith('SELECT EXISTS (SELECT FROM "public"."note" WHERE "text"') and not written:
            insert = "INSERT INTO note (id, site, text) VALUES (gen_random_uuid(), gen_random_uuid(), 'precious')"
            written.append(thread.submit(app.execute, insert))
            until(lambda: written[0].done() or waits(app.info.backend_pid), "the app does not wait")

    with ThreadPoolExecutor(1) as thread, triple.owner("local") as app:
        event.listen(Engine, "before_cursor_execute", writing)
        try:
            with pytest.raises(FederationError):
                upgrade(triple.config, "0002")
        finally:
            event.remove(Engine, "before_cursor_execute", writing)
        (insert,) = written
        acknowledged = insert.exception() is None
    kept = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'note'::regclass AND attname = 'text'"
    assert acknowledged == (triple.look("local", kept) == [(1,)])
