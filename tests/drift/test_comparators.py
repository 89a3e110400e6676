"""What is changed behind the toolkit's back is found, exactly that, and a release by autogenerate mends it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import psycopg
import pytest
from deployments import copy_root

from federation.check import check
from federation.errors import Refused
from federation.lockstep import downgrade, upgrade
from federation.scaffold import revision
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment

TABLES = ("hospital_patients", "hospital_queues", "hospital_prescriptions", "hospital_patient_reviews")
VIEW, LINKED = "public.{t}", "federation_link.{t}"
"""``{t}`` stands for one of the tables: drifts of different tables are tried together."""
BOUND = "(hospital_id = (SELECT federation.bind_claims())) = (SELECT true)"
OPTIONS = "WITH (security_invoker = true, check_option = cascaded)"
OWN = "(SELECT auth.uid()) = hospital_id"
Row: TypeAlias = tuple[str, str, str, str, str]


@dataclass
class Drift:
    """A change of one side by its owner, and what check says of it: (side, mark, what, name, words of the detail)."""

    side: str
    change: str
    found: list[Row]
    tables: tuple[str, ...] = TABLES
    """Those that it can be tried on."""

    def on(self, table: str) -> Drift:
        found = [(side, mark, what, name.replace("{t}", table), words) for side, mark, what, name, words in self.found]
        return Drift(self.side, self.change.replace("{t}", table), found, (table,))


def _view(columns: str = "*", where: str = BOUND, options: str = OPTIONS) -> str:
    return f"CREATE OR REPLACE VIEW {VIEW} {options} AS SELECT {columns} FROM {LINKED} WHERE {where}"


def _default_privileges() -> list[Row]:
    """What a view made by hand has on Supabase, and this toolkit takes away."""
    return [("cloud", "-", "grant", VIEW, role) for role in ("anon", "authenticated", "service_role")]


SERVER, MAPPING, TRIGGER = "ALTER SERVER hospital OPTIONS", "USER MAPPING FOR", "TRIGGER bind_before_write"
ALTER_FOREIGN, ALTER_LOCAL, POLICY = f"ALTER FOREIGN TABLE {LINKED}", "ALTER TABLE {t}", "POLICY own_rows ON {t}"
ONLY_PATIENTS, WITH_STATUS = TABLES[:1], TABLES[1:]

MENDED = {
    "site check dropped": Drift(
        "local",
        f"{ALTER_LOCAL} DROP CONSTRAINT {{t}}_site_check",
        [("local", "+", "site check", "public.{t}.hospital_id", "")],
    ),
    "server option changed": Drift(
        "cloud", f"{SERVER} (SET fetch_size '7')", [("cloud", "~", "foreign server", "hospital", "fetch_size=2000")], ()
    ),
    "server option dropped": Drift(
        "cloud",
        f"{SERVER} (DROP use_remote_estimate)",
        [("cloud", "~", "foreign server", "hospital", "use_remote_estimate=false")],
        (),
    ),
    "server option added": Drift(
        "cloud",
        f"{SERVER} (ADD fdw_tuple_cost '0.2')",
        [("cloud", "~", "foreign server", "hospital", "fdw_tuple_cost")],
        (),
    ),
    "mapping dropped": Drift(
        "cloud",
        f"DROP {MAPPING} service_role SERVER hospital",
        [("cloud", "+", "user mapping", "service_role", "SERVICE")],
        (),
    ),
    "foreign column dropped with its view": Drift(
        "cloud",
        f"DROP VIEW {VIEW}; {ALTER_FOREIGN} DROP status",
        [("cloud", "+", "foreign column", f"{LINKED}.status", ""), ("cloud", "+", "rls view", VIEW, "")],
        WITH_STATUS,
    ),
    "foreign column's nullability changed": Drift(
        "cloud",
        f"{ALTER_FOREIGN} ALTER hospital_id DROP NOT NULL",
        [("cloud", "~", "foreign column", f"{LINKED}.hospital_id", "")],
    ),
    "foreign column retyped without its view": Drift(
        "cloud",
        f"DROP VIEW {VIEW}; {ALTER_FOREIGN} ALTER created_at TYPE date",
        [("cloud", "~", "foreign column", f"{LINKED}.created_at", ""), ("cloud", "+", "rls view", VIEW, "")],
    ),
    "foreign column retyped under its view": Drift(
        "cloud",
        f"DROP VIEW {VIEW}; {ALTER_FOREIGN} ALTER status TYPE varchar(9); {_view()}",
        [
            ("cloud", "-", "rls view", VIEW, ""),
            ("cloud", "~", "foreign column", f"{LINKED}.status", ""),
            ("cloud", "+", "rls view", VIEW, ""),
            ("cloud", "~", "rls view", VIEW, "defaults"),
            *_default_privileges(),
        ],
        WITH_STATUS,
    ),
    "foreign column that the cloud makes up": Drift(
        "cloud",
        f"DROP VIEW {VIEW}; {ALTER_FOREIGN} DROP queue_number; {ALTER_FOREIGN} ADD queue_number integer "
        f"OPTIONS (column_name 'queue_number') NOT NULL GENERATED ALWAYS AS (NULL::integer) STORED; "
        f"{ALTER_FOREIGN} ALTER queue_number SET STATISTICS 0",
        [("cloud", "~", "foreign column", f"{LINKED}.queue_number", ""), ("cloud", "+", "rls view", VIEW, "")],
        ("hospital_queues",),
    ),
    "trigger dropped": Drift(
        "cloud", f"DROP {TRIGGER} ON {LINKED}", [("cloud", "+", "trigger", f"{LINKED}.bind_before_write", "")]
    ),
    "statistics target of the server": Drift(
        "cloud", f"{ALTER_FOREIGN} ALTER id SET STATISTICS -1", [("cloud", "~", "statistics target", LINKED, "id")]
    ),
    "statistics target raised": Drift(
        "cloud", f"{ALTER_FOREIGN} ALTER id SET STATISTICS 9", [("cloud", "~", "statistics target", LINKED, "id")]
    ),
    "table's option added": Drift(
        "cloud",
        f"{ALTER_FOREIGN} OPTIONS (ADD use_remote_estimate 'true')",
        [("cloud", "~", "foreign table options", LINKED, "")],
    ),
    "table's fetch size": Drift(
        "cloud", f"{ALTER_FOREIGN} OPTIONS (ADD fetch_size '1')", [("cloud", "~", "foreign table options", LINKED, "")]
    ),
    "view dropped": Drift("cloud", f"DROP VIEW {VIEW}", [("cloud", "+", "rls view", VIEW, "")]),
    "view's body changed": Drift("cloud", _view(where="true"), [("cloud", "~", "rls view", VIEW, "body")]),
    "view's predicate dropped with its options": Drift(
        "cloud",
        f"CREATE OR REPLACE VIEW {VIEW} AS SELECT * FROM {LINKED}",
        [("cloud", "~", "rls view", VIEW, "body, options")],
    ),
    "view replaced without WITH": Drift("cloud", _view(options=""), [("cloud", "~", "rls view", VIEW, "options")]),
    "check option lost": Drift(
        "cloud", f"ALTER VIEW {VIEW} RESET (check_option)", [("cloud", "~", "rls view", VIEW, "options")]
    ),
    "default dropped": Drift(
        "cloud", f"ALTER VIEW {VIEW} ALTER id DROP DEFAULT", [("cloud", "~", "rls view", VIEW, "defaults")]
    ),
    "default changed": Drift(
        "cloud",
        f"ALTER VIEW {VIEW} ALTER created_at SET DEFAULT '2026-01-01'",
        [("cloud", "~", "rls view", VIEW, "defaults")],
    ),
    "default added": Drift(
        "cloud",
        f"ALTER VIEW {VIEW} ALTER hospital_id SET DEFAULT gen_random_uuid()",
        [("cloud", "~", "rls view", VIEW, "defaults")],
    ),
    "view made by hand with fewer columns": Drift(
        "cloud",
        f"DROP VIEW {VIEW}; {_view('id, hospital_id')}",
        [("cloud", "~", "rls view", VIEW, "columns, defaults"), *_default_privileges()],
    ),
    "privilege of the denied role": Drift(
        "cloud", f"GRANT SELECT ON {VIEW} TO anon", [("cloud", "-", "grant", VIEW, "SELECT from anon")]
    ),
    "privilege of everyone": Drift(
        "cloud", f"GRANT SELECT ON {VIEW} TO PUBLIC", [("cloud", "-", "grant", VIEW, "SELECT from public")]
    ),
    "privilege on one column": Drift(
        "cloud", f"GRANT SELECT (id) ON {VIEW} TO anon", [("cloud", "-", "grant", VIEW, "SELECT from anon")]
    ),
    "privilege on the foreign table": Drift(
        "cloud", f"GRANT SELECT ON {LINKED} TO anon", [("cloud", "-", "grant", LINKED, "SELECT from anon")]
    ),
    "privilege taken away": Drift(
        "cloud",
        f"REVOKE UPDATE ON {VIEW} FROM authenticated",
        [("cloud", "+", "grant", VIEW, "UPDATE to authenticated")],
    ),
    "policy dropped": Drift("local", f"DROP {POLICY}", [("local", "+", "policy", f"{VIEW}.own_rows", "")]),
    "policy's expression changed": Drift(
        "local", f"ALTER {POLICY} USING (true)", [("local", "~", "policy", f"{VIEW}.own_rows", "")]
    ),
    "policy's check added": Drift(
        "local", f"ALTER {POLICY} WITH CHECK (true)", [("local", "~", "policy", f"{VIEW}.own_rows", "")]
    ),
    "policy's roles changed": Drift(
        "local", f"ALTER {POLICY} TO federation_link", [("local", "~", "policy", f"{VIEW}.own_rows", "")]
    ),
    "policy's command changed": Drift(
        "local",
        f"DROP {POLICY}; CREATE {POLICY} FOR SELECT USING ({OWN})",
        [("local", mark, "policy", f"{VIEW}.own_rows", "") for mark in "-+"],
    ),
    "policy restrictive": Drift(
        "local",
        f"DROP {POLICY}; CREATE {POLICY} AS RESTRICTIVE USING ({OWN})",
        [
            ("local", "-", "policy", f"{VIEW}.own_rows", "restrictive"),
            ("local", "+", "policy", f"{VIEW}.own_rows", ""),
        ],
    ),
    "policy added": Drift(
        "local",
        "CREATE POLICY everyone ON {t} USING (true)",
        [("local", "-", "policy", f"{VIEW}.everyone", "")],
    ),
    "row-level security off": Drift(
        "local", f"{ALTER_LOCAL} DISABLE ROW LEVEL SECURITY", [("local", "+", "row level security", VIEW, "")]
    ),
    "link role's privilege taken away": Drift(
        "local", "REVOKE UPDATE ON {t} FROM federation_link", [("local", "+", "grant", VIEW, "UPDATE to LINK")]
    ),
    "link role's privilege added": Drift(
        "local", "GRANT TRUNCATE ON {t} TO federation_service", [("local", "-", "grant", VIEW, "TRUNCATE from SERVICE")]
    ),
    "link role's privilege through PUBLIC": Drift(
        "local", "GRANT TRUNCATE ON {t} TO PUBLIC", [("local", "-", "grant", VIEW, "TRUNCATE from public")]
    ),
    "hospital's column retyped": Drift(
        "local",
        "ALTER TABLE {t} ALTER age TYPE bigint",
        [
            ("local", "~", "column", "{t}.age", "type is BIGINT and should be INTEGER"),
            ("cloud", "~", "hospital's column", "{t}.age", "is bigint there and integer in the cloud"),
        ],
        ONLY_PATIENTS,
    ),
    "hospital's column nullable": Drift(
        "local",
        "ALTER TABLE {t} ALTER queue_number DROP NOT NULL",
        [
            ("local", "~", "column", "{t}.queue_number", "nullable is True and should be False"),
            ("cloud", "~", "hospital's column", "{t}.queue_number", "is integer there and integer NOT NULL"),
        ],
        ("hospital_queues",),
    ),
}
"""What a release can mend."""


def _batches() -> list[dict[str, Drift]]:
    """The drifts in as few batches as they fit in: in each, one of a table and side, and one of the link."""
    batches: list[tuple[dict[str, Drift], set[tuple[str, str]]]] = []
    for name, drift in sorted(MENDED.items(), key=lambda item: len(item[1].tables)):
        for batch, taken in [*batches, (new := ({}, set()))]:
            free = [table for table in drift.tables or ("hospital",) if (drift.side, table) not in taken]
            if free:
                batch[name] = drift.on(free[0])
                taken.update((row[0], free[0]) for row in drift.found)
                break
        if new[0]:
            batches.append(new)
    return [batch for batch, _ in batches]


REPORTED = {
    "hospital's column renamed": Drift(
        "local",
        "ALTER TABLE hospital_patients RENAME place TO town",
        [
            ("local", "+", "column", "hospital_patients.place", ""),
            ("local", "-", "column", "hospital_patients.town", ""),
            ("cloud", "~", "hospital's column", "hospital_patients.place", "does not exist"),
        ],
    ),
    "server's address changed": Drift(
        "cloud",
        f"{SERVER} (SET port '1')",
        [("cloud", "~", "server", "hospital", "federation link apply")],
    ),
    "server's timeout changed": Drift(
        "cloud",
        f"{SERVER} (SET connect_timeout '7')",
        [("cloud", "~", "server", "hospital", "connect_timeout is '7' and should be '5': federation link apply")],
    ),
    "everyone's mapping of another user": Drift(
        "cloud",
        f"ALTER {MAPPING} PUBLIC SERVER hospital OPTIONS (SET user 'federation_service')",
        [("cloud", "~", "user mapping", "public", "goes as federation_service and should go as federation_link")],
    ),
    "the owner's mapping of another user": Drift(
        "cloud",
        f"ALTER {MAPPING} CURRENT_USER SERVER hospital OPTIONS (SET user 'federation_link')",
        [("cloud", "~", "user mapping", "postgres", "goes as federation_link and should go as federation_service")],
    ),
    "mapping added": Drift(
        "cloud",
        f"CREATE {MAPPING} authenticated SERVER hospital OPTIONS (user 'federation_link', password 'hush-hush')",
        [("cloud", "~", "user mapping", "authenticated", "is not declared")],
    ),
    "materialized views over a view and over a foreign table": Drift(
        "cloud",
        "CREATE VIEW public.names WITH (security_invoker) AS SELECT name FROM public.hospital_patients; "
        "CREATE MATERIALIZED VIEW public.all_names AS SELECT name FROM public.names WITH NO DATA; "
        "CREATE MATERIALIZED VIEW federation_link.queue AS SELECT FROM federation_link.hospital_queues WITH NO DATA; "
        "CREATE MATERIALIZED VIEW public.ours AS SELECT FROM pg_class WITH NO DATA",
        [
            ("cloud", "~", "materialized view", "public.all_names", "keeps the hospital's rows in the cloud: DROP"),
            (
                "cloud",
                "~",
                "materialized view",
                "federation_link.queue",
                "keeps the hospital's rows in the cloud: DROP",
            ),
        ],
    ),
    "foreign table of another one": Drift(
        "cloud",
        "ALTER FOREIGN TABLE federation_link.hospital_patients OPTIONS (SET table_name 'hospital_queues')",
        [
            (
                "cloud",
                "~",
                "foreign table",
                "federation_link.hospital_patients",
                "reads hospital.public.hospital_queues and should read hospital.public.hospital_patients",
            )
        ],
    ),
    "foreign column of another one": Drift(
        "cloud",
        "ALTER FOREIGN TABLE federation_link.hospital_patients ALTER name OPTIONS (SET column_name 'phone')",
        [("cloud", "~", "foreign column", "federation_link.hospital_patients.name", "reads the column phone")],
    ),
    "ways past the views": Drift(
        "cloud",
        "CREATE VIEW public.as_owner AS SELECT * FROM federation_link.hospital_patients; "
        "CREATE VIEW public.as_caller WITH (security_invoker) AS SELECT * FROM federation_link.hospital_patients; "
        "CREATE VIEW federation_link.nobodys AS SELECT * FROM federation_link.hospital_patients; "
        "CREATE FOREIGN TABLE public.again (id uuid) SERVER hospital OPTIONS (table_name 'hospital_patients'); "
        "CREATE VIEW public.by_column AS SELECT * FROM federation_link.hospital_patients; "
        "REVOKE ALL ON public.again, public.by_column FROM PUBLIC, anon, authenticated, service_role; "
        "REVOKE ALL ON public.as_owner FROM anon; "
        "GRANT SELECT (id) ON public.again TO authenticated; GRANT SELECT (id) ON public.by_column TO service_role",
        [
            ("cloud", "~", "view", "public.by_column", "shows service_role the hospital's rows as its owner sees them"),
            ("cloud", "~", "foreign table", "public.again", "authenticated can use it without its view: REVOKE"),
            (
                "cloud",
                "~",
                "view",
                "public.as_owner",
                "shows authenticated, service_role the hospital's rows as its owner sees them: ALTER VIEW",
            ),
        ],
    ),
    "site check of another site": Drift(
        "local",
        "ALTER TABLE hospital_patients DROP CONSTRAINT hospital_patients_site_check, "
        f"ADD CONSTRAINT hospital_patients_site_check CHECK (hospital_id <> '{SITE_ID}')",
        [("local", "~", "site check", "hospital_patients_site_check", "is CHECK ((hospital_id <> ")],
    ),
    "trigger on a view": Drift(
        "cloud",
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        "CREATE TRIGGER gone INSTEAD OF INSERT ON hospital_queues FOR EACH ROW EXECUTE FUNCTION swallow()",
        [("cloud", "~", "trigger", "public.hospital_queues.gone", "stands between the app and the hospital")],
    ),
    "an owner's view over ours": Drift(
        "cloud",
        "CREATE VIEW public.over_ours AS SELECT * FROM public.hospital_patients; "
        "REVOKE ALL ON public.over_ours FROM anon, service_role; "
        "CREATE VIEW public.as_caller WITH (security_invoker) AS SELECT * FROM public.hospital_patients",
        [
            (
                "cloud",
                "~",
                "view",
                "public.over_ours",
                "shows authenticated the hospital's rows as its owner sees them: ",
            )
        ],
    ),
    "the link's own parts": Drift(
        "cloud",
        "GRANT USAGE ON SCHEMA federation_private TO authenticated; "
        "GRANT USAGE ON SCHEMA federation_link TO anon, authenticated; "
        "GRANT USAGE ON FOREIGN SERVER hospital TO PUBLIC",
        [
            (
                "cloud",
                "~",
                "privilege",
                "federation_link",
                'anon holds USAGE: REVOKE USAGE ON SCHEMA federation_link FROM "anon"',
            ),
            ("cloud", "~", "privilege", "federation_link", "authenticated holds USAGE: REVOKE"),
            ("cloud", "~", "privilege", "federation_private", "authenticated holds USAGE: REVOKE"),
            (
                "cloud",
                "~",
                "privilege",
                "hospital",
                "PUBLIC holds USAGE: REVOKE USAGE ON FOREIGN SERVER hospital FROM PUBLIC",
            ),
        ],
    ),
    "the cloud's half of the binding": Drift(
        "cloud",
        "CREATE OR REPLACE FUNCTION federation.bind_claims() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'; "
        "ALTER TABLE federation_private.probe DISABLE ROW LEVEL SECURITY; "
        "DROP FUNCTION federation_private.require_hospital(); "
        "ALTER FOREIGN TABLE federation_private.bind OPTIONS (SET table_name 'account')",
        [
            ("cloud", "~", "binding", "federation.bind_claims()", "is not what the binding's v1 has: put it back"),
            ("cloud", "~", "binding", "federation_private.bind", "is not what"),
            ("cloud", "~", "binding", "federation_private.probe", "is not what"),
            (
                "cloud",
                "~",
                "binding",
                "federation_private.require_hospital()",
                "is missing: put it back as federation/",
            ),
        ],
    ),
    "the hospital's half of the binding": Drift(
        "local",
        "ALTER FUNCTION auth.jwt() RESET search_path; ALTER VIEW federation.bind RESET (security_barrier)",
        [
            ("local", "~", "binding", "auth.jwt()", "is not what the binding's v1 has"),
            ("local", "~", "binding", "federation.bind", "is not what"),
        ],
    ),
    "trigger disabled": Drift(
        "cloud",
        f"ALTER FOREIGN TABLE federation_link.hospital_patients DISABLE {TRIGGER}",
        [("cloud", "~", "trigger", "federation_link.hospital_patients.bind_before_write", "is disabled")],
    ),
}
"""What no release can mend: the way out is named."""

LEFT_ALONE = {
    "the app's own objects": Drift(
        "cloud",
        "CREATE TABLE public.ward (id int); CREATE TABLE federation_link.ward (id int); "
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
        "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw; CREATE USER MAPPING FOR anon SERVER other; "
        "CREATE VIEW public.names WITH (security_invoker) AS SELECT name FROM public.hospital_patients",
        [],
    ),
    "privileges of a role that is not named": Drift(
        "cloud", "GRANT SELECT ON public.hospital_patients TO authenticator", []
    ),
    "comment, where none is declared": Drift("cloud", "COMMENT ON VIEW public.hospital_patients IS 'ours'", []),
    "the hospital's own objects": Drift(
        "local",
        "CREATE TABLE ward (id int); ALTER TABLE ward ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY p ON ward USING (true); CREATE VIEW names AS SELECT name FROM hospital_patients; "
        "GRANT SELECT ON ward TO PUBLIC",
        [],
    ),
    "an index that the next run drops": Drift(
        "local", "CREATE INDEX federation_dropped_1 ON hospital_patients (name)", []
    ),
    "privileges of the hospital's own roles": Drift("local", "GRANT SELECT ON hospital_patients TO pg_monitor", []),
}


def change(deployment: Deployment, drift: Drift) -> None:
    with deployment.owner(drift.side) as owner:
        owner.execute(drift.change)  # type: ignore[call-overload]


def assert_found(deployment: Deployment, *drifts: Drift) -> None:
    """Exactly these, and no secret. That a change by hand has rewritten a table is found, too (test_rewrites)."""
    found = sorted((item for item in check(deployment.config) if item.what != "table"), key=str)
    declared = sorted((row for drift in drifts for row in drift.found), key=str)
    assert sorted((item.side, item.mark, item.what, item.name) for item in found) == sorted(row[:4] for row in declared)
    for *row, words in declared:
        assert any(
            (item.side, item.mark, item.what, item.name) == tuple(row) and words in item.detail for item in found
        )
    passwords = [value for name, value in deployment.environ.items() if name.endswith("_PASSWORD")]
    assert not any(secret in str(found) for secret in ("hush-hush", *passwords))


@pytest.fixture
def copied(federated: Deployment, tmp_path: Path) -> Deployment:
    """At head, in a folder of its own, to which releases may be added."""
    federated.root = copy_root(tmp_path)
    return federated


@pytest.mark.parametrize("batch", _batches(), ids=", ".join)
def test_what_differs_is_found_and_the_release_that_autogenerate_writes_mends_it(
    copied: Deployment, batch: dict[str, Drift]
) -> None:
    for drift in batch.values():
        change(copied, drift)
    assert_found(copied, *batch.values())
    (written,) = revision(copied.config, "mend", autogenerate=True)
    assert written.phase == "expand"
    upgrade(copied.config)
    assert check(copied.config) == []
    downgrade(copied.config, "0004")
    upgrade(copied.config)
    assert check(copied.config) == []


def test_options_of_a_table_are_declared_changed_and_taken_back_by_releases(copied: Deployment, tmp_path: Path) -> None:
    toml = tmp_path / "federation.toml"
    plain = toml.read_text()
    for options in ('fetch_size = "100"\nupdatable = "false"', 'fetch_size = "50"', ""):
        toml.write_text(f"{plain}\n[tables.options.hospital_patients]\n{options}\n")
        (found,) = check(copied.config)
        assert (found.what, found.name) == ("foreign table options", "federation_link.hospital_patients")
        revision(copied.config, "options", autogenerate=True)
        upgrade(copied.config)
        assert check(copied.config) == []
    downgrade(copied.config, "0005")
    with copied.owner("cloud") as owner:
        (options,) = owner.execute(
            "SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'federation_link.hospital_patients'::regclass"
        ).fetchone() or ([],)
    assert options == ["schema_name=public", "table_name=hospital_patients", "fetch_size=100", "updatable=false"]


def test_a_foreign_column_that_nobody_declared_goes_in_a_contract_release(copied: Deployment) -> None:
    """That release cannot be undone: the hospital never had the column."""
    linked = "federation_link.hospital_patients"
    change(copied, Drift("cloud", f"ALTER FOREIGN TABLE {linked} ADD nickname text", []))
    assert_found(copied, Drift("cloud", "", [("cloud", "-", "foreign column", f"{linked}.nickname", "")]))
    (written,) = revision(copied.config, "mend", autogenerate=True)
    assert written.phase == "contract"
    upgrade(copied.config)
    assert check(copied.config) == []


@pytest.mark.claim("N1")
@pytest.mark.parametrize("drift", REPORTED.values(), ids=REPORTED)
def test_what_no_release_can_mend_is_found(federated: Deployment, drift: Drift) -> None:
    change(federated, drift)
    assert_found(federated, drift)


@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")  # SQLAlchemy's, of NOT VALID
def test_a_site_check_that_was_never_validated_is_found(federated: Deployment) -> None:
    name = "hospital_queues_site_check"
    again = f"ADD CONSTRAINT {name} CHECK (hospital_id = '{SITE_ID}') NOT VALID"
    found = [("local", "~", "site check", name, "rows of before: ALTER TABLE public.hospital_queues VALIDATE")]
    drift = Drift("local", f"ALTER TABLE hospital_queues DROP CONSTRAINT {name}, {again}", found)
    change(federated, drift)
    assert_found(federated, drift)


def test_what_nobody_declared_is_left_alone(federated: Deployment) -> None:
    for drift in LEFT_ALONE.values():
        change(federated, drift)
    assert check(federated.config) == []


def test_a_changed_column_at_the_hospital_is_found_although_count_works(federated: Deployment) -> None:
    changed = (
        REPORTED["hospital's column renamed"],
        MENDED["hospital's column nullable"].on("hospital_queues"),
        Drift(
            "local",
            "ALTER TABLE hospital_prescriptions ALTER notes TYPE varchar(99)",
            [
                ("local", "~", "column", "hospital_prescriptions.notes", "type is VARCHAR(99) and should be TEXT"),
                ("cloud", "~", "hospital's column", "hospital_prescriptions.notes", "is character varying(99) there"),
            ],
        ),
    )
    for drift in changed:
        change(federated, drift)
    with federated.as_user(read_only=True) as caller:
        for table in TABLES:
            assert caller.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[arg-type]
    assert_found(federated, *changed)


def test_a_surplus_column_at_the_hospital_makes_no_difference_to_the_cloud(federated: Deployment) -> None:
    change(federated, Drift("local", "ALTER TABLE hospital_patients ADD nickname text", []))
    assert [(item.side, item.mark, item.name) for item in check(federated.config)] == [
        ("local", "-", "hospital_patients.nickname")
    ]
    result = federated.alembic("cloud", "check")
    assert result.returncode == 0, result.stderr


def test_a_table_that_the_hospital_dropped_is_found_over_the_link(federated: Deployment) -> None:
    change(federated, Drift("local", "DROP TABLE hospital_patient_reviews CASCADE", []))
    found = [(item.mark, item.what, item.name) for item in check(federated.config) if item.side == "cloud"]
    assert found == [("~", "hospital's table", "hospital_patient_reviews")]


def test_the_owner_of_a_view_is_compared(federated: Deployment) -> None:
    with federated.superuser("cloud") as superuser:
        superuser.execute("ALTER VIEW public.hospital_patients OWNER TO supabase_admin")
    (found,) = check(federated.config)
    assert (found.side, found.mark, found.what, found.name) == ("cloud", "~", "view", "public.hospital_patients")
    assert "belongs to supabase_admin" in found.detail


def test_a_table_in_the_place_of_a_view_is_found_beside_the_view_that_is_missing(federated: Deployment) -> None:
    with federated.owner("cloud") as owner:
        owner.execute("DROP VIEW public.hospital_patients")
        owner.execute("CREATE TABLE public.hospital_patients (id uuid)")
    view, table = check(federated.config)
    assert (view.mark, view.what, view.name) == ("+", "rls view", "public.hospital_patients")
    assert (table.mark, table.what, table.name) == ("~", "table", "public.hospital_patients")
    assert "SET SCHEMA" in table.detail


def test_a_link_that_was_dropped_altogether_is_made_anew(copied: Deployment) -> None:
    with copied.owner("cloud") as owner:
        for table in ("patients", "queues", "prescriptions", "patient_reviews"):
            owner.execute(f"DROP FOREIGN TABLE federation_link.hospital_{table} CASCADE")  # type: ignore[call-overload]
    found = check(copied.config)
    assert {(item.side, item.mark) for item in found} == {("cloud", "+")}
    revision(copied.config, "the tables again", autogenerate=True)
    upgrade(copied.config)
    assert check(copied.config) == []
    with copied.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)


def edit(deployment: Deployment, *pairs: tuple[str, str]) -> None:
    """Change federation.toml."""
    file = deployment.root / "federation.toml"
    text = file.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


def test_a_comment_is_compared_where_it_is_declared(copied: Deployment) -> None:
    edit(copied, ("[demo]", '[tables.comments]\nhospital_patients = "who they are"\n\n[demo]'))
    found = check(copied.config)
    assert {(item.mark, item.what, item.detail) for item in found} == {("~", "rls view", "comment")}
    revision(copied.config, "comment", autogenerate=True)
    upgrade(copied.config)
    assert check(copied.config) == []
    with copied.owner("cloud") as owner:
        comment = owner.execute("SELECT obj_description('public.hospital_patients'::regclass)").fetchone()
    assert comment == ("who they are",)


def test_a_restrictive_policy_is_declared_and_replaced_by_a_permissive_one(copied: Deployment) -> None:
    """ALTER POLICY cannot turn one into the other."""
    declared = '[[tables.policies]]\nname = "mfa"\nusing = "true"\nrestrictive = true\n'
    edit(copied, ("[demo]", f'{declared}tables = ["hospital_patients"]\n\n[demo]'))
    (found,) = check(copied.config)
    assert (found.mark, found.name, found.detail) == ("+", "public.hospital_patients.mfa", "restrictive")
    revision(copied.config, "restrictive", autogenerate=True)
    upgrade(copied.config)
    assert check(copied.config) == []
    assert mfa(copied) == "RESTRICTIVE"
    edit(copied, ("restrictive = true", "restrictive = false"))
    assert [(item.mark, item.detail) for item in check(copied.config)] == [("-", "restrictive"), ("+", "")]
    revision(copied.config, "permissive", autogenerate=True)
    upgrade(copied.config)
    assert check(copied.config) == []
    assert mfa(copied) == "PERMISSIVE"
    downgrade(copied.config, "0005")
    assert mfa(copied) == "RESTRICTIVE"


def mfa(deployment: Deployment) -> str:
    """The policy's kind, as the server names it."""
    with deployment.owner("local") as owner:
        ((kind,),) = owner.execute("SELECT permissive FROM pg_policies WHERE policyname = 'mfa'").fetchall()
    return str(kind)


