"""A release that is whole and does not keep what it promises is a failed one; one that keeps it is not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import chains_of_three as three
import psycopg
import pytest
from runs import GATE, add_note, at, catalogs, gate, joined, mark, rewrite, until, waiting
from sqlalchemy import event
from sqlalchemy.engine import Engine

from federation import verification
from federation.databases import connect
from federation.errors import ReleasesDiffer, VerificationFailed
from federation.lockstep import downgrade, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments


@pytest.fixture
def second(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the second of them, with a row of the site's."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        add_note(deployment, text="x")
        yield deployment


def sql(*statements: str) -> str:
    return joined(*(f"op.execute({statement!r})" for statement in statements))


@dataclass(frozen=True)
class Release:
    """What release 0003 does and undoes on each side, and what its verification says."""

    says: str
    local: tuple[str, str] = ("pass", "pass")
    cloud: tuple[str, str] = ("pass", "pass")

    def write(self, deployment: Deployment) -> None:
        rewrite(deployment, {"local": {"0003": self.local}, "cloud": {"0003": self.cloud}})


def view(predicate: str) -> str:
    """The view of release 0002, with another predicate."""
    return three.NOTE.format(more=', "text"').replace("site = (SELECT federation.bind_claims())", predicate)


WAS = view("site = (SELECT federation.bind_claims())")


def replaced(predicate: str) -> tuple[str, str]:
    return (
        f"op.replace_rls_view({view(predicate)}, was={WAS})",
        f"op.replace_rls_view({WAS}, was={view(predicate)})",
    )


FAILING = {
    "a column that the hospital has dropped": Release(
        "local: 0003: the foreign table's column public.note.text is missing", local=three.LOCAL["0002"][::-1]
    ),
    "a column of another type": Release(
        "local: 0003: column public.note.text is character varying(9), and text in the cloud",
        local=(sql("ALTER TABLE note ALTER text TYPE varchar(9)"), sql("ALTER TABLE note ALTER text TYPE text")),
    ),
    "a column that may no longer be NULL": Release(
        "local: 0003: column public.note.text is text NOT NULL, and text in the cloud",
        local=(sql("ALTER TABLE note ALTER text SET NOT NULL"), sql("ALTER TABLE note ALTER text DROP NOT NULL")),
    ),
    "a view that the hospital does not let anyone read": Release(
        "cloud: 0003: view public.note cannot be read as authenticated (a privilege is missing (permission denied for "
        "table note))",
        local=('op.revoke(("SELECT",), "note", from_=(LINK,))', 'op.grant(("SELECT",), "note", to=(LINK,))'),
    ),
    "a view that may not call what it needs": Release(
        "cloud: 0003: view public.note cannot be read as authenticated",
        cloud=(
            sql("REVOKE EXECUTE ON FUNCTION federation.bind_claims() FROM authenticated"),
            sql("GRANT EXECUTE ON FUNCTION federation.bind_claims() TO authenticated"),
        ),
    ),
    "a view that is read as its owner": Release(
        "cloud: 0003: view public.note is not security_invoker",
        cloud=(
            sql("ALTER VIEW note SET (security_invoker = false)"),
            sql(
                "ALTER VIEW note RESET (security_invoker, check_option)",
                "ALTER VIEW note SET (security_invoker = true, check_option = cascaded)",
            ),
        ),
    ),
    "a view over the view that is read as its owner": Release(
        "cloud: 0003: view public.notes is not security_invoker",
        cloud=(
            sql("CREATE VIEW notes AS SELECT id FROM note", "REVOKE ALL ON notes FROM anon"),
            sql("DROP VIEW notes"),
        ),
    ),
    "a hospital's view that is read as its owner": Release(
        "local: 0003: view public.everything is not security_invoker",
        local=(
            sql("CREATE VIEW everything AS SELECT * FROM note", "GRANT SELECT ON everything TO federation_link"),
            sql("DROP VIEW everything"),
        ),
        cloud=(
            sql(
                "ALTER FOREIGN TABLE federation_link.note OPTIONS (SET table_name 'everything')",
                "ALTER FOREIGN TABLE federation_link.note ALTER id DROP NOT NULL, ALTER site DROP NOT NULL",
            ),
            sql(
                "ALTER FOREIGN TABLE federation_link.note ALTER id SET NOT NULL, ALTER site SET NOT NULL",
                "ALTER FOREIGN TABLE federation_link.note OPTIONS (SET table_name 'note')",
            ),
        ),
    ),
    "a mapping that leads callers to the service role": Release(
        "cloud: 0003: server hospital takes callers to the hospital as federation_service, not federation_link",
        cloud=(
            sql("ALTER USER MAPPING FOR public SERVER hospital OPTIONS (SET user 'federation_service')"),
            sql("ALTER USER MAPPING FOR public SERVER hospital OPTIONS (SET user 'federation_link')"),
        ),
    ),
    "a mapping of the callers' own": Release(
        "cloud: 0003: authenticated has a user mapping of its own for server hospital",
        cloud=(
            sql("CREATE USER MAPPING FOR authenticated SERVER hospital OPTIONS (user 'federation_service')"),
            sql("DROP USER MAPPING FOR authenticated SERVER hospital"),
        ),
    ),
    "a view that leaves out what is admitted": Release(
        "cloud: 0003: view public.note shows none of the rows that the hospital's policies admit",
        cloud=replaced("false AND site = (SELECT federation.bind_claims())"),
    ),
    "a write that the hospital does not grant": Release(
        "cloud: 0003: view public.note cannot be written as authenticated",
        cloud=(
            sql("GRANT UPDATE ON note, federation_link.note TO authenticated"),
            sql("REVOKE UPDATE ON note, federation_link.note FROM authenticated"),
        ),
    ),
    "a trigger that writes to a table whose policies refuse it": Release(
        "cloud: 0003: view public.note cannot be written as authenticated (a privilege is missing (new row violates "
        'row-level security policy for table "audit"))',
        local=(
            sql(
                "CREATE TABLE audit (id uuid)",
                "ALTER TABLE audit ENABLE ROW LEVEL SECURITY",
                "CREATE FUNCTION note_taken() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN INSERT INTO public.audit VALUES (new.id); RETURN NULL; END'",
                "CREATE TRIGGER audit AFTER UPDATE ON note FOR EACH ROW EXECUTE FUNCTION note_taken()",
                "GRANT INSERT ON audit TO federation_link",
                "GRANT UPDATE ON note TO federation_link",
            ),
            sql(
                "REVOKE UPDATE ON note FROM federation_link",
                "DROP TRIGGER audit ON note",
                "DROP FUNCTION note_taken()",
                "DROP TABLE audit",
            ),
        ),
        cloud=(
            sql("GRANT UPDATE ON note, federation_link.note TO authenticated"),
            sql("REVOKE UPDATE ON note, federation_link.note FROM authenticated"),
        ),
    ),
    "a privilege for anon": Release(
        "cloud: 0003: anon has privileges on public.note",
        cloud=(sql("GRANT INSERT ON note TO anon"), sql("REVOKE INSERT ON note FROM anon")),
    ),
    "a privilege for anon on one column": Release(
        "cloud: 0003: anon has privileges on public.note",
        cloud=(sql("GRANT SELECT (id) ON note TO anon"), sql("REVOKE SELECT (id) ON note FROM anon")),
    ),
    "a privilege for everyone on the foreign table": Release(
        "cloud: 0003: anon has privileges on federation_link.note",
        cloud=(
            sql("GRANT SELECT ON federation_link.note TO PUBLIC"),
            sql("REVOKE SELECT ON federation_link.note FROM PUBLIC"),
        ),
    ),
}


def expect_failure(deployment: Deployment, says: str) -> None:
    before = catalogs(deployment)
    with pytest.raises(VerificationFailed) as raised:
        upgrade(deployment.config)
    assert str(raised.value).startswith(says)
    assert "; both databases are at 0002" in raised.value.message
    assert at(deployment) == ("0002", "0002")
    assert mark(deployment) == "0002"
    assert catalogs(deployment) == before


@pytest.mark.parametrize("what", FAILING)
def test_a_whole_release_that_fails_verification_is_undone_on_both_sides(second: Deployment, what: str) -> None:
    FAILING[what].write(second)
    expect_failure(second, FAILING[what].says)


def test_a_link_role_that_row_level_security_does_not_hold_back_shows_rows_that_the_policies_refuse(
    second: Deployment,
) -> None:
    """Checked before a run, so it happens in the middle of this one."""
    superuser = f"with __import__('psycopg').connect({second.superuser_url('local')!r}, autocommit=True) as it: it"
    policy = 'op.drop_policy("own", "note")', 'op.create_policy("own", "note", using={!r})'
    Release(
        "",
        local=(
            joined(policy[0], policy[1].format("false")),
            joined(policy[0], policy[1].format("(SELECT auth.uid()) = site")),
        ),
        cloud=(f"{superuser}.execute('ALTER ROLE federation_link BYPASSRLS')", "pass"),
    ).write(second)
    try:
        expect_failure(second, "cloud: 0003: view public.note shows rows that the hospital's policies refuse")
    finally:
        with second.superuser("local") as connection:
            connection.execute("ALTER ROLE federation_link NOBYPASSRLS")


def test_on_failure_stop_leaves_the_release_and_says_so(second: Deployment) -> None:
    FAILING["a privilege for anon"].write(second)
    result = second.federation("upgrade", "--on-failure=stop")
    assert result.returncode == 7
    assert "anon has privileges on public.note; both databases are at 0003" in result.stderr
    assert at(second) == ("0003", "0003")


def test_on_the_way_down_a_failure_is_said_and_stops_nobody(second: Deployment) -> None:
    unreadable = FAILING["a view that the hospital does not let anyone read"].local
    Release("", local=unreadable[::-1]).write(second)
    upgrade(second.config)
    result = second.federation("downgrade", "0002", "--yes")
    assert result.returncode == 0, result.stderr
    assert "view public.note cannot be read as authenticated" in result.stderr
    assert at(second) == ("0002", "0002")


def test_a_release_is_not_undone_for_what_was_broken_before_it_and_the_run_says_so_at_its_end(
    second: Deployment,
) -> None:
    with second.owner("cloud") as owner:
        owner.execute("GRANT SELECT ON note TO anon")
    for _ in range(2):  # the second time there is nothing to do
        result = second.federation("upgrade")
        assert result.returncode == 7, result.stderr
        assert "anon has privileges on public.note; both databases are at 0003 — it was so before" in result.stderr
        assert at(second) == ("0003", "0003")
    with second.owner("cloud") as owner:
        owner.execute("REVOKE SELECT ON note FROM anon")
    assert second.federation("upgrade").returncode == 0


def test_a_view_of_the_apps_own_that_asks_as_its_caller_is_no_way_past(second: Deployment) -> None:
    """Supabase's default privileges give anon every new view; what it reads still refuses them."""
    with second.owner("cloud") as owner:
        owner.execute("CREATE VIEW public.notes WITH (security_invoker) AS SELECT * FROM public.note")
        owner.execute("GRANT SELECT ON public.notes TO anon")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), second.as_user(role="anon") as caller:
        caller.execute("SELECT FROM public.notes")
    result = second.federation("upgrade")
    assert result.returncode == 0, result.stderr
    assert "anon" not in result.stderr


