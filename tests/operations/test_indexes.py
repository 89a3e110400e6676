"""Indexes built and dropped concurrently: by the runner, by Alembic, as ``--sql``, and after a kill in the middle."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import chains_of_three as three
import psycopg
import pytest
from psycopg import sql

from federation.errors import FederationError, Refused
from federation.lockstep import downgrade, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

CREATE = 'op.create_index_concurrently("note_site_idx", "note", ["site"])'
DROP = 'op.drop_index_concurrently("note_site_idx", "note", ["site"])'


def write(root: Path, up: str = CREATE, down: str = DROP) -> Path:
    """Release 0002 is nothing but an index at the hospital."""
    return three.write(
        root,
        local={**three.LOCAL, "0002": (up, down), "0003": ("pass", "pass")},
        cloud={**three.CLOUD, "0002": ("pass", "pass")},
    )


@pytest.fixture
def noted(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Release 0001, with a row; 0002 is to come."""
    with deployments.at_base(write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0001")
        with deployment.owner("local") as owner:
            owner.execute("INSERT INTO note VALUES (gen_random_uuid(), gen_random_uuid())")
        yield deployment


def index(deployment: Deployment) -> tuple[int, bool, str] | None:
    """oid, validity and definition of the index, if there is one."""
    with deployment.owner("local") as owner:
        return owner.execute(
            "SELECT indexrelid::bigint, indisvalid, pg_get_indexdef(indexrelid) FROM pg_index "
            "WHERE indexrelid = to_regclass('note_site_idx')"
        ).fetchone()


def release(deployment: Deployment) -> str | None:
    with deployment.owner("local") as owner:
        row = owner.execute("SELECT version_num FROM federation.alembic_version").fetchone()
        return row[0] if row else None


def is_valid(deployment: Deployment) -> bool:
    found = index(deployment)
    return found is not None and found[1]


def test_the_runner_builds_it_and_drops_it(noted: Deployment) -> None:
    upgrade(noted.config)
    found = index(noted)
    assert found is not None
    assert found[1:] == (True, "CREATE INDEX note_site_idx ON public.note USING btree (site)")
    downgrade(noted.config, "0001")
    assert index(noted) is None
    assert release(noted) == "0001"


def test_plain_alembic_builds_it_and_drops_it(noted: Deployment) -> None:
    result = noted.alembic("local", "upgrade", "head")
    assert result.returncode == 0, result.stderr
    assert is_valid(noted)
    assert noted.alembic("local", "downgrade", "0001").returncode == 0
    assert index(noted) is None


def psql(deployment: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    """The words' ``--sql``, run by psql."""
    script = deployment.alembic("local", *words, "--sql")
    assert script.returncode == 0, script.stderr
    return subprocess.run(
        [
            str(deployment.pair.local.binaries.program("psql")),
            *("-X", "-q", "-v", "ON_ERROR_STOP=1"),
            deployment.environ["FEDERATION_LOCAL_URL"],
        ],
        input=script.stdout,
        env=os.environ | deployment.environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_offline_sql_builds_it_rebuilds_an_invalid_one_and_drops_it(noted: Deployment) -> None:
    leave_invalid(noted)
    result = psql(noted, "upgrade", "0001:0002")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert is_valid(noted)
    assert release(noted) == "0002"
    result = psql(noted, "downgrade", "0002:0001")
    assert result.returncode == 0, result.stderr
    assert (index(noted), release(noted)) == (None, "0001")


def kill_while_it_waits(deployment: Deployment, *command: str, doing: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and terminate its backend while that waits for another session's transaction."""
    with (
        psycopg.connect(deployment.environ["FEDERATION_LOCAL_URL"]) as blocker,
        deployment.superuser("local") as looker,
        ThreadPoolExecutor(1) as pool,
    ):
        blocker.execute("LOCK TABLE note IN ROW EXCLUSIVE MODE")
        running = pool.submit(deployment.federation, *command)
        killed = None
        while killed is None and not running.done():
            killed = looker.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE %s",
                [f"%{doing}%"],
            ).fetchone()
        assert killed == (True,), running.result().stderr
        return running.result()


def leave_invalid(deployment: Deployment) -> None:
    """What a killed build leaves, by the hand of somebody else."""
    with deployment.owner("local") as owner, pytest.raises(psycopg.errors.UniqueViolation):
        owner.execute("INSERT INTO note SELECT gen_random_uuid(), site FROM note")
        owner.execute("CREATE UNIQUE INDEX CONCURRENTLY note_site_idx ON note (site)")
    assert index(deployment) is not None
    assert not is_valid(deployment)


def test_a_build_whose_backend_is_killed_leaves_an_invalid_index_which_the_next_run_builds_again(
    noted: Deployment,
) -> None:
    result = kill_while_it_waits(noted, "upgrade", doing="CREATE INDEX CONCURRENTLY")
    assert result.returncode == 6, result.stderr
    invalid = index(noted)
    assert invalid is not None
    assert (invalid[1], release(noted)) == (False, "0001")
    with noted.owner("local") as owner:  # what a plain statement would do when it is run again
        owner.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS note_site_idx ON note (site)")
    assert index(noted) == invalid
    upgrade(noted.config)
    assert is_valid(noted)
    assert release(noted) == "0003"


def set_aside(deployment: Deployment) -> int:
    """How many indexes are left under the name that a dropped one has until it is gone."""
    with deployment.owner("local") as owner:
        return len(owner.execute("SELECT FROM pg_class WHERE relname LIKE 'federation_dropped_%'").fetchall())


def test_a_drop_whose_backend_is_killed_is_done_and_the_next_run_drops_what_is_left(noted: Deployment) -> None:
    upgrade(noted.config)
    result = kill_while_it_waits(noted, "downgrade", "0001", "--yes", doing="DROP INDEX CONCURRENTLY")
    assert result.returncode == 0, result.stderr
    assert "a dropped index is there under another name until the next run drops it" in result.stderr
    assert (index(noted), release(noted), set_aside(noted)) == (None, "0001", 1)
    upgrade(noted.config, "0001")
    assert set_aside(noted) == 0


def test_one_that_cannot_be_dropped_yet_keeps_none_of_the_others(noted: Deployment) -> None:
    (noted.root / "federation.toml").write_text(f'{three.TOML}\n[database]\nlock_timeout = "200ms"\n')
    with noted.owner("local") as owner, psycopg.connect(noted.environ["FEDERATION_LOCAL_URL"]) as blocker:
        for number in (1, 2, 3):
            owner.execute(f"CREATE TABLE busy_{number} (id int)")
            owner.execute(f"CREATE INDEX federation_dropped_{number} ON busy_{number} (id)")
        blocker.execute("SELECT FROM busy_1")
        upgrade(noted.config)
        assert set_aside(noted) == 1


@pytest.mark.parametrize("what", [CREATE, DROP], ids=["create", "drop"])
def test_the_cloud_s_chain_has_none_of_them(noted: Deployment, what: str) -> None:
    """What it set aside nobody would drop."""
    three.write(noted.root, cloud={**three.CLOUD, "0002": (what.replace('"note"', '"ward"'), "pass")})
    with noted.owner("cloud") as owner:
        owner.execute("CREATE TABLE ward (site uuid)")
        with pytest.raises(Refused, match="which only the local chain can do; both databases are at 0001"):
            upgrade(noted.config)


def test_what_is_left_of_a_dropped_index_is_not_in_the_way_of_it(noted: Deployment) -> None:
    (noted.root / "federation.toml").write_text(f'{three.TOML}\n[database]\nlock_timeout = "200ms"\n')
    assert noted.alembic("local", "upgrade", "0002").returncode == 0
    with psycopg.connect(noted.environ["FEDERATION_LOCAL_URL"]) as blocker:
        blocker.execute("SELECT FROM note")
        with noted.owner("local") as owner:
            owner.execute("ALTER INDEX note_site_idx RENAME TO federation_dropped_1")
            owner.execute("CREATE INDEX note_site_idx ON note (site)")
        assert noted.alembic("local", "downgrade", "0001").returncode == 0
        assert (index(noted), set_aside(noted)) == (None, 2)
    assert noted.alembic("local", "upgrade", "0002").returncode == 0
    assert is_valid(noted)
    assert set_aside(noted) == 0


@pytest.mark.parametrize("run", ["runner", "alembic"])
def test_an_index_that_a_failed_step_drops_is_as_it_was(noted: Deployment, run: str) -> None:
    """op.execute('DROP INDEX') would be undone too, but locks out writers until then."""
    write(noted.root, down=f"{DROP}\n    op.execute('SELECT 1/0')")
    upgrade(noted.config, "0002")
    before = index(noted)
    assert before is not None
    if run == "runner":
        with pytest.raises(FederationError, match="division by zero"):
            downgrade(noted.config, "0001")
    else:
        assert noted.alembic("cloud", "downgrade", "0001").returncode == 0
        failed = noted.alembic("local", "downgrade", "0001")
        assert (failed.returncode, "division by zero" in failed.stderr) == (1, True)
    assert (index(noted), release(noted)) == (before, "0002")


def test_an_invalid_index_of_another_definition_makes_way_too(noted: Deployment) -> None:
    leave_invalid(noted)
    upgrade(noted.config)
    found = index(noted)
    assert found is not None
    assert found[1:] == (True, "CREATE INDEX note_site_idx ON public.note USING btree (site)")


def test_a_step_that_fails_after_the_index_keeps_it_and_the_next_run_does_not_build_it_again(
    noted: Deployment,
) -> None:
    write(noted.root, up=f"{CREATE}\n    op.execute('SELECT 1/0')")
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(noted.config)
    built = index(noted)
    assert (is_valid(noted), release(noted)) == (True, "0001")
    write(noted.root)
    upgrade(noted.config)
    assert index(noted) == built
    assert release(noted) == "0003"


PARTIAL = """op.create_index_concurrently("note_site_idx", "note", ["site", "id"], unique=True, using="btree",
        where="id <> site and site in (id, '00000000-0000-0000-0000-000000000001')")"""


def test_an_index_is_recognised_however_the_server_spells_its_expression(noted: Deployment) -> None:
    write(noted.root, up=PARTIAL)
    assert noted.alembic("local", "upgrade", "0002").returncode == 0
    built = index(noted)
    assert built is not None
    assert "id <> site and" not in built[2]
    with noted.owner("local") as owner:
        owner.execute("UPDATE federation.alembic_version SET version_num = '0001'")
    upgrade(noted.config)
    assert index(noted) == built


@pytest.mark.parametrize(
    "there",
    [
        "CREATE INDEX note_site_idx ON note (id)",
        "CREATE UNIQUE INDEX note_site_idx ON note (site)",
        "CREATE INDEX note_site_idx ON note (site DESC)",
        "CREATE INDEX note_site_idx ON note (site) WHERE site IS NOT NULL",
        "CREATE INDEX note_site_idx ON note USING hash (site)",
        "CREATE INDEX note_site_idx ON note (site) WITH (fillfactor = 50)",
        "CREATE TABLE other (site uuid); CREATE INDEX note_site_idx ON other (site)",
        "CREATE TABLE note_site_idx (site uuid)",
    ],
)
def test_something_else_of_its_name_is_refused_and_left_alone(noted: Deployment, there: str) -> None:
    with noted.owner("local") as owner:
        owner.execute(there)
        before = noted.dump("local")
        with pytest.raises(Refused, match="note_site_idx is there and is not the index of"):
            upgrade(noted.config)
        assert (noted.dump("local"), release(noted)) == (before, "0001")
        kind = "TABLE" if there.startswith("CREATE TABLE note_site_idx") else "INDEX"
        owner.execute(f"DROP {kind} note_site_idx")
    upgrade(noted.config)
    assert is_valid(noted)


def test_a_build_after_a_write_of_its_step_is_refused_before_anything_is_committed(noted: Deployment) -> None:
    adding = 'op.add_column("note", sa.Column("text", sa.Text))'
    before = noted.dump("local")
    write(noted.root, up=f"{adding}\n    {CREATE}")
    with pytest.raises(Refused, match="after its step has written something"):
        upgrade(noted.config)
    assert noted.alembic("local", "upgrade", "head").returncode == 8
    result = psql(noted, "upgrade", "0001:0002")
    assert result.returncode == 3
    assert "after its step has written something" in result.stderr
    assert (noted.dump("local"), release(noted)) == (before, "0001")
    write(noted.root, up=f"op.execute('SELECT 1')\n    {CREATE}\n    {adding}")
    upgrade(noted.config)
    assert release(noted) == "0003"


def test_a_drop_may_come_after_a_write_and_before_a_build_of_the_same_name(noted: Deployment) -> None:
    adding = 'op.add_column("note", sa.Column("text", sa.Text))'
    anew = 'op.create_index("note_site_idx", "note", ["site", "text"])'
    upgrade(noted.config, "0002")
    write(noted.root)
    release_3 = noted.root / "versions/local/0003.py"
    release_3.write_text(release_3.read_text().replace("    pass", f"    {adding}\n    {DROP}\n    {anew}", 1))
    upgrade(noted.config)
    found = index(noted)
    assert found is not None
    assert found[1:] == (True, "CREATE INDEX note_site_idx ON public.note USING btree (site, text)")
    assert set_aside(noted) == 0


@pytest.mark.parametrize(
    ("there", "drop"),
    [
        (
            "ALTER TABLE note ADD CONSTRAINT note_site_idx UNIQUE (site)",
            "ALTER TABLE note DROP CONSTRAINT note_site_idx",
        ),
        ("CREATE TABLE other (site uuid); CREATE INDEX note_site_idx ON other (site)", "DROP TABLE other"),
        ("CREATE VIEW note_site_idx AS SELECT 1", "DROP VIEW note_site_idx"),
        (
            "CREATE TABLE other (site uuid) PARTITION BY LIST (site); CREATE INDEX note_site_idx ON other (site)",
            "DROP TABLE other",
        ),
    ],
    ids=["constraint", "another table's", "no index", "partitioned"],
)
def test_what_cannot_be_dropped_concurrently_is_refused(noted: Deployment, there: str, drop: str) -> None:
    table = "other" if "PARTITION" in there else "note"
    write(noted.root, up=f'op.drop_index_concurrently("note_site_idx", "{table}", ["site"])', down="pass")
    with noted.owner("local") as owner:
        owner.execute(there)
        with pytest.raises(Refused, match=r"note_site_idx is no index of .* that can be dropped concurrently"):
            upgrade(noted.config)
        assert release(noted) == "0001"
        owner.execute(drop)
    upgrade(noted.config)
    assert release(noted) == "0003"


def test_several_in_a_row_are_one_step(noted: Deployment) -> None:
    other = 'op.create_index_concurrently("note_other_idx", "note", ["site", "id"])'
    write(
        noted.root,
        up=f"{CREATE}\n    {other}",
        down=f"op.drop_index_concurrently('note_other_idx', 'note', [])\n    {DROP}",
    )
    upgrade(noted.config)
    assert is_valid(noted)
    downgrade(noted.config, "0001")
    with noted.owner("local") as owner:
        assert owner.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'note'::regclass").fetchone() == (1,)


def test_another_owners_index_of_such_a_name_is_left_alone(noted: Deployment) -> None:
    """What the toolkit has set aside is the owner's; a superuser's is not its to drop, nor a reason to fail."""
    with noted.superuser("local") as superuser:
        superuser.execute("CREATE TABLE theirs (id int); CREATE INDEX federation_dropped_7 ON theirs (id)")
        for run in (lambda: upgrade(noted.config), lambda: downgrade(noted.config, "0001")):
            run()
            assert superuser.execute("SELECT to_regclass('federation_dropped_7') IS NOT NULL").fetchone() == (True,)


def test_odd_names_and_values_are_quoted(noted: Deployment) -> None:
    name, table, schema, column = 'i"ndex % :x {y}', 'we"ird Täble', "o'dd", 'Größe "%" :x {y}'
    arguments = f"{name!r}, {table!r}, [{column!r}], schema={schema!r}"
    where = "'it''s % :x {y}' <> site::text"
    up = f'op.create_index_concurrently({arguments}, where="{where}", using="hash")'
    write(noted.root, up, f"op.drop_index_concurrently({arguments})")
    there = (
        "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid IN (SELECT oid FROM pg_class WHERE relname = %s)"
    )
    with noted.owner("local") as owner:
        creating = sql.SQL("CREATE SCHEMA {}; CREATE TABLE {} ({} text, site uuid)")
        owner.execute(creating.format(*(sql.Identifier(*names) for names in ((schema,), (schema, table), (column,)))))
        for _ in range(2):  # the second time it is there and recognised
            assert noted.alembic("local", "upgrade", "0002").returncode == 0
            assert owner.execute(there, [name]).fetchone() == (1,)
            owner.execute("UPDATE federation.alembic_version SET version_num = '0001'")
        result = psql(noted, "upgrade", "0001:0002")
        assert result.returncode == 0, result.stderr
        downgrade(noted.config, "base")
        assert owner.execute(there, [name]).fetchone() == (0,)


@pytest.mark.parametrize("first", [True, False], ids=["first", "after a write"])
def test_a_half_with_an_index_is_undone_when_the_other_half_fails(noted: Deployment, first: bool) -> None:
    before = noted.dump("local")
    adding, dropping = 'op.add_column("note", sa.Column("text", sa.Text))', 'op.drop_column("note", "text")'
    down = (DROP, dropping) if first else (dropping, DROP)
    three.write(
        noted.root,
        local={**three.LOCAL, "0002": (f"{CREATE}\n    {adding}", "\n    ".join(down))},
        cloud={**three.CLOUD, "0002": ("op.execute('SELECT 1/0')", "pass")},
    )
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(noted.config)
    assert (noted.dump("local"), release(noted)) == (before, "0001")