def test_what_is_not_in_federation_toml_is_not_managed(copied: Deployment) -> None:
    """Left out is not the same as empty."""
    text = (copied.root / "federation.toml").read_text()
    kept = text.split("[tables.view_grants]")[0].replace("server_options", "# server_options")
    (copied.root / "federation.toml").write_text(kept)
    for drift in ("policy added", "policy dropped", "link role's privilege added"):
        change(copied, MENDED[drift].on("hospital_patients"))
    for drift in ("server option changed", "privilege of the denied role", "privilege taken away"):
        change(copied, MENDED[drift].on("hospital_patients"))
    assert check(copied.config) == []
    (copied.root / "federation.toml").write_text(
        kept.replace("# server_options", "server_options")
        .replace('fetch_size = "2000", use_remote_estimate = "false"', "")
        .replace("[tables]\n", "[tables]\npolicies = []\nview_grants = {}\nlink_grants = {}\n")
    )
    found = check(copied.config)
    assert {(item.side, item.mark, item.what) for item in found} >= {
        ("local", "-", "policy"),
        ("cloud", "-", "grant"),
        ("cloud", "~", "foreign server"),
    }
    assert not {item.what for item in found} & {"rls view", "row level security"}


ARCHIVE = """import sqlalchemy as sa
from versions.models import metadata as exported

metadata = sa.MetaData()
for table in exported.tables.values():
    table.to_metadata(metadata)
columns = sa.Column("id", sa.Integer, primary_key=True), sa.Column("status", sa.String(20), server_default="old")
sa.Table("hospital_queues", metadata, *columns, schema="archive")
"""


