"""Tables whose keys the hospital makes: an identity column, as Supabase's table editor has it, always or by default,
and a serial one. From the declaration to the app's own requests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from federation.administration.analyze import analyze
from federation.check import check
from federation.errors import Refused
from federation.lockstep import downgrade, upgrade
from federation.scaffold import revision
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

DECLARED = """
visits = sa.Table(
    "visits",
    metadata,
    sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("note", sa.Text()),
    sa.Column("code", sa.Text(), sa.Computed("'V-' || (id)::text", persisted=True)),
)
samples = sa.Table(
    "samples",
    metadata,
    sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("note", sa.Text()),
)
bills = sa.Table(
    "bills",
    metadata,
    sa.Column("id", sa.Integer(), primary_key=True),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("note", sa.Text()),
    sa.Column("visit_id", sa.BigInteger(), sa.ForeignKey("visits.id", name="bills_visit_id_fkey")),
)
"""
TABLES = ("visits", "samples", "bills")


def declare(deployment: Deployment, text: str) -> None:
    """Before anything imports the declarations."""
    models, toml = deployment.root / "versions" / "models.py", deployment.root / "federation.toml"
    models.write_text(models.read_text() + text)
    toml.write_text(toml.read_text().replace("exported = [", f"exported = [{', '.join(map(repr, TABLES))}, "))


@pytest.fixture
def numbered(declaring: Deployment) -> Deployment:
    """With the three tables declared, and the release that autogenerate writes for them, not run yet."""
    declare(declaring, DECLARED)
    (written,) = revision(declaring.config, "numbers", autogenerate=True)
    assert written.phase == "expand"
    return declaring


@pytest.fixture
def running(numbered: Deployment) -> Deployment:
    """At that release."""
    upgrade(numbered.config)
    return numbered


def found(deployment: Deployment) -> list[tuple[str, str, str, str]]:
    return [(item.side, item.mark, item.what, item.name) for item in check(deployment.config)]


def sent(cursor: psycopg.Cursor[Any], query: str) -> list[str]:
    """What goes to the hospital for ``query``, but for the binding."""
    plan = cursor.execute("EXPLAIN (VERBOSE, COSTS OFF) " + query).fetchall()  # type: ignore[arg-type]
    lines = [line.split("Remote SQL: ")[1] for (line,) in plan if "Remote SQL: " in line]
    return [line for line in lines if "federation.bind" not in line]


def test_a_release_by_autogenerate_makes_them_on_both_sides_up_down_and_up(numbered: Deployment) -> None:
    local, cloud = ((numbered.root / "versions" / side / "0005_numbers.py").read_text() for side in ("local", "cloud"))
    assert "op.grant(('USAGE',), 'bills_id_seq', to=(LINK,), kind='SEQUENCE', schema='public')" in local
    assert local.count("'SEQUENCE'") == 6  # and the revocations of the way back
    assert "sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False)" in cloud
    assert "sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False)" in cloud
    assert "sa.Column('id', sa.Integer(), autoincrement=True, nullable=False)" in cloud
    before = [numbered.dump(side) for side in ("local", "cloud")]
    upgrade(numbered.config)
    assert check(numbered.config) == []
    downgrade(numbered.config, "0004")
    assert [numbered.dump(side) for side in ("local", "cloud")] == before
    upgrade(numbered.config)
    assert check(numbered.config) == []
    assert revision(numbered.config, "nothing", autogenerate=True) == []


def test_an_app_inserts_without_ids_and_works_with_those_that_come_back(running: Deployment) -> None:
    for table in TABLES:
        with running.as_user() as caller:
            one = f"INSERT INTO {table} (hospital_id, note) VALUES (%s, 'one') RETURNING id"
            assert caller.execute(one, [SITE_ID]).fetchone() == (1,)  # type: ignore[arg-type]
            body = "SELECT hospital_id, note FROM json_populate_recordset(null::" + table + ", %s)"
            many = f"INSERT INTO {table} (hospital_id, note) {body} RETURNING id, note"
            rows = [{"hospital_id": str(SITE_ID), "note": note} for note in ("two", "three")]
            assert caller.execute(many, [json.dumps(rows)]).fetchall() == [(2, "two"), (3, "three")]  # type: ignore[arg-type]
        with running.as_user() as caller:
            by_id = f"SELECT note FROM {table} WHERE id = 2"
            assert caller.execute(by_id).fetchall() == [("two",)]  # type: ignore[arg-type]
            last = f"SELECT id FROM {table} ORDER BY id DESC LIMIT 2"
            assert caller.execute(last).fetchall() == [(3,), (2,)]  # type: ignore[arg-type]
            update = f"UPDATE {table} SET note = 'TWO' WHERE id = 2"
            assert caller.execute(update + " RETURNING id").fetchall() == [(2,)]  # type: ignore[arg-type]
            assert caller.execute(f"DELETE FROM {table} WHERE id = 1 RETURNING id").fetchall() == [(1,)]  # type: ignore[arg-type]
        with running.as_user(read_only=True) as caller:
            query = f"SELECT id, note FROM {table} ORDER BY id"
            assert caller.execute(query).fetchall() == [(2, "TWO"), (3, "three")]  # type: ignore[arg-type]


def test_what_asks_by_id_is_sent_whole(running: Deployment) -> None:
    with running.owner("local") as owner:
        for table in TABLES:
            rows = f"INSERT INTO {table} (hospital_id) SELECT '{SITE_ID}' FROM generate_series(1, 2000)"
            owner.execute(rows)  # type: ignore[arg-type]
    analyze(running.config)
    for table in TABLES:
        with running.as_user() as caller:
            (line,) = sent(caller, f"SELECT note FROM {table} WHERE id = 2")
            assert "((id = 2))" in line
            (line,) = sent(caller, f"SELECT id FROM {table} ORDER BY id DESC LIMIT 2")
            assert line.endswith("ORDER BY id DESC NULLS FIRST LIMIT 2::bigint")
            update, *_ = sent(caller, f"UPDATE {table} SET note = 'x' WHERE id = 2")
            assert update.startswith(f"UPDATE public.{table} SET note = $2 WHERE ctid = $1")


def test_other_tables_refer_to_them_and_joins_are_sent(running: Deployment) -> None:
    with running.as_user() as caller:
        visit = caller.execute("INSERT INTO visits (hospital_id) VALUES (%s) RETURNING id, code", [SITE_ID]).fetchone()
        assert visit == (1, "V-1")
        bill = "INSERT INTO bills (hospital_id, visit_id) VALUES (%s, %s) RETURNING id, visit_id"
        assert caller.execute(bill, [SITE_ID, visit[0]]).fetchone() == (1, 1)
        join = "SELECT b.id, v.code FROM bills AS b JOIN visits AS v ON v.id = b.visit_id ORDER BY b.id LIMIT 5"
        assert caller.execute(join).fetchall() == [(1, "V-1")]
        (line,) = sent(caller, join)
        assert "INNER JOIN public.visits" in line
        assert "ORDER BY" in line
    with running.as_user() as caller, pytest.raises(psycopg.errors.ForeignKeyViolation):
        caller.execute(bill, [SITE_ID, 99])


def test_a_caller_gives_no_number_itself(running: Deployment) -> None:
    for table in TABLES:
        for statement in (
            f"INSERT INTO {table} (id, hospital_id) VALUES (7, '{SITE_ID}')",
            f"UPDATE {table} SET id = 7",
        ):
            with running.as_user() as caller, pytest.raises(psycopg.errors.GeneratedAlways):
                caller.execute(statement)  # type: ignore[arg-type]


def test_somebody_who_is_not_judged_to_own_the_row_finds_no_id(running: Deployment) -> None:
    running.load(dict.fromkeys(TABLES, 1))
    for table in TABLES:
        with running.as_user("00000000-0000-0000-0000-00000000000e") as caller:
            assert caller.execute(f"SELECT id FROM {table}").fetchall() == []  # type: ignore[arg-type]
            assert caller.execute(f"DELETE FROM {table} WHERE id = 1").rowcount == 0  # type: ignore[arg-type]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                caller.execute(f"INSERT INTO {table} (hospital_id) VALUES ('{SITE_ID}')")  # type: ignore[arg-type]


def test_the_kit_loads_rows_with_numbers_of_its_own_and_of_the_tests(running: Deployment) -> None:
    rows = running.load({"visits": 2, "bills": [{"note": "paid"}], "samples": [{"id": 70}, {}]})
    assert [row["id"] for row in rows["visits"]] == [1, 2]
    assert (rows["bills"][0]["id"], rows["bills"][0]["visit_id"]) == (1, None)
    assert [row["id"] for row in rows["samples"]] == [70, 1]
    with running.as_user(read_only=True) as caller:
        assert caller.execute("SELECT id FROM samples ORDER BY id").fetchall() == [(1,), (70,)]


ORDINARY = """
    DROP VIEW public.{0};
    ALTER FOREIGN TABLE federation_link.{0} DROP id {1};
    ALTER FOREIGN TABLE federation_link.{0} ADD id bigint OPTIONS (column_name 'id') NOT NULL;
    ALTER FOREIGN TABLE federation_link.{0} ALTER id SET STATISTICS 0;
    CREATE VIEW public.{0} WITH (security_invoker = true, check_option = cascaded) AS SELECT * FROM federation_link.{0}
        WHERE (hospital_id = (SELECT federation.bind_claims())) = (SELECT true);
    REVOKE ALL ON public.{0} FROM anon, authenticated, service_role;
    GRANT SELECT, INSERT, UPDATE, DELETE ON public.{0} TO authenticated, service_role;