def test_a_release_that_mends_what_was_broken_before_it_ends_well(second: Deployment) -> None:
    with second.owner("cloud") as owner:
        owner.execute("GRANT SELECT ON note TO anon")
    rewrite(second, {"cloud": {"0003": (sql("REVOKE SELECT ON note FROM anon"), "pass")}})
    result = second.federation("upgrade")
    assert result.returncode == 0, result.stderr
    assert at(second) == ("0003", "0003")


def table(name: str, *columns: str, policy: str = 'using="true"', more: str = "") -> tuple[str, str]:
    """The hospital's half: a table that the link may use, with a row."""
    grants = f'op.grant(("SELECT", "INSERT", "UPDATE"), {name!r}, to=(LINK,))'
    return (
        joined(
            f"op.create_table({name!r}, {', '.join(columns)})",
            f"op.enable_row_level_security({name!r})",
            f'op.create_policy("own", {name!r}, {policy})',
            grants,
            *((more,) if more else ()),
        ),
        f"op.drop_table({name!r})",
    )


def seen(
    name: str, columns: dict[str, str], predicate: str = "(SELECT federation.bind_claims()) IS NOT NULL"
) -> tuple[str, str]:
    """The cloud's half: the foreign table and its view, which may be written."""
    declared = ", ".join(f"sa.Column({column!r}, {how})" for column, how in columns.items())
    grants = {"authenticated": ("SELECT", "INSERT", "UPDATE")}
    shown = f"RLSView({name!r}, {tuple(columns)!r}, {predicate!r}, grants={grants!r})"
    foreign = f"tables={{{name!r}: [{declared}]}}"
    return (
        joined(
            f'op.import_foreign_schema("public", server="hospital", into="federation_link", {foreign})',
            f'op.bind_before_write({name!r}, schema="federation_link")',
            f"op.create_rls_view({shown})",
        ),
        joined(f"op.drop_rls_view({shown})", f'op.drop_foreign_tables("federation_link", {name!r})'),
    )


