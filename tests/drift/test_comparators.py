"""One thing changed behind the toolkit's back is found, exactly that, and a release written by autogenerate mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from deployments import copy_root

from federation.drift.check import check
from federation.lockstep import downgrade, upgrade
from federation.scaffold import revision

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment

PATIENTS, LINKED = "public.hospital_patients", "federation_link.hospital_patients"
COLUMNS = (
    "id, hospital_id, name, age, token_number, created_at, father_husband_name, place, phone, mr_number, "
    "linked_user_id, beanhealth_id"
)
BOUND = "hospital_id = (SELECT federation.bind_claims())"
OPTIONS = "WITH (security_invoker = true, check_option = cascaded)"
OWN = "(SELECT auth.uid()) = hospital_id"


@dataclass
class Drift:
    """A change of one side by its owner, and what check says of it: (side, mark, what, name, words of the detail)."""

    side: str
    change: str
    found: list[tuple[str, str, str, str, str]]
    undone: bool = True
    """Whether the release that mends it can be undone: it cannot where the hospital never had such a column."""


def _view(columns: str = COLUMNS, where: str = BOUND, options: str = OPTIONS, verb: str = "CREATE OR REPLACE") -> str:
    return f"{verb} VIEW {PATIENTS} {options} AS SELECT {columns} FROM {LINKED} WHERE {where}"


def _default_privileges(*more: tuple[str, str, str, str, str]) -> list[tuple[str, str, str, str, str]]:
    """What a view made by hand has on Supabase, and this toolkit takes away."""
    return [*more, *(("cloud", "-", "grant", PATIENTS, role) for role in ("anon", "authenticated", "service_role"))]


SERVER, MAPPING, TRIGGER = "ALTER SERVER hospital OPTIONS", "USER MAPPING FOR", "TRIGGER bind_before_write"
ALTER_FOREIGN, ALTER_LOCAL = f"ALTER FOREIGN TABLE {LINKED}", "ALTER TABLE hospital_patients"
POLICY = "POLICY own_rows ON hospital_patients"

MENDED = {
    "server option changed": Drift(
        "cloud", f"{SERVER} (SET fetch_size '7')", [("cloud", "~", "foreign server", "hospital", "fetch_size=1000")]
    ),
    "server option dropped": Drift(
        "cloud",
        f"{SERVER} (DROP use_remote_estimate)",
        [("cloud", "~", "foreign server", "hospital", "use_remote_estimate=false")],
    ),
    "server option added": Drift(
        "cloud",
        f"{SERVER} (ADD fdw_tuple_cost '0.2')",
        [("cloud", "~", "foreign server", "hospital", "fdw_tuple_cost")],
    ),
    "mapping dropped": Drift(
        "cloud",
        f"DROP {MAPPING} service_role SERVER hospital",
        [("cloud", "+", "user mapping", "service_role", "SERVICE")],
    ),
    "foreign column dropped with its view": Drift(
        "cloud",
        f"DROP VIEW {PATIENTS}; {ALTER_FOREIGN} DROP phone",
        [("cloud", "+", "foreign column", f"{LINKED}.phone", ""), ("cloud", "+", "rls view", PATIENTS, "")],
    ),
    "foreign column added": Drift(
        "cloud",
        f"{ALTER_FOREIGN} ADD nickname text",
        [("cloud", "-", "foreign column", f"{LINKED}.nickname", "")],
        undone=False,
    ),
    "foreign column's nullability changed": Drift(
        "cloud", f"{ALTER_FOREIGN} ALTER phone SET NOT NULL", [("cloud", "~", "foreign column", f"{LINKED}.phone", "")]
    ),
    "foreign column retyped without its view": Drift(
        "cloud",
        f"DROP VIEW {PATIENTS}; {ALTER_FOREIGN} ALTER age TYPE bigint",
        [("cloud", "~", "foreign column", f"{LINKED}.age", ""), ("cloud", "+", "rls view", PATIENTS, "")],
    ),
    "foreign column retyped under its view": Drift(
        "cloud",
        f"DROP VIEW {PATIENTS}; {ALTER_FOREIGN} ALTER age TYPE bigint; {_view()}; "
        f"ALTER VIEW {PATIENTS} ALTER id SET DEFAULT gen_random_uuid(), "
        f"ALTER created_at SET DEFAULT timezone('utc', now()); REVOKE ALL ON {PATIENTS} FROM anon; "
        f"REVOKE TRUNCATE, REFERENCES, TRIGGER ON {PATIENTS} FROM authenticated, service_role",
        [("cloud", "~", "foreign column", f"{LINKED}.age", "")],
    ),
    "trigger dropped": Drift(
        "cloud", f"DROP {TRIGGER} ON {LINKED}", [("cloud", "+", "trigger", f"{LINKED}.bind_before_write", "")]
    ),
    "statistics target changed": Drift(
        "cloud", f"{ALTER_FOREIGN} ALTER name SET STATISTICS -1", [("cloud", "~", "statistics target", LINKED, "name")]
    ),
    "statistics target raised": Drift(
        "cloud", f"{ALTER_FOREIGN} ALTER name SET STATISTICS 9", [("cloud", "~", "statistics target", LINKED, "name")]
    ),
    "view dropped": Drift("cloud", f"DROP VIEW {PATIENTS}", [("cloud", "+", "rls view", PATIENTS, "")]),
    "view's body changed": Drift("cloud", _view(where="true"), [("cloud", "~", "rls view", PATIENTS, "body")]),
    "view's predicate dropped with its options": Drift(
        "cloud",
        f"CREATE OR REPLACE VIEW {PATIENTS} AS SELECT {COLUMNS} FROM {LINKED}",
        [("cloud", "~", "rls view", PATIENTS, "body, options")],
    ),
    "view replaced without WITH": Drift("cloud", _view(options=""), [("cloud", "~", "rls view", PATIENTS, "options")]),
    "check option lost": Drift(
        "cloud", f"ALTER VIEW {PATIENTS} RESET (check_option)", [("cloud", "~", "rls view", PATIENTS, "options")]
    ),
    "default dropped": Drift(
        "cloud",
        "ALTER VIEW public.hospital_queues ALTER status DROP DEFAULT",
        [("cloud", "~", "rls view", "public.hospital_queues", "defaults")],
    ),
    "default changed": Drift(
        "cloud",
        "ALTER VIEW public.hospital_queues ALTER status SET DEFAULT 'done'",
        [("cloud", "~", "rls view", "public.hospital_queues", "defaults")],
    ),
    "default added": Drift(
        "cloud",
        f"ALTER VIEW {PATIENTS} ALTER phone SET DEFAULT 'none'",
        [("cloud", "~", "rls view", PATIENTS, "defaults")],
    ),
    "view made by hand with fewer columns": Drift(
        "cloud",
        f"DROP VIEW {PATIENTS}; {_view('id, hospital_id, name')}",
        _default_privileges(("cloud", "~", "rls view", PATIENTS, "columns, defaults")),
    ),
    "privilege of the denied role": Drift(
        "cloud", f"GRANT SELECT ON {PATIENTS} TO anon", [("cloud", "-", "grant", PATIENTS, "SELECT from anon")]
    ),
    "privilege of everyone": Drift(
        "cloud", f"GRANT SELECT ON {PATIENTS} TO PUBLIC", [("cloud", "-", "grant", PATIENTS, "SELECT from public")]
    ),
    "privilege on one column": Drift(
        "cloud", f"GRANT SELECT (name) ON {PATIENTS} TO anon", [("cloud", "-", "grant", PATIENTS, "SELECT from anon")]
    ),
    "privilege on the foreign table": Drift(
        "cloud", f"GRANT SELECT ON {LINKED} TO anon", [("cloud", "-", "grant", LINKED, "SELECT from anon")]
    ),
    "privilege taken away": Drift(
        "cloud",
        f"REVOKE UPDATE ON {PATIENTS} FROM authenticated",
        [("cloud", "+", "grant", PATIENTS, "UPDATE to authenticated")],
    ),
    "policy dropped": Drift("local", f"DROP {POLICY}", [("local", "+", "policy", f"{PATIENTS}.own_rows", "")]),
    "policy's expression changed": Drift(
        "local", f"ALTER {POLICY} USING (true)", [("local", "~", "policy", f"{PATIENTS}.own_rows", "")]
    ),
    "policy's check added": Drift(
        "local", f"ALTER {POLICY} WITH CHECK (true)", [("local", "~", "policy", f"{PATIENTS}.own_rows", "")]
    ),
    "policy's roles changed": Drift(
        "local", f"ALTER {POLICY} TO federation_link", [("local", "~", "policy", f"{PATIENTS}.own_rows", "")]
    ),
    "policy's command changed": Drift(
        "local",
        f"DROP {POLICY}; CREATE {POLICY} FOR SELECT USING ({OWN})",
        [("local", mark, "policy", f"{PATIENTS}.own_rows", "") for mark in "-+"],
    ),
    "policy restrictive": Drift(
        "local",
        f"DROP {POLICY}; CREATE {POLICY} AS RESTRICTIVE USING ({OWN})",
        [("local", mark, "policy", f"{PATIENTS}.own_rows", "") for mark in "-+"],
    ),
    "policy added": Drift(
        "local",
        "CREATE POLICY everyone ON hospital_patients USING (true)",
        [("local", "-", "policy", f"{PATIENTS}.everyone", "")],
    ),
    "row-level security off": Drift(
        "local", f"{ALTER_LOCAL} DISABLE ROW LEVEL SECURITY", [("local", "+", "row level security", PATIENTS, "")]
    ),
    "link role's privilege taken away": Drift(
        "local",
        "REVOKE UPDATE ON hospital_patients FROM federation_link",
        [("local", "+", "grant", PATIENTS, "UPDATE to LINK")],
    ),
    "link role's privilege added": Drift(
        "local",
        "GRANT TRUNCATE ON hospital_patients TO federation_service",
        [("local", "-", "grant", PATIENTS, "TRUNCATE from SERVICE")],
    ),
    "link role's privilege through PUBLIC": Drift(
        "local",
        "GRANT TRUNCATE ON hospital_patients TO PUBLIC",
        [("local", "-", "grant", PATIENTS, "TRUNCATE from public")],
    ),
    "hospital's column retyped": Drift(
        "local",
        f"{ALTER_LOCAL} ALTER age TYPE bigint",
        [
            ("local", "~", "column", "hospital_patients.age", "type is BIGINT and should be INTEGER"),
            ("cloud", "~", "hospital's column", "hospital_patients.age", "is bigint there and integer in the cloud"),
        ],
    ),
    "hospital's column nullable": Drift(
        "local",
        f"{ALTER_LOCAL} ALTER name DROP NOT NULL",
        [
            ("local", "~", "column", "hospital_patients.name", "nullable is True and should be False"),
            ("cloud", "~", "hospital's column", "hospital_patients.name", "is text there and text NOT NULL"),
        ],
    ),
}
"""What a release can mend."""

REPORTED = {
    "hospital's column renamed": Drift(
        "local",
        f"{ALTER_LOCAL} RENAME place TO town",
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
    "trigger disabled": Drift(
        "cloud",
        f"{ALTER_FOREIGN} DISABLE {TRIGGER}",
        [("cloud", "~", "trigger", f"{LINKED}.bind_before_write", "is disabled")],
    ),
}
"""What no release can mend: the way out is named."""

LEFT_ALONE = {
    "the app's own objects": Drift(
        "cloud",
        "CREATE TABLE public.ward (id int); CREATE TABLE federation_link.ward (id int); "
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
        "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw; CREATE USER MAPPING FOR anon SERVER other; "
        f"CREATE VIEW public.names AS SELECT name FROM {PATIENTS}",
        [],
    ),
    "privileges of a role that is not named": Drift("cloud", f"GRANT SELECT ON {PATIENTS} TO authenticator", []),
    "comment, where none is declared": Drift("cloud", f"COMMENT ON VIEW {PATIENTS} IS 'ours'", []),
    "the hospital's own objects": Drift(
        "local",
        "CREATE TABLE ward (id int); ALTER TABLE ward ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY p ON ward USING (true); CREATE VIEW names AS SELECT name FROM hospital_patients; "
        "GRANT SELECT ON ward TO PUBLIC",
        [],
    ),
    "privileges of the hospital's own roles": Drift("local", "GRANT SELECT ON hospital_patients TO pg_monitor", []),
}


def change(deployment: Deployment, drift: Drift) -> None:
    with deployment.owner(drift.side) as owner:
        owner.execute(drift.change)  # type: ignore[call-overload]


def assert_found(deployment: Deployment, drift: Drift) -> None:
    found = check(deployment.config)
    assert [(item.side, item.mark, item.what, item.name) for item in found] == [row[:4] for row in drift.found], found
    for item, (*_, words) in zip(found, drift.found, strict=True):
        assert words in item.detail
    passwords = [value for name, value in deployment.environ.items() if name.endswith("_PASSWORD")]
    assert not any(secret in str(found) for secret in ("hush-hush", *passwords))


@pytest.fixture
def copied(federated: Deployment, tmp_path: Path) -> Deployment:
    """At head, in a folder of its own, to which releases may be added."""
    federated.root = copy_root(tmp_path)
    return federated


@pytest.mark.parametrize("drift", MENDED.values(), ids=MENDED)
def test_what_differs_is_found_and_the_release_that_autogenerate_writes_mends_it(
    copied: Deployment, drift: Drift
) -> None:
    change(copied, drift)
    assert_found(copied, drift)
    written = revision(copied.config, "mend", autogenerate=True)
    assert len(written) == 1
    upgrade(copied.config)
    assert check(copied.config) == []
    if drift.undone:
        downgrade(copied.config, "0004")
        upgrade(copied.config)
        assert check(copied.config) == []


@pytest.mark.parametrize("drift", REPORTED.values(), ids=REPORTED)
def test_what_no_release_can_mend_is_found(federated: Deployment, drift: Drift) -> None:
    change(federated, drift)
    assert_found(federated, drift)


@pytest.mark.parametrize("drift", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_nobody_declared_is_left_alone(federated: Deployment, drift: Drift) -> None:
    change(federated, drift)
    assert check(federated.config) == []


@pytest.mark.parametrize(
    "drift",
    [
        REPORTED["hospital's column renamed"],
        MENDED["hospital's column retyped"],
        MENDED["hospital's column nullable"],
    ],
    ids=["renamed", "retyped", "nullable"],
)
def test_a_changed_column_at_the_hospital_is_found_although_count_works(federated: Deployment, drift: Drift) -> None:
    change(federated, drift)
    with federated.as_user(read_only=True) as caller:
        assert caller.execute("SELECT count(*) FROM hospital_patients").fetchone() == (0,)
    assert "hospital's column" in {item.what for item in check(federated.config) if item.side == "cloud"}


def test_a_surplus_column_at_the_hospital_makes_no_difference_to_the_cloud(federated: Deployment) -> None:
    change(federated, Drift("local", f"{ALTER_LOCAL} ADD nickname text", []))
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
    assert (found.side, found.mark, found.what, found.name) == ("cloud", "~", "view", PATIENTS)
    assert "belongs to supabase_admin" in found.detail


def test_a_table_in_the_place_of_a_view_is_found_and_not_replaced(federated: Deployment) -> None:
    with federated.owner("cloud") as owner:
        owner.execute("DROP VIEW public.hospital_patients")
        owner.execute("CREATE TABLE public.hospital_patients (id uuid)")
    (found,) = check(federated.config)
    assert (found.mark, found.what, found.name) == ("~", "table", PATIENTS)
    assert "SET SCHEMA" in found.detail


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


def test_what_is_not_in_federation_toml_is_not_managed(copied: Deployment) -> None:
    """Left out is not the same as empty."""
    text = (copied.root / "federation.toml").read_text()
    kept = text.split("[tables.view_grants]")[0].replace("server_options", "# server_options")
    (copied.root / "federation.toml").write_text(kept)
    for drift in ("policy added", "policy dropped", "link role's privilege added"):
        change(copied, MENDED[drift])
    for drift in ("server option changed", "privilege of the denied role", "privilege taken away"):
        change(copied, MENDED[drift])
    assert check(copied.config) == []
    (copied.root / "federation.toml").write_text(
        kept.replace("# server_options", "server_options")
        .replace('fetch_size = "1000", use_remote_estimate = "false"', "")
        .replace("[tables]\n", "[tables]\npolicies = []\nview_grants = {}\nlink_grants = {}\n")
    )
    found = check(copied.config)
    assert {(item.side, item.mark, item.what) for item in found} >= {
        ("local", "-", "policy"),
        ("cloud", "-", "grant"),
        ("cloud", "~", "foreign server"),
    }
    assert not {item.what for item in found} & {"rls view", "row level security"}