"""


@pytest.mark.parametrize("table", ["visits", "samples"])
def test_an_ordinary_column_in_its_place_refuses_every_insert_is_found_and_mended(
    running: Deployment, table: str
) -> None:
    with running.owner("cloud") as owner:
        owner.execute(ORDINARY.format(table, ""))  # type: ignore[arg-type]
    insert = f"INSERT INTO {table} (hospital_id) VALUES ('{SITE_ID}') RETURNING id"
    refused = (psycopg.errors.NotNullViolation, psycopg.errors.GeneratedAlways)
    with running.as_user() as caller, pytest.raises(refused):
        caller.execute(insert)  # type: ignore[arg-type]
    linked, view = f"federation_link.{table}", f"public.{table}"
    assert ("cloud", "~", "foreign column", f"{linked}.id") in found(running)
    assert {name for *_, name in found(running)} <= {view, f"{linked}.id"}
    (written,) = revision(running.config, "mend", autogenerate=True)
    assert written.phase == "expand"
    upgrade(running.config)
    assert check(running.config) == []
    with running.as_user() as caller:
        assert caller.execute(insert).fetchone() == (1,)  # type: ignore[arg-type]
    downgrade(running.config, "0005")
    with running.as_user() as caller, pytest.raises(refused):
        caller.execute(insert)  # type: ignore[arg-type]
    upgrade(running.config)
    assert check(running.config) == []


def test_a_trigger_that_would_give_rows_new_numbers_is_found(running: Deployment) -> None:
    """It fires before the update of each row, so that postgres_fdw sends every column: of this one DEFAULT."""
    with running.owner("cloud") as owner:
        owner.execute(
            "CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; "
            "CREATE TRIGGER touch BEFORE UPDATE ON federation_link.visits FOR EACH ROW "
            "EXECUTE FUNCTION public.touch(); "
            "CREATE TRIGGER touch BEFORE UPDATE ON federation_link.hospital_queues FOR EACH ROW "
            "EXECUTE FUNCTION public.touch()"
        )
    running.load({"visits": 1})
    with running.as_user() as caller:
        caller.execute("UPDATE visits SET note = 'x'")
        assert caller.execute("SELECT id FROM visits").fetchone() == (2,)
    assert found(running) == [("cloud", "~", "trigger", "federation_link.visits.touch")]


def test_a_hospital_that_makes_no_number_is_found(running: Deployment) -> None:
    with running.owner("local") as owner:
        owner.execute("ALTER TABLE visits ALTER id DROP IDENTITY")
        owner.execute("ALTER TABLE bills ALTER id DROP DEFAULT")
    assert found(running) == [("local", "~", "column", "visits.id"), ("local", "~", "column", "bills.id")]
    for table in ("visits", "bills"):
        with running.as_user() as caller, pytest.raises(psycopg.errors.NotNullViolation):
            caller.execute(f"INSERT INTO {table} (hospital_id) VALUES ('{SITE_ID}')")  # type: ignore[arg-type]


def test_who_may_insert_may_use_a_serial_columns_sequence(running: Deployment) -> None:
    with running.owner("local") as owner:
        owner.execute("REVOKE USAGE ON SEQUENCE bills_id_seq FROM authenticated, federation_link")
        owner.execute("GRANT UPDATE ON SEQUENCE bills_id_seq TO federation_service")
    insert = f"INSERT INTO bills (hospital_id) VALUES ('{SITE_ID}') RETURNING id"
    with running.as_user() as caller, pytest.raises(psycopg.errors.InsufficientPrivilege, match="bills_id_seq"):
        caller.execute(insert)  # type: ignore[arg-type]
    assert sorted(found(running)) == [("local", mark, "grant", "public.bills_id_seq") for mark in ("+", "+", "-")]
    revision(running.config, "mend", autogenerate=True)
    upgrade(running.config)
    assert check(running.config) == []
    with running.as_user() as caller:
        assert caller.execute(insert).fetchone() == (1,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "default", ["server_default=sa.text(\"nextval('bills_id_seq')\")", "default=sa.Sequence('bills_id_seq')"]
)
def test_a_sequence_that_a_declaration_names_is_refused(declaring: Deployment, default: str) -> None:
    serial = 'sa.Column("id", sa.Integer(), primary_key=True'
    assert serial in DECLARED
    declare(declaring, DECLARED.replace(serial, f"{serial}, {default}"))
    with pytest.raises(Refused, match=r"column bills\.id is declared with a sequence") as raised:
        revision(declaring.config, "numbers", autogenerate=True)
    assert "sa.Identity()" in (raised.value.hint or "")


EXPRESSION = "'V-' || (id)::text"


@pytest.mark.parametrize(
    ("statement", "found_there"),
    [
        ("ALTER TABLE visits ALTER code DROP EXPRESSION", "not generated"),
        (
            "ALTER TABLE visits DROP code; ALTER TABLE visits ADD code text GENERATED ALWAYS AS ('W-' || id) STORED",
            "GENERATED ALWAYS AS (('W-'::text || id)) STORED",
        ),
    ],
    ids=["dropped", "another"],
)
def test_a_hospital_that_generates_a_column_otherwise_is_found(
    running: Deployment, statement: str, found_there: str
) -> None:
    with running.owner("local") as owner:
        owner.execute(statement)  # type: ignore[call-overload]
    # Where the change has rewritten the table, that is found, too (test_rewrites).
    (item,) = (item for item in check(running.config) if item.what != "table")
    assert (item.side, item.mark, item.what, item.name) == ("local", "~", "column", "visits.code")
    declared = "GENERATED ALWAYS AS (('V-'::text || (id)::text)) STORED"
    assert item.detail.startswith(f"is {found_there} and should be {declared}: declare what is there")


def test_a_cloud_that_would_send_a_value_of_a_generated_column_is_found(running: Deployment) -> None:
    with running.owner("cloud") as owner:
        owner.execute("ALTER FOREIGN TABLE federation_link.visits ALTER code DROP EXPRESSION")
    with running.as_user() as caller, pytest.raises(psycopg.errors.GeneratedAlways):
        caller.execute("INSERT INTO visits (hospital_id) VALUES (%s)", [SITE_ID])
    (item,) = check(running.config)
    assert (item.side, item.mark, item.what, item.name) == (
        "cloud",
        "~",
        "foreign column",
        "federation_link.visits.code",
    )
    assert item.detail.startswith("is not generated and should be: write a release by hand")


def test_another_declared_expression_is_found_and_alembic_warns_of_nothing(running: Deployment) -> None:
    models = running.root / "versions" / "models.py"
    models.write_text(models.read_text().replace(EXPRESSION, EXPRESSION.replace("V", "W")))
    result = running.federation("check", PYTHONWARNINGS="default::UserWarning")
    assert result.returncode == 3
    assert "visits.code" in result.stdout
    assert "cannot be modified" not in result.stderr
    result = running.federation("revision", "-m", "codes", "--autogenerate", PYTHONWARNINGS="default::UserWarning")
    assert "cannot be modified" not in result.stderr


def test_a_virtual_column_is_refused(declaring: Deployment) -> None:
    """On 18 it is what SQLAlchemy makes without ``persisted``; before, a stored one."""
    stored = f'sa.Computed("{EXPRESSION}", persisted=True)'
    assert stored in DECLARED
    unsaid = DECLARED.replace(stored, f'sa.Computed("{EXPRESSION}")')
    with declaring.owner("local") as owner:
        is_stored = owner.info.server_version < 180000
    declare(
        declaring, DECLARED.replace(stored, f'sa.Computed("{EXPRESSION}", persisted=False)') if is_stored else unsaid
    )
    with pytest.raises(Refused, match=r"column visits\.code is VIRTUAL, .*persisted=True"):
        revision(declaring.config, "numbers", autogenerate=True)


SERIAL, IDENTITY = (
    'sa.Column("id", sa.Integer(), primary_key=True)',
    'sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True)',
)


def test_a_serial_column_that_becomes_an_identity_is_refused_with_what_to_write(running: Deployment) -> None:
    running.load({"bills": 2})
    models = running.root / "versions" / "models.py"
    assert SERIAL in models.read_text()
    models.write_text(models.read_text().replace(SERIAL, IDENTITY))
    result = running.federation("check")
    assert result.returncode == 3
    assert "bills.id" in result.stdout
    files = sorted(running.root.rglob("0*.py"))
    result = running.federation("revision", "-m", "identity", "--autogenerate")
    assert (result.returncode, sorted(running.root.rglob("0*.py"))) == (8, files)
    assert "local: column bills.id is serial and is declared as sa.Identity()" in result.stderr
    statements = result.stderr.strip().partition("federation revision: ")[2]
    with running.owner("local") as owner:
        owner.execute(statements)  # type: ignore[call-overload]
    assert running.federation("check").returncode == 0, running.federation("check").stdout
    with running.as_user() as caller:
        insert = "INSERT INTO bills (hospital_id) VALUES (%s) RETURNING id"
        assert caller.execute(insert, [SITE_ID]).fetchone() == (3,)


def test_an_identity_column_that_becomes_serial_is_refused(running: Deployment) -> None:
    models = running.root / "versions" / "models.py"
    models.write_text(
        models.read_text().replace(
            'sa.Column("id", sa.BigInteger(), sa.Identity(), ', 'sa.Column("id", sa.BigInteger(), '
        )
    )
    result = running.federation("revision", "-m", "serial", "--autogenerate")
    assert result.returncode == 8
    assert "visits.id is an identity column and is declared as serial — declare sa.Identity()" in result.stderr


def test_a_predicate_that_asks_for_the_key_takes_new_rows(declaring: Deployment) -> None:
    """The view's check option is judged by the number that has come back."""
    declare(declaring, DECLARED)
    toml = declaring.root / "federation.toml"
    by_site = 'predicate = "(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)"'
    assert by_site in toml.read_text()
    by_key = 'predicate = "(id IS NOT NULL) = (SELECT federation.bind_claims() IS NOT NULL)"'
    toml.write_text(toml.read_text().replace(by_site, by_key))
    revision(declaring.config, "numbers", autogenerate=True)
    upgrade(declaring.config)
    for table in TABLES:
        with declaring.as_user() as caller:
            insert = f"INSERT INTO {table} (hospital_id) VALUES ('{SITE_ID}'), ('{SITE_ID}') RETURNING id"
            assert caller.execute(insert).fetchall() == [(1,), (2,)]  # type: ignore[arg-type]
            assert caller.execute(f"SELECT id FROM {table} WHERE id > 1").fetchall() == [(2,)]  # type: ignore[arg-type]
