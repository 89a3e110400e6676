"""``federation plan``: its SQL, locks and hash are those of what runs; it writes nothing and locks nothing."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import chains_of_three as three
import psycopg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from federation.databases import connect, run_lock
from federation.errors import FederationError
from federation.lockstep import Step, downgrade, upgrade
from federation.lockstep.planned import PlannedStep, plan_hash, preview
from federation.preview import lock_rules
from federation.preview.locks import BOOKS, Lock, StepLocks, strongest
from federation.preview.relations import Relations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deployments import Deployment, Deployments

HELD = """
    SELECT relation::bigint, upper(regexp_replace(regexp_replace(mode, 'Lock$', ''), '([a-z])([A-Z])', '\\1 \\2', 'g'))
    FROM pg_locks WHERE locktype = 'relation' AND granted AND pid = %s
"""
COMMITTED = """
    SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND NOT (c.relkind = 'S' AND EXISTS
            (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')))
"""


def held(backend: int, looker: psycopg.Connection[Any]) -> list[Lock]:
    """The locks of a backend on relations that others see, but for the toolkit's books."""
    relations = {oid: (schema, name) for oid, schema, name in looker.execute(COMMITTED)}
    locks = [(relations[oid], mode) for oid, mode in looker.execute(HELD, [backend]) if oid in relations]
    return strongest(Lock(relation, mode) for relation, mode in locks if relation not in BOOKS)


@contextmanager
def locks_at_commit(deployment: Deployment) -> Iterator[list[Lock]]:
    """Collects what each transaction of the runner holds when it commits."""
    found: list[Lock] = []
    with deployment.superuser("local") as local, deployment.superuser("cloud") as cloud:
        lookers = {looker.info.port: looker for looker in (local, cloud)}

        def look(connection: sa.Connection) -> None:
            driver: Any = connection.connection.driver_connection
            found.extend(held(driver.info.backend_pid, lookers[driver.info.port]))

        sa.event.listen(sa.Engine, "commit", look)
        try:
            yield found
        finally:
            sa.event.remove(sa.Engine, "commit", look)


def taken(deployment: Deployment, run: Callable[..., object], *arguments: str) -> dict[Step, list[Lock]]:
    """The locks that each step of a run takes."""
    steps = {}
    with locks_at_commit(deployment) as found:

        def note(step: Step, _seconds: float) -> None:
            steps[step] = strongest(found)
            found.clear()

        run(deployment.config, *arguments, progress=note)
    return steps


def compare(planned: list[PlannedStep], steps: dict[Step, list[Lock]]) -> None:
    """The same locks; where the plan says that there may be more, at least those."""
    assert [item.step for item in planned] == list(steps)
    for item in planned:
        if item.unknown:
            assert set(item.locks) <= set(steps[item.step]), item.step
        else:
            assert list(item.locks) == steps[item.step], item.step


def test_each_step_of_the_apps_chains_takes_the_locks_that_its_plan_names(deployment: Deployment) -> None:
    for run, target in ((upgrade, "head"), (downgrade, "base")):
        planned = preview(deployment.config, target)
        compare(planned, taken(deployment, run, target))
    unknown = [statement for item in planned for statement in item.unknown]
    assert len(unknown) <= 1, unknown  # the cloud's binding tells the hospital that it goes


SETUP = """
CREATE SCHEMA other;
CREATE TABLE parent (id int PRIMARY KEY, code int UNIQUE, note text);
CREATE TABLE child (id int PRIMARY KEY, parent_id int CONSTRAINT child_fk REFERENCES parent, note text);
CREATE TABLE other.grandchild (id int PRIMARY KEY, child_id int REFERENCES child (id), note text NOT NULL DEFAULT 'x');
CREATE TABLE unvalidated (id int);
ALTER TABLE unvalidated ADD CONSTRAINT unvalidated_fk FOREIGN KEY (id) REFERENCES parent (id) NOT VALID;
CREATE INDEX child_note_idx ON child (note);
CREATE VIEW seen WITH (security_invoker = true) AS SELECT id, note FROM child;
CREATE POLICY own ON child USING (note IS NOT NULL);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER touching BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TYPE mood AS ENUM ('calm');
CREATE SEQUENCE numbers;
"""

KNOWN = """
ALTER TABLE child ADD COLUMN more text
ALTER TABLE child ADD COLUMN IF NOT EXISTS more int NOT NULL DEFAULT 1, ADD CHECK (more > 0)
ALTER TABLE child ADD COLUMN code int REFERENCES parent (code)
ALTER TABLE child ADD CONSTRAINT again FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE
ALTER TABLE child ADD FOREIGN KEY (parent_id) REFERENCES parent
ALTER TABLE child ADD CONSTRAINT later FOREIGN KEY (parent_id) REFERENCES parent NOT VALID
ALTER TABLE child ADD CONSTRAINT positive CHECK (id > 0) NOT VALID
ALTER TABLE child ADD CONSTRAINT one UNIQUE (note)
ALTER TABLE unvalidated VALIDATE CONSTRAINT unvalidated_fk
ALTER TABLE child DROP CONSTRAINT child_fk
ALTER TABLE child DROP COLUMN parent_id
ALTER TABLE other.grandchild ALTER COLUMN note TYPE varchar(20), ALTER note DROP NOT NULL
ALTER TABLE other.grandchild ALTER COLUMN child_id TYPE bigint
ALTER TABLE unvalidated ALTER COLUMN id SET DATA TYPE bigint
ALTER TABLE child ALTER COLUMN note SET DEFAULT ';', ALTER COLUMN id DROP DEFAULT
ALTER TABLE child ALTER COLUMN note SET STATISTICS 0
ALTER TABLE child ALTER COLUMN note SET (n_distinct = 5)
ALTER TABLE child ALTER COLUMN note SET STORAGE EXTERNAL
ALTER TABLE child ALTER COLUMN note SET STATISTICS 0, ALTER COLUMN note SET NOT NULL
ALTER TABLE child SET (fillfactor = 70, autovacuum_enabled = false)
ALTER TABLE child RESET (fillfactor)
ALTER TABLE child RENAME TO "Renamed child"
ALTER TABLE child RENAME COLUMN note TO remark
ALTER TABLE child RENAME CONSTRAINT child_fk TO other_fk
ALTER TABLE child SET SCHEMA other
ALTER TABLE ONLY child OWNER TO CURRENT_USER
ALTER TABLE child ENABLE ROW LEVEL SECURITY
ALTER TABLE child FORCE ROW LEVEL SECURITY
ALTER TABLE child DISABLE TRIGGER touching
ALTER TABLE child ENABLE ALWAYS TRIGGER touching
ALTER TABLE child CLUSTER ON child_pkey
ALTER TABLE IF EXISTS nothing ADD COLUMN more text
ALTER TABLE child REPLICA IDENTITY FULL
ALTER VIEW seen ALTER COLUMN id SET DEFAULT 1
ALTER VIEW seen SET (security_barrier = true)
ALTER POLICY own ON child USING (id IN (SELECT p.id FROM parent AS p))
ALTER TRIGGER touching ON child RENAME TO touched
ALTER TYPE mood ADD VALUE 'sad'
ALTER FUNCTION touch() COST 5
CREATE TABLE fresh (id int GENERATED ALWAYS AS IDENTITY, half int GENERATED ALWAYS AS (CAST(1 AS int)) STORED)
CREATE TABLE fresh (id int REFERENCES parent, CONSTRAINT x FOREIGN KEY (id) REFERENCES other.grandchild (id))
CREATE TABLE fresh (LIKE child INCLUDING ALL, more text)
CREATE TABLE IF NOT EXISTS child (id int REFERENCES parent)
CREATE TEMPORARY TABLE fresh (id int) ON COMMIT DROP
CREATE INDEX ON child (id, note)
CREATE UNIQUE INDEX IF NOT EXISTS other_idx ON ONLY other.grandchild USING btree (lower(note)) WHERE id > 0
CREATE VIEW "New" AS SELECT c.id, p.note FROM child c JOIN parent p ON p.id = c.parent_id, other.grandchild
CREATE VIEW "New" AS SELECT 1 FROM child WHERE note IS DISTINCT FROM 'parent' AND extract(epoch FROM now()) > 0
CREATE VIEW "New" AS SELECT id FROM seen UNION ALL SELECT x FROM generate_series(1, 2) AS x
CREATE OR REPLACE VIEW seen AS SELECT id, note, parent_id FROM public.child WHERE EXISTS (SELECT FROM parent)
CREATE OR REPLACE VIEW "New" AS SELECT 1 AS one
CREATE POLICY another ON child AS RESTRICTIVE FOR INSERT TO public WITH CHECK ((SELECT count(*) FROM parent) > 0)
CREATE TRIGGER again AFTER INSERT OR UPDATE OF note ON child FOR EACH ROW EXECUTE FUNCTION touch()
CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM child; RETURN 1; END $$
CREATE TYPE feeling AS (id int, note text)
CREATE DOMAIN positive AS int CHECK (VALUE > 0)
CREATE SCHEMA IF NOT EXISTS third
CREATE SEQUENCE more_numbers
DROP TABLE other.grandchild
DROP TABLE other.grandchild, unvalidated
DROP TABLE IF EXISTS nothing
DROP VIEW seen
DROP INDEX child_note_idx
DROP INDEX IF EXISTS public.child_note_idx, nothing
DROP POLICY own ON child
DROP POLICY IF EXISTS own ON public.child
DROP TRIGGER touching ON child
DROP TYPE mood
DROP SEQUENCE numbers
COMMENT ON TABLE child IS 'on parent'
COMMENT ON COLUMN other.grandchild.note IS 'x'
COMMENT ON COLUMN seen.note IS NULL
COMMENT ON VIEW seen IS 'x'
COMMENT ON INDEX child_note_idx IS 'x'
COMMENT ON CONSTRAINT child_fk ON child IS 'x'
COMMENT ON POLICY own ON child IS 'x'
COMMENT ON TRIGGER touching ON public.child IS 'x'
COMMENT ON FUNCTION touch() IS 'x'
GRANT SELECT (id), INSERT ON child, seen TO PUBLIC
REVOKE ALL ON child FROM PUBLIC
GRANT ALL ON ALL TABLES IN SCHEMA public, other TO PUBLIC
GRANT USAGE ON SCHEMA other TO PUBLIC
GRANT USAGE ON SEQUENCE numbers TO PUBLIC
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC
LOCK TABLE child
LOCK TABLE child, ONLY parent IN SHARE UPDATE EXCLUSIVE MODE
LOCK child IN ROW SHARE MODE NOWAIT
TRUNCATE other.grandchild
ANALYZE child, parent (id)
SET LOCAL search_path = other
SELECT 1
""".strip().splitlines()

UNKNOWN = """
DO $$ BEGIN DROP TABLE other.grandchild; END $$
SELECT count(*) FROM seen
SELECT setval('numbers', 1)
INSERT INTO child VALUES (1, NULL)
UPDATE child SET note = 'x'
DELETE FROM parent
WITH gone AS (DELETE FROM child RETURNING id) SELECT id FROM gone
TRUNCATE parent CASCADE
DROP TABLE child CASCADE
DROP SCHEMA other CASCADE
DROP TYPE mood CASCADE
ALTER TABLE parent ALTER COLUMN id TYPE bigint
CREATE TABLE fresh AS SELECT * FROM child
CREATE MATERIALIZED VIEW fresh AS SELECT * FROM child
CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM child'
CREATE VIEW "New" AS WITH c AS (SELECT 1 FROM child) SELECT 1 AS one FROM c
CREATE RULE r AS ON INSERT TO parent DO ALSO DELETE FROM child
CREATE STATISTICS st ON id, note FROM child
REINDEX TABLE child
""".strip().splitlines()


@pytest.fixture(scope="module")
def looked_at(deployments: Deployments) -> Iterator[Deployment]:
    with deployments.at_base() as deployment:
        with deployment.owner("local") as owner:
            owner.execute(SETUP)
        yield deployment


def read_and_run(deployment: Deployment, statement: str) -> tuple[StepLocks, list[Lock]]:
    """What is read from the statement, and what it takes, in a transaction that is rolled back."""
    with (
        connect(deployment.config, "local") as connection,
        deployment.superuser("local") as looker,
        connection.begin() as transaction,
    ):
        driver: Any = connection.connection.driver_connection
        with connect(deployment.config, "local") as reading:
            step = StepLocks(Relations.read(reading))
        lock_rules.read(step, statement)
        driver.execute(statement)
        found = held(driver.info.backend_pid, looker)
        transaction.rollback()
    return step, found


@pytest.mark.parametrize("statement", KNOWN)
def test_a_statement_takes_the_locks_that_are_read_from_it(looked_at: Deployment, statement: str) -> None:
    step, found = read_and_run(looked_at, statement)
    assert step.unknown == []
    assert strongest(step.locks) == found


@pytest.mark.parametrize("statement", UNKNOWN)
def test_a_statement_whose_locks_cannot_be_read_from_it_is_said_to_be_unknown(
    looked_at: Deployment, statement: str
) -> None:
    step, found = read_and_run(looked_at, statement)
    assert step.unknown == [statement if len(statement) <= 80 else f"{statement[:79]}…"]
    assert set(strongest(step.locks)) <= set(found)


@pytest.fixture
def tiny(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at base."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        yield deployment


def rewrite(deployment: Deployment, side: str, release: str, up: str, down: str = "pass") -> Path:
    chains = {"local": dict(three.LOCAL), "cloud": dict(three.CLOUD)}
    chains[side][release] = (up, down)
    three.write(deployment.root, **chains)
    return deployment.root / "versions" / side / f"{release}.py"


def planned(deployment: Deployment, *arguments: str, **environ: str) -> dict[str, Any]:
    result = deployment.federation("plan", *arguments, "--json", **environ)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_json_says_all_of_a_step(tiny: Deployment) -> None:
    upgrade(tiny.config, "0001")
    plan = planned(tiny, "0002", "--sql")
    assert plan["schema_version"] == 1
    assert plan["sha256"] == plan_hash(preview(tiny.config, "0002"))
    local, cloud = plan["steps"]
    assert local | {"file_sha256": ""} == {
        "release": "0002",
        "side": "local",
        "direction": "upgrade",
        "message": "release 0002",
        "phase": "expand",
        "reversible": True,
        "file_sha256": "",
        "locks": [{"mode": "ACCESS EXCLUSIVE", "relation": "public.note"}],
        "rewrites": [],
        "locks_unknown": [],
        "changes": [{"mark": "+", "kind": "column", "name": "note.text"}],
        "drops": [],
        "breaks_older_clouds": None,
        "sql": "ALTER TABLE note ADD COLUMN text TEXT;",
    }
    assert {lock["relation"] for lock in cloud["locks"]} >= {"federation_link.note", "public.note"}
    assert "sql" not in planned(tiny, "0002")["steps"][0]
    assert planned(tiny, "0001")["steps"] == []


def test_the_sql_is_what_runs_without_the_toolkits_books_and_without_secrets(tiny: Deployment) -> None:
    result = tiny.federation("plan", "--sql")
    assert result.returncode == 0
    for name, value in tiny.environ.items():
        assert not name.endswith("PASSWORD") or value not in result.stdout
    assert "alembic_version" not in result.stdout
    assert "-- ↑ 0001 local (expand): release 0001" in result.stdout
    assert "ALTER TABLE note ADD COLUMN text TEXT;" in result.stdout
    assert "COMMENT ON VIEW note IS 'x';" in result.stdout


def test_one_side_at_base_is_planned_for(tiny: Deployment) -> None:
    assert tiny.alembic("local", "upgrade", "0002").returncode == 0
    for target, directions in (("head", {"upgrade"}), ("base", {"downgrade"})):
        steps = planned(tiny, target)["steps"]
        assert {step["direction"] for step in steps} == directions
    compare(preview(tiny.config, "head"), taken(tiny, upgrade, "head"))


def test_a_plan_writes_nothing_and_waits_for_no_lock(tiny: Deployment) -> None:
    upgrade(tiny.config, "0001")
    for side, name in (("local", tiny.local_dbname), ("cloud", tiny.cloud_dbname)):
        with tiny.superuser(side) as superuser:
            superuser.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(FederationError, match="read-only"):
        upgrade(tiny.config)
    with tiny.superuser("local") as blocker, blocker.transaction(), run_lock(tiny.config):
        blocker.execute("SET LOCAL transaction_read_only = off; LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
        assert len(preview(tiny.config, "base")) == 2
        assert len(preview(tiny.config, "head")) == 4


def test_a_step_without_a_downgrade_is_irreversible(tiny: Deployment) -> None:
    file = tiny.root / "versions/local/0002.py"
    file.write_text(file.read_text().split("def downgrade")[0])
    assert [item.reversible for item in preview(tiny.config, "head")] == [True, True, False, True, True, True]
    shown = tiny.federation("plan").stdout
    assert shown.count("expand, irreversible") == 1
    assert f"\nsha256 {plan_hash(preview(tiny.config, 'head'))}\n" in shown
    upgrade(tiny.config)
    (item,) = [item for item in preview(tiny.config, "0001") if not item.reversible]
    assert (item.step.side, item.statements, item.reason) == ("local", None, "its file has no downgrade()")


def test_a_contract_release_is_planned_in_its_own_order(tiny: Deployment) -> None:
    for side in ("local", "cloud"):
        file = tiny.root / f"versions/{side}/0003.py"
        file.write_text(file.read_text() + '\n\nphase = "contract"\n')
    assert [(item.step.side, item.phase) for item in preview(tiny.config, "head")][-2:] == [
        ("cloud", "contract"),
        ("local", "contract"),
    ]


def test_a_step_that_asks_the_database_has_no_sql_and_unknown_locks(tiny: Deployment) -> None:
    rewrite(tiny, "local", "0002", "op.execute(str(op.get_bind().scalar(sa.text('SELECT 1'))))")
    step = next(step for step in planned(tiny, "--sql")["steps"] if step["release"] == "0002")
    assert step["sql"] is None
    assert "its SQL depends on the database" in step["locks_unknown"][0]


def test_a_setting_that_the_sql_needs_is_named(tiny: Deployment) -> None:
    result = tiny.federation("plan", FEDERATION_SITE_ID="")
    assert result.returncode == 9
    assert "FEDERATION_SITE_ID" in result.stderr
    upgrade(tiny.config)
    assert planned(tiny, FEDERATION_SITE_ID="")["steps"] == []


def test_the_hash_is_the_same_elsewhere_and_another_when_something_else_would_run(
    tiny: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def digest(target: str = "head", **changes: object) -> str:
        return plan_hash(preview(tiny.config.model_copy(update=changes), target))

    first = digest()
    assert first == digest(link=tiny.config.link.model_copy(update={"password": SecretStr("another")}))
    here, tiny.root = tiny.root, three.write(tmp_path_factory.mktemp("elsewhere"))
    assert planned(tiny, PYTHONHASHSEED="1", TZ="Asia/Kolkata", LC_ALL="C")["sha256"] == first
    tiny.root = here
    changed = [digest("0002"), digest(site_id=UUID(int=15))]
    file = rewrite(tiny, "cloud", "0003", "op.execute(\"COMMENT ON VIEW note IS 'y'\")")
    changed.append(digest())
    file.write_text(f"{file.read_text()}# looked at\n")
    changed.append(digest())
    three.write(tiny.root)
    assert digest() == first
    upgrade(tiny.config, "0001")
    changed += [digest(), digest("base")]
    assert len({first, *changed}) == len(changed) + 1


def test_building_an_index_concurrently_takes_the_lock_that_the_plan_names(tiny: Deployment) -> None:
    upgrade(tiny.config, "0001")
    arguments = '"note_site_idx", "note", ["site"]'
    rewrite(
        tiny, "local", "0002", f"op.create_index_concurrently({arguments})", f"op.drop_index_concurrently({arguments})"
    )
    rewrite_cloud = tiny.root / "versions/cloud/0002.py"
    rewrite_cloud.write_text(
        re.sub(r"(def \w+\(\):\n).*?(\n\n\n|\Z)", r"\1    pass\2", rewrite_cloud.read_text(), flags=re.DOTALL)
    )
    for command, target, statement in (
        (["upgrade", "0002"], "0002", "CREATE INDEX CONCURRENTLY"),
        (["downgrade", "0001", "--yes"], "0001", "DROP INDEX CONCURRENTLY"),
    ):
        (item,) = [item for item in preview(tiny.config, target) if item.step.side == "local"]
        assert item.unknown == ()
        with (
            psycopg.connect(tiny.environ["FEDERATION_LOCAL_URL"]) as blocker,
            tiny.superuser("local") as looker,
            ThreadPoolExecutor(1) as pool,
        ):
            blocker.execute("LOCK TABLE note IN ROW EXCLUSIVE MODE")
            running = pool.submit(tiny.federation, *command)
            waiting = None
            while waiting is None and not running.done():
                waiting = looker.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
                    "AND query LIKE %s",
                    [f"%{statement}%"],
                ).fetchone()
            assert waiting is not None, running.result().stderr
            assert held(waiting[0], looker) == list(item.locks)
            blocker.rollback()
            assert running.result().returncode == 0, running.result().stderr