def test_a_table_of_another_schema_is_compared_with_itself(copied: Deployment) -> None:
    """It has the name of an exported one, and a column of that name which differs."""
    (copied.root / "archived.py").write_text(ARCHIVE)
    edit(copied, ("versions.models:metadata", "archived:metadata"))
    there = "CREATE TABLE archive.hospital_queues (id int PRIMARY KEY, status varchar(20) DEFAULT 'old')"
    change(copied, Drift("local", f"CREATE SCHEMA archive; {there}", []))
    assert copied.alembic("local", "check").returncode == 0
    changed = "ALTER status TYPE varchar(30), ALTER status SET DEFAULT 'new'"
    change(copied, Drift("local", f"ALTER TABLE archive.hospital_queues {changed}", []))
    result = copied.alembic("local", "check")
    assert "modify_type" in result.stdout
    assert "modify_default" in result.stdout


MOOD = """import sqlalchemy as sa
from versions.models import metadata as exported

metadata = sa.MetaData()
for table in exported.tables.values():
    table.to_metadata(metadata)
metadata.tables["hospital_queues"].c.status.type = sa.Enum("pending", name="mood", schema="other")
"""


def test_a_type_is_looked_for_in_its_schema(copied: Deployment) -> None:
    (copied.root / "moody.py").write_text(MOOD)
    edit(copied, ("versions.models:metadata", "moody:metadata"))
    for side in ("local", "cloud"):
        change(copied, Drift(side, "CREATE SCHEMA other; CREATE TYPE public.mood AS ENUM ('pending')", []))
    missing = [("local", "+", "other.mood"), ("cloud", "+", "other.mood")]
    assert [(item.side, item.mark, item.name) for item in check(copied.config) if item.what == "type"] == missing
    for side in ("local", "cloud"):
        change(copied, Drift(side, "CREATE TYPE other.mood AS ENUM ('pending')", []))
    assert not [item for item in check(copied.config) if item.what == "type"]