def both(
    name: str, columns: dict[str, str], *, more: str = "", policy: str = 'using="true"', keyed: str = ""
) -> Release:
    """A table of ``columns``, of which the first is its key, and its view."""
    declared = [f"sa.Column({column!r}, {how})" for column, how in columns.items()]
    if keyed:
        declared.append(f"sa.PrimaryKeyConstraint({keyed})")
    return Release("", table(name, *declared, policy=policy, more=more), seen(name, columns))


ODD = """odd "%:n'()s"""

FINE = {
    "a table without rows": both("plain", {"id": "sa.Integer, nullable=False"}, keyed="'id'"),
    "a table without a key": both("plain", {"x": "sa.Text"}, more=sql("INSERT INTO plain VALUES ('a'), ('a')")),
    "odd names": both(
        ODD,
        {'k"%:': "sa.Integer, nullable=False", "v'%%s": "sa.Text"},
        keyed="""'k"%:'""",
        more=sql('INSERT INTO "odd ""%\\:n\'()s" VALUES (1, NULL)'),
    ),
    "a generated column": both(
        "plain",
        {"made": "sa.Integer, sa.Computed('id + 1', persisted=True)", "id": "sa.Integer, nullable=False"},
        keyed="'id'",
        more=sql("INSERT INTO plain (id) VALUES (1)"),
    ),
    "a key that the hospital numbers": both(
        "plain",
        {"id": "sa.BigInteger, sa.Identity()", "name": "sa.Text"},
        keyed="'id'",
        more=sql("INSERT INTO plain (name) VALUES (NULL)"),
    ),
    "a key that the hospital numbers, and nothing besides": both(
        "plain", {"id": "sa.BigInteger, sa.Identity()"}, keyed="'id'", more=sql("INSERT INTO plain VALUES (DEFAULT)")
    ),
    "a key that includes another column": both(
        "plain",
        {"id": "sa.Integer, nullable=False", "name": "sa.Text"},
        more=sql("ALTER TABLE plain ADD PRIMARY KEY (id) INCLUDE (name)", "INSERT INTO plain VALUES (1, NULL)"),
    ),
    "a table that shows its owner no row": both(
        "plain",
        {"id": "sa.Integer, nullable=False"},
        keyed="'id'",
        policy="""using="(SELECT auth.uid()) IS NOT NULL", roles=(LINK,)""",
        more=sql("INSERT INTO plain VALUES (1)", "ALTER TABLE plain FORCE ROW LEVEL SECURITY"),
    ),
    "a policy that asks who is there": both(
        "plain",
        {"id": "sa.Integer, nullable=False"},
        policy="""using="current_user = 'federation_link' AND (SELECT auth.uid()) IS NOT NULL" """,
        more=sql("INSERT INTO plain VALUES (1)"),
    ),
    "a policy that reads another table, which has policies of its own": both(
        "plain",
        {"id": "sa.Integer, nullable=False"},
        policy="""using="NOT EXISTS (SELECT FROM blocked) AND (SELECT auth.uid()) IS NOT NULL" """,
        more=sql("INSERT INTO plain VALUES (1)"),
    ),
    "policies for some roles and some commands": Release(
        "",
        local=(
            joined(
                'op.drop_policy("own", "note")',
                'op.create_policy("theirs", "note", using="true", command="SELECT", roles=(SERVICE,))',
                'op.create_policy("added", "note", with_check="true", command="INSERT")',
            ),
            joined(
                'op.drop_policy("added", "note")',
                'op.drop_policy("theirs", "note")',
                'op.create_policy("own", "note", using="(SELECT auth.uid()) = site")',
            ),
        ),
    ),
    "a policy that does not let the row be written that it shows": both(
        "ledger",  # before note, which is asked and written after it
        {"id": "sa.Integer, nullable=False", "state": "sa.Text"},
        keyed="'id'",
        policy="""using="true", with_check="state <> 'closed'" """,
        more=sql("INSERT INTO ledger VALUES (1, 'closed')"),
    ),
    "a restrictive policy": Release(
        "",
        local=(
            sql("CREATE POLICY never ON note AS RESTRICTIVE USING (text = 'y')"),
            sql("DROP POLICY never ON note"),
        ),
    ),
    "a partitioned table": both(
        "plain",
        {"id": "sa.Integer, nullable=False", "x": "sa.Text"},
        more=sql(
            "DROP TABLE plain",
            "CREATE TABLE plain (id integer PRIMARY KEY, x text) PARTITION BY RANGE (id)",
            "CREATE TABLE plain_1 PARTITION OF plain FOR VALUES FROM (0) TO (9)",
            "ALTER TABLE plain ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY own ON plain USING (true)",
            "GRANT SELECT, INSERT, UPDATE ON plain TO federation_link",
            "INSERT INTO plain VALUES (1)",
        ),
    ),
    "other views over the foreign table, one of them of one row": Release(
        "",
        cloud=(
            sql(
                "CREATE VIEW renamed (site, id) WITH (security_invoker) AS SELECT id, site FROM federation_link.note"
                " WHERE site = (SELECT federation.bind_claims()) AND text = 'y'",
                "CREATE VIEW counted WITH (security_invoker) AS SELECT count(*) FROM federation_link.note"
                " WHERE site = (SELECT federation.bind_claims())",
                "CREATE VIEW through WITH (security_invoker) AS SELECT id FROM note",
                "REVOKE ALL ON renamed, counted, through FROM anon",
            ),
            sql("DROP VIEW through, counted, renamed"),
        ),
    ),
    "a view that only reads": Release(
        "",
        cloud=(
            sql("REVOKE INSERT ON note FROM authenticated"),
            sql("GRANT INSERT ON note TO authenticated"),
        ),
    ),
    "a table without policies": both(
        "plain",
        {"id": "sa.Integer, nullable=False"},
        more=joined(
            sql("ALTER TABLE plain DISABLE ROW LEVEL SECURITY", "INSERT INTO plain VALUES (1)"),
        ),
    ),
}


@pytest.mark.parametrize("what", FINE)
def test_a_release_that_keeps_its_promises_passes(second: Deployment, what: str) -> None:
    with second.owner("local") as owner:
        owner.execute("CREATE TABLE blocked (id integer)")
        owner.execute("INSERT INTO blocked VALUES (1)")
        owner.execute("ALTER TABLE blocked ENABLE ROW LEVEL SECURITY")
        owner.execute("GRANT SELECT ON blocked TO federation_link")
    FINE[what].write(second)
    upgrade(second.config)
    assert at(second) == ("0003", "0003")
    downgrade(second.config, "0002")


def test_a_row_is_found_to_be_written_back_by_a_key_that_cannot_be_written(second: Deployment) -> None:
    columns = {"id": "sa.BigInteger, sa.Identity()", "name": "sa.Text"}
    more = sql("INSERT INTO plain (name) VALUES (NULL)", "REVOKE UPDATE ON plain FROM federation_link")
    both("plain", columns, keyed="'id'", more=more).write(second)
    with pytest.raises(ReleasesDiffer, match=r"view public\.plain cannot be written as authenticated"):
        upgrade(second.config)


def test_the_policies_of_the_role_that_an_account_takes_decide(
    deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = 'callers=("authenticated",)'
    up, down = three.LOCAL["0001"]
    up = up.replace('op.create_local_binding("v1")', f'op.create_local_binding("v1", {callers})')
    up = up.replace('= site")', '= site", roles=("authenticated",))')
    up = joined(up, 'op.grant(("SELECT", "INSERT"), "note", to=("authenticated",))')
    down = down.replace('op.drop_local_binding("v1")', f'op.drop_local_binding("v1", {callers})')
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        first = {"local": {"0001": (up, down)}}
        rewrite(deployment, first)
        upgrade(deployment.config, "0002")
        add_note(deployment, text="x")
        release = FAILING["a view that leaves out what is admitted"]
        rewrite(deployment, {"local": {**first["local"], "0003": release.local}, "cloud": {"0003": release.cloud}})
        expect_failure(deployment, release.says)
        rewrite(deployment, first)
        upgrade(deployment.config)


@pytest.mark.parametrize("looks", [3, 1])
def test_a_row_that_the_app_writes_between_the_two_answers_is_no_failure(
    second: Deployment, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """The control looks once."""
    monkeypatch.setattr(verification, "_LOOKS", looks)
    with second.owner("local") as owner:
        owner.execute("DELETE FROM note")
    with second.owner("cloud") as owner:
        owner.execute(
            "CREATE FUNCTION federation.at_the_gate() RETURNS boolean LANGUAGE sql VOLATILE "
            f"AS 'SELECT pg_advisory_xact_lock_shared({GATE}) IS NOT NULL'"
        )
    Release("", cloud=replaced("(SELECT federation.at_the_gate()) AND site = (SELECT federation.bind_claims())")).write(
        second
    )
    upgrade(second.config)
    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        sessions = {side: stack.enter_context(connect(second.config, side)) for side in ("local", "cloud")}
        with gate(second, "cloud"):
            verified = thread.submit(verification.verify, second.config, sessions)  # type: ignore[arg-type]
            until(lambda: verified.done() or waiting(second, "cloud", lock="advisory"), "the view is not read")
            add_note(second, text="x")
        if looks == 1:
            with pytest.raises(VerificationFailed, match="shows rows"):
                verified.result()
        else:
            verified.result()


def test_a_caller_whom_the_hospital_does_not_list_is_looked_at_too(second: Deployment) -> None:
    """The site's own account is shown what it should be shown; a stranger is named to the hospital as the site."""
    name = "federation_private.send(boolean, boolean)"
    ((send,),) = second.look("cloud", f"SELECT pg_get_functiondef('{name}'::regprocedure)")
    site = "(SELECT s.id FROM federation_private.site AS s)"
    for was, becomes in (("b.sub = nobody", f"b.sub = {site}"), ("CASE WHEN current_setting(", "CASE WHEN true OR (")):
        assert send.count(was) == 1
        send = send.replace(was, becomes)
    second.look("cloud", send.replace("OR ('federation.listed', true)", "OR ('true')"))
    with second.as_user("00000000-0000-0000-0000-0000000000ff") as stranger:
        assert stranger.execute("SELECT text FROM note").fetchall() == [("x",)], "the control: what a stranger is shown"
    with pytest.raises(VerificationFailed, match=r"view public\.note shows rows that the hospital's policies refuse"):
        upgrade(second.config, "0002")


@pytest.mark.parametrize("differing", [2, 3])
def test_what_differs_twice_and_not_a_third_time_is_no_failure(second: Deployment, differing: int) -> None:
    """The app writes between the two answers of a look, and takes the row away before the next look."""
    upgrade(second.config, "0002")
    looks = 0

    def between(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal looks
        if statement.startswith('SELECT EXISTS (SELECT FROM "public"."note" WHERE'):  # the hospital is asked
            second.look("local", "DELETE FROM note")
        elif statement.startswith('SELECT EXISTS (SELECT FROM "public"."note")') and looks < differing:
            looks += 1
            add_note(second, text="x")

    event.listen(Engine, "before_cursor_execute", between)
    try:
        with ExitStack() as stack:
            sessions = {side: stack.enter_context(connect(second.config, side)) for side in ("local", "cloud")}
            if differing == 2:
                verification.verify(second.config, sessions)  # type: ignore[arg-type]
            else:
                with pytest.raises(VerificationFailed, match="shows rows"):
                    verification.verify(second.config, sessions)  # type: ignore[arg-type]
    finally:
        event.remove(Engine, "before_cursor_execute", between)
    assert looks == differing