VISITS = """
visits = sa.Table(
    "visits",
    metadata,
    _id(),
    sa.Column("hospital_id", sa.Uuid(), nullable=False),
    sa.Column("kind", sa.Enum("visit", "surgery", name="visit_kind", schema="public"), server_default="visit"),
    sa.Column("steps", sa.ARRAY(sa.Enum("seen", "paid", name="visit_step"))),
    sa.PrimaryKeyConstraint("id", name="visits_pkey"),
)
"""


@pytest.fixture
def visited(declaring: Deployment) -> Deployment:
    """With a table that has an enum and an array of another, made by a release."""
    models = declaring.root / "versions" / "models.py"
    models.write_text(models.read_text() + VISITS)
    edit(declaring, ("exported = [", 'exported = ["visits", '))
    revision(declaring.config, "visits", autogenerate=True)
    upgrade(declaring.config)
    return declaring


def redeclare(deployment: Deployment, *pairs: tuple[str, str]) -> None:
    """Change versions/models.py, which something has imported."""
    models = deployment.root / "versions" / "models.py"
    text = models.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    models.write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "versions"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def labels(deployment: Deployment, side: str, enum: str) -> list[str]:
    with deployment.owner(side) as owner:
        ((found,),) = owner.execute("SELECT enum_range(NULL::" + enum + ")::text[]").fetchall()  # type: ignore[call-overload]
    return list(found)


def test_a_label_that_the_hospital_alone_has_is_found_and_declaring_it_adds_it_in_the_cloud(
    visited: Deployment,
) -> None:
    change(visited, Drift("local", "ALTER TYPE visit_kind ADD VALUE 'phone call'", []))
    visited.load({"visits": [{"kind": "phone call"}]})
    read = "SELECT kind::text FROM visits"
    with visited.as_user() as caller, pytest.raises(psycopg.errors.InvalidTextRepresentation):
        caller.execute(read)
    surplus = ("local", "~", "enum", "public.visit_kind", "has 'phone call', which is not declared: declare it")
    assert_found(visited, Drift("local", "", [surplus]))
    redeclare(visited, ('"surgery"', '"surgery", "phone call"'))
    assert_found(visited, Drift("cloud", "", [("cloud", "+", "enum value", "public.visit_kind", "phone call")]))
    (written,) = revision(visited.config, "phone calls", autogenerate=True)
    assert written.phase == "expand"
    upgrade(visited.config)
    assert check(visited.config) == []
    with visited.as_user() as caller:
        assert caller.execute(read).fetchall() == [("phone call",)]


def test_declared_labels_are_added_on_both_sides_where_they_belong_up_down_and_up(visited: Deployment) -> None:
    redeclare(visited, ('"visit", "surgery"', '"call", "visit", "it\'s", "surgery", "last"'), ('"paid"', '"paid", "%"'))
    added = [("public.visit_kind", "call"), ("public.visit_kind", "it's"), ("public.visit_kind", "last")]
    rows = [(side, "+", "enum value", *row) for side in ("local", "cloud") for row in [*added, ("visit_step", "%")]]
    assert_found(visited, Drift("local", "", rows))
    revision(visited.config, "labels", autogenerate=True)
    upgrade(visited.config)
    assert check(visited.config) == []
    downgrade(visited.config, "0005")
    upgrade(visited.config)
    assert check(visited.config) == []
    for side in ("local", "cloud"):
        assert labels(visited, side, "visit_kind") == ["call", "visit", "it's", "surgery", "last"]
    with visited.as_user() as caller:
        insert = "INSERT INTO visits (hospital_id, kind, steps) VALUES (%s, 'it''s', '{seen,%%}') RETURNING kind::text"
        assert caller.execute(insert, [SITE_ID]).fetchall() == [("it's",)]
    downgrade(visited.config, "base")
    assert labels_are_gone(visited)


def labels_are_gone(deployment: Deployment) -> bool:
    """With the types that had them."""
    query = "SELECT to_regtype('public.visit_kind') IS NULL"
    return all(deployment.look(side, query) == [(True,)] for side in ("local", "cloud"))


@pytest.mark.parametrize(
    ("side", "statement", "words"),
    [
        ("cloud", "ALTER TYPE visit_kind ADD VALUE 'x'", "has 'x', which is not declared: declare it"),
        (
            "local",
            "ALTER TYPE visit_kind RENAME VALUE 'surgery' TO 'operation'",
            "has 'operation', which is not declared and lacks 'surgery': ALTER TYPE public.visit_kind RENAME VALUE",
        ),
        (
            "cloud",
            "ALTER TYPE visit_kind RENAME TO old; CREATE TYPE visit_kind AS ENUM ('surgery', 'visit'); "
            "ALTER FOREIGN TABLE federation_link.visits ALTER kind TYPE visit_kind",
            "has them in the order 'surgery', 'visit', and declared is 'visit', 'surgery': declare",
        ),
    ],
    ids=["surplus", "renamed", "in another order"],
)
def test_labels_that_a_release_cannot_mend_are_reported(
    visited: Deployment, side: str, statement: str, words: str
) -> None:
    if "FOREIGN" in statement:
        with visited.owner("cloud") as owner:
            owner.execute("DROP VIEW visits")
    change(visited, Drift(side, statement, []))
    found = [item for item in check(visited.config) if item.what == "enum"]
    assert [(item.side, item.mark, item.name) for item in found] == [(side, "~", "public.visit_kind")]
    assert words in found[0].detail


def test_a_default_of_a_label_that_no_release_has_added_yet_is_refused(visited: Deployment) -> None:
    redeclare(visited, ('"surgery"', '"surgery", "call"'), ('server_default="visit"', 'server_default="call"'))
    with pytest.raises(Refused, match=r'invalid input value for enum visit_kind: "call".*add the label first'):
        check(visited.config)
