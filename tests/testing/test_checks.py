"""Each check of a federation passes on the example, and fails where something is wrong, saying what and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from deployments import OTHER

from federation.config import Config
from federation.testing import checks
from federation.testing.callers import Callers
from federation.testing.databases import Databases

if TYPE_CHECKING:
    from conftest import Project

    from federation.servers import Pair

FIRST, SECOND = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000acc"
ACCOUNTS: dict[str, dict[str, object]] = {FIRST: {}, SECOND: {}}

LOCAL_1, LOCAL_2 = "versions/local/0001_pets_and_visits.py", "versions/local/0002_chip.py"
CLOUD_1, CLOUD_2 = "versions/cloud/0001_pets_and_visits.py", "versions/cloud/0002_chip.py"
OWN_ROWS = """op.create_policy("own_rows", table, using="(SELECT auth.uid()) = user_id")"""
JUDGED = "(SELECT auth.uid()) = user_id"
UP_2 = """op.add_column("pets", sa.Column("chip", sa.Text()))"""
END_OF_CLOUD_1 = """    for view in VIEWS:
        op.create_rls_view(view)
"""

labels = (f"broken_{n}" for n in itertools.count(1))


@pytest.fixture
def databases(pair: Pair, project: Project) -> Iterator[Databases]:
    """The project's; it is read when the first of them is made, so a test may break it first."""
    with Databases(pair, project.toml, next(labels)) as databases:
        yield databases
        for names in databases.templates.values():
            databases._drop(names)


def said(check: Callable[..., None], *arguments: Any) -> str:
    """The sentence with which it fails."""
    with pytest.raises(pytest.fail.Exception) as failure:
        check(*arguments)
    assert not failure.value.pytrace
    return str(failure.value)


def leak(databases: Databases, pytestconfig: pytest.Config, **given: Any) -> str:
    accounts, rows = given.get("accounts", ACCOUNTS), given.get("rows", {})
    check = checks.test_two_accounts_see_and_change_only_their_own_rows
    return said(check, databases, "pets", accounts, rows, pytestconfig)


def test_every_check_is_collected() -> None:
    assert {name for name in vars(checks) if name.startswith("test_")} == set(checks.__all__)


def test_a_release_of_one_side_alone_is_named(project: Project) -> None:
    (project.root / CLOUD_2).unlink()
    sentence = said(checks.test_the_chains_have_one_head_and_the_same_releases, Config.load(project.toml, {}))
    assert sentence == (
        "the chains do not pair up at 0002 — a release has a file of the same id in both; where a side has nothing to "
        "do, it is empty"
    )


def test_a_second_head_is_named(project: Project) -> None:
    text = (project.root / LOCAL_2).read_text()
    project.write("versions/local/0002_other.py", text.replace('revision = "0002"', 'revision = "0002b"', 1))
    sentence = said(checks.test_the_chains_have_one_head_and_the_same_releases, Config.load(project.toml, {}))
    assert sentence.startswith("local: the chain has branches (0002, 0002b) — ")


def test_two_phases_of_one_release_are_named(project: Project) -> None:
    project.edit(LOCAL_2, 'down_revision = "0001"', 'down_revision = "0001"\nphase = "contract"')
    sentence = said(checks.test_the_chains_have_one_head_and_the_same_releases, Config.load(project.toml, {}))
    assert sentence.startswith("release 0002 is contract and expand — ")


def test_a_project_without_releases_is_told_to_write_one(project: Project) -> None:
    for file in (LOCAL_1, LOCAL_2, CLOUD_1, CLOUD_2):
        (project.root / file).unlink()
    sentence = said(checks.test_the_chains_have_one_head_and_the_same_releases, Config.load(project.toml, {}))
    assert "federation revision" in sentence


def test_what_a_downgrade_leaves_behind_is_named(databases: Databases, project: Project) -> None:
    project.edit(LOCAL_2, 'op.drop_column("pets", "chip")', "pass")
    sentence = said(checks.test_each_release_up_down_and_up_leaves_the_same_catalogs, databases, "0002")
    assert sentence == (
        "local: 0002: after downgrade() column public.pets.chip is left over — let it undo all that upgrade() does"
    )


def test_a_label_that_a_release_adds_to_an_enum_may_stay(databases: Databases, project: Project) -> None:
    binding, tables = "op.create_local_binding(", 'op.drop_table("visits")'
    project.edit(LOCAL_1, binding, f"op.execute(\"CREATE TYPE mood AS ENUM ('good')\")\n    {binding}")
    project.edit(LOCAL_1, tables, f'op.execute("DROP TYPE mood")\n    {tables}')
    project.edit(LOCAL_2, UP_2, f'op.add_enum_value("mood", "bad")\n    {UP_2}')
    checks.test_each_release_up_down_and_up_leaves_the_same_catalogs(databases, "0002")


def test_a_privilege_that_a_downgrade_forgets_is_named(databases: Databases, project: Project) -> None:
    project.edit(
        CLOUD_2,
        'op.alter_foreign_table("pets", schema="federation_link", add=CHIP)',
        "\n    ".join(
            (
                'op.execute("GRANT SELECT ON public.visits TO authenticator")',
                'op.alter_foreign_table("pets", schema="federation_link", add=CHIP)',
            )
        ),
    )
    sentence = said(checks.test_each_release_up_down_and_up_leaves_the_same_catalogs, databases, "0002")
    assert sentence.startswith("cloud: 0002: after downgrade() view public.visits is owned by postgres")
    assert "authenticator=r/postgres" in sentence


def test_a_release_that_cannot_go_up_twice_is_named(databases: Databases, project: Project) -> None:
    project.edit(LOCAL_2, UP_2, f"{UP_2}\n    op.execute(\"CREATE TYPE chip_kind AS ENUM ('a')\")")
    project.edit(
        LOCAL_2, 'op.drop_column("pets", "chip")', 'op.drop_column("pets", "chip")\n    op.execute("SELECT 1")'
    )
    sentence = said(checks.test_each_release_up_down_and_up_leaves_the_same_catalogs, databases, "0002")
    assert "type public.chip_kind is left over" in sentence


def test_a_release_without_a_downgrade_is_skipped(databases: Databases, project: Project) -> None:
    project.edit(LOCAL_2, "def downgrade() -> None:", "def not_a_downgrade() -> None:")
    with pytest.raises(pytest.skip.Exception, match=r"local: 0002 has no downgrade\(\)"):
        checks.test_each_release_up_down_and_up_leaves_the_same_catalogs(databases, "0002")


def test_drift_at_head_is_named(databases: Databases, project: Project) -> None:
    project.edit("federation.toml", 'using = "(SELECT auth.uid()) = user_id"', 'using = "auth.uid() = user_id"')
    sentence = said(checks.test_check_is_clean_at_head, databases)
    assert sentence.startswith("at head local: ~ policy public.pets.own_rows")
    assert "--autogenerate" in sentence


def test_a_release_that_fails_is_a_sentence_and_no_traceback(databases: Databases, project: Project) -> None:
    project.edit(LOCAL_2, UP_2, 'op.add_column("pts", sa.Column("chip", sa.Text()))')
    sentence = said(checks.test_check_is_clean_at_head, databases)
    assert 'relation "pts" does not exist' in sentence
    assert "0002" in sentence


OPEN = {
    "a table without row-level security": (
        LOCAL_2,
        UP_2,
        f'{UP_2}\n    op.create_table("notes", sa.Column("id", sa.Uuid()))\n'
        '    op.execute("GRANT SELECT ON notes TO federation_link")',
        "local: table public.notes is open to federation_link without row-level security — "
        'op.enable_row_level_security("notes") and a policy',
    ),
    "a table with a restrictive policy alone": (
        LOCAL_2,
        UP_2,
        f'{UP_2}\n    op.create_table("notes", sa.Column("id", sa.Uuid()))\n    op.enable_row_level_security("notes")\n'
        '    op.execute("GRANT SELECT (id) ON notes TO authenticated")\n'
        '    op.create_policy("mfa", "notes", using="true", restrictive=True)',
        "local: table public.notes has no permissive policy, so authenticated sees none of its rows — ",
    ),
    "a table without a policy": (
        LOCAL_2,
        UP_2,
        f'{UP_2}\n    op.create_table("notes", sa.Column("id", sa.Uuid()))\n    op.enable_row_level_security("notes")\n'
        '    op.execute("GRANT SELECT (id) ON notes TO authenticated")',
        "local: table public.notes has no permissive policy, so authenticated sees none of its rows — op.",
    ),
    "a table of the cloud, which is the API's at once": (
        CLOUD_2,
        "op.replace_rls_view(AFTER, was=BEFORE)",
        'op.replace_rls_view(AFTER, was=BEFORE)\n    op.create_table("notes", sa.Column("id", sa.Uuid()))',
        "cloud: table public.notes is open to anon, authenticated without row-level security — ",
    ),
    "a foreign table that can be named": (
        CLOUD_2,
        "op.replace_rls_view(AFTER, was=BEFORE)",
        "op.replace_rls_view(AFTER, was=BEFORE)\n"
        '    op.execute("GRANT USAGE ON SCHEMA federation_link TO authenticated")',
        "cloud: foreign table federation_link.pets is open to authenticated past its view — ",
    ),
    "a view that runs as its owner": (
        CLOUD_2,
        "op.replace_rls_view(AFTER, was=BEFORE)",
        'op.replace_rls_view(AFTER, was=BEFORE)\n    op.execute("CREATE VIEW public.mine AS SELECT 1")',
        "cloud: view public.mine, open to anon, authenticated, runs as its owner — WITH (security_invoker = true)",
    ),
    "a materialized view": (
        CLOUD_2,
        "op.replace_rls_view(AFTER, was=BEFORE)",
        "op.replace_rls_view(AFTER, was=BEFORE)\n"
        '    op.execute("CREATE MATERIALIZED VIEW public.mine AS SELECT 1 AS n")',
        "cloud: materialized view public.mine is open to anon, authenticated, and no policy judges it",
    ),
}


@pytest.mark.parametrize("what", OPEN)
def test_what_is_open_is_named(databases: Databases, project: Project, what: str) -> None:
    file, before, after, sentence = OPEN[what]
    project.edit(file, before, after)
    assert sentence in said(checks.test_no_table_without_policies_is_exposed, databases)


def test_a_table_without_a_view_is_named(databases: Databases, project: Project) -> None:
    project.edit("federation.toml", 'exported = ["pets", "visits"]', 'exported = ["pets", "owners"]')
    sentence = said(checks.test_every_view_answers, databases, "owners")
    assert sentence.startswith("cloud: there is no view public.owners at head — ")


def test_a_view_that_does_not_answer_is_named(databases: Databases, project: Project) -> None:
    project.edit(
        CLOUD_2,
        "op.replace_rls_view(AFTER, was=BEFORE)",
        "\n    ".join(
            (
                "op.replace_rls_view(AFTER, was=BEFORE)",
                'op.execute("REVOKE SELECT ON federation_link.pets FROM authenticated")',
            )
        ),
    )
    sentence = said(checks.test_every_view_answers, databases, "pets")
    assert "pets" in sentence
    assert "permission denied for foreign table pets" in sentence


def test_a_denied_role_that_reads_is_named(databases: Databases, project: Project) -> None:
    project.edit("federation.toml", "[tables]\n", '[roles]\ndenied = ["anon", "authenticator"]\n\n[tables]\n')
    project.edit(
        CLOUD_2,
        "op.replace_rls_view(AFTER, was=BEFORE)",
        "\n    ".join(
            (
                "op.replace_rls_view(AFTER, was=BEFORE)",
                'op.execute("GRANT SELECT ON public.pets TO authenticated, authenticator")',
            )
        ),
    )
    sentence = said(checks.test_every_view_answers, databases, "pets")
    assert "authenticator" in sentence


def test_a_hospital_that_breaks_an_older_cloud_is_named(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(LOCAL_2, "sa.Text())", "sa.Text(), nullable=False)")
    project.edit(CLOUD_2, "sa.Text())", "sa.Text(), nullable=False)")
    sentence = said(checks.test_older_clouds_read_and_write, databases, "0001", ACCOUNTS, {}, pytestconfig)
    assert sentence.startswith("cloud at 0001, local at 0002: INSERT on public.pets fails as authenticated (")
    assert 'null value in column "chip"' in sentence


BREAKS = 'breaks_older_clouds = "every pet has a chip from here on"'


def test_a_release_may_say_that_it_breaks_older_clouds(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    """Without the mark the check fails: test_a_hospital_that_breaks_an_older_cloud_is_named."""
    project.edit(LOCAL_2, "sa.Text())", "sa.Text(), nullable=False)")
    project.edit(CLOUD_2, "sa.Text())", "sa.Text(), nullable=False)")
    project.edit(LOCAL_2, 'down_revision = "0001"', f'down_revision = "0001"\n{BREAKS}')
    checks.test_older_clouds_read_and_write(databases, "0001", ACCOUNTS, {}, pytestconfig)


def test_a_release_that_breaks_older_clouds_says_why(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(LOCAL_2, 'down_revision = "0001"', 'down_revision = "0001"\nbreaks_older_clouds = True')
    sentence = said(checks.test_older_clouds_read_and_write, databases, "0001", ACCOUNTS, {}, pytestconfig)
    assert sentence == 'local: 0002: breaks_older_clouds has no reason — write breaks_older_clouds = "why"'


def test_a_table_whose_columns_all_may_be_left_out_passes(databases: Databases, project: Project) -> None:
    """An INSERT without columns is DEFAULT VALUES."""
    project.edit(LOCAL_1, OWN_ROWS, """op.create_policy("all_rows", table, using="true")""")
    for file in (LOCAL_1, CLOUD_1):
        project.edit(file, '"user_id", sa.Uuid(), nullable=False', '"user_id", sa.Uuid()')
        project.edit(file, '"name", sa.Text(), nullable=False', '"name", sa.Text()')
    project.edit("federation.toml", 'exported = ["pets", "visits"]', 'exported = ["pets"]')
    callers: list[Callers] = []
    with databases.make_pair() as pair:
        callers.append(Callers(pair, ACCOUNTS, {}))
        assert callers[0].rows.complete("pets", {}) == {}
        assert list(callers[0].works("pets")) == []
        assert [one for one in callers[0].leaks("pets", shared=True) if "syntax error" in one] == []


GRANT = "GRANT USAGE ON SCHEMA extra TO federation_link"


@pytest.mark.parametrize("undone", [True, False])
def test_a_privilege_that_is_given_and_taken_back_is_no_difference(
    databases: Databases, project: Project, *, undone: bool
) -> None:
    """After GRANT and REVOKE the server spells out what it took for granted before."""
    project.edit(
        LOCAL_1, "    op.create_local_binding(", '    op.execute("CREATE SCHEMA extra")\n    op.create_local_binding('
    )
    project.edit(LOCAL_2, UP_2, f'{UP_2}\n    op.execute("{GRANT}")')
    if undone:
        revoke = GRANT.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")
        drop = 'op.drop_column("pets", "chip")'
        project.edit(LOCAL_2, drop, f'{drop}\n    op.execute("{revoke}")')
        checks.test_each_release_up_down_and_up_leaves_the_same_catalogs(databases, "0002")
    else:
        sentence = said(checks.test_each_release_up_down_and_up_leaves_the_same_catalogs, databases, "0002")
        assert "0002: after downgrade() schema extra is owned by hospital_owner, privileges {" in sentence


def test_a_file_that_asks_the_database_is_named(databases: Databases, project: Project) -> None:
    project.edit(
        LOCAL_2,
        UP_2,
        "\n    ".join(
            (
                UP_2,
                "if not op.get_context().as_sql:",
                '    op.create_index("pets_chip_idx", "pets", ["chip"])',
            )
        ),
    )
    sentence = said(checks.test_offline_sql_makes_what_online_makes, databases, "0002")
    assert sentence.startswith("local: 0002: with --sql index public.pets_chip_idx is missing — ")


def test_a_file_that_needs_an_answer_is_named(databases: Databases, project: Project) -> None:
    project.edit(LOCAL_2, UP_2, f'{UP_2}\n    op.get_bind().execute(sa.text("SELECT 1")).scalar_one()')
    sentence = said(checks.test_offline_sql_makes_what_online_makes, databases, "0002")
    assert sentence.startswith("local: 0002: no SQL could be written (")


def test_a_policy_that_lets_everybody_read_is_named(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(LOCAL_1, OWN_ROWS, 'op.create_policy("own_rows", table, using="true")')
    sentence = leak(databases, pytestconfig)
    assert f"public.pets shows 2 rows of account {FIRST} to account {SECOND} — " in sentence
    assert "the link role itself reads public.pets with no caller bound — " in sentence


def test_a_policy_that_lets_everybody_write_is_named(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    """Nobody reads another's row; anybody adds one."""
    project.edit(
        LOCAL_1, OWN_ROWS, f'{OWN_ROWS}\n        op.create_policy("add", table, command="INSERT", with_check="true")'
    )
    assert leak(databases, pytestconfig) == (
        f"public.pets: account {SECOND} can add rows of account {FIRST} — narrow USING and WITH CHECK of the "
        "hospital's policies"
    )


def test_a_probe_that_would_see_nothing_says_so(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(LOCAL_1, OWN_ROWS, OWN_ROWS.replace(JUDGED, "(SELECT auth.jwt() ->> 'vet') = user_id::text"))
    sentence = leak(databases, pytestconfig)
    assert sentence.startswith(
        f"no row of public.pets could be made that account {FIRST} sees, so nothing is tested — "
    )
    assert "federation_rows" in sentence


def test_a_project_says_what_the_kit_cannot_find_out(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(LOCAL_1, OWN_ROWS, OWN_ROWS.replace(JUDGED, "(SELECT auth.jwt() ->> 'vet') = user_id::text"))
    checks.test_two_accounts_see_and_change_only_their_own_rows(
        databases, "pets", {FIRST: {"vet": OTHER}, SECOND: {"vet": FIRST}}, {"pets": {"user_id": OTHER}}, pytestconfig
    )


def test_claims_that_name_a_column_are_tried(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(LOCAL_1, OWN_ROWS, OWN_ROWS.replace(JUDGED, "(SELECT auth.jwt() ->> 'user_id') = user_id::text"))
    accounts = {FIRST: {"user_id": OTHER}, SECOND: {"user_id": SECOND}}
    checks.test_two_accounts_see_and_change_only_their_own_rows(databases, "pets", accounts, {}, pytestconfig)


RESULTS = """
    op.create_table(
        "results",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("half", sa.Numeric(), sa.Computed("value / 2", persisted=True)),
        sa.Column("value", sa.Numeric(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
    )
    op.enable_row_level_security("results")
    op.create_policy("own_rows", "results", using="(SELECT auth.uid()) = user_id")
    op.grant(("SELECT", "INSERT", "UPDATE", "DELETE"), "results", to=("federation_link", "authenticated"))
"""
RESULTS_IN_CLOUD = """
    half = sa.Column("half", sa.Numeric(), sa.Computed("value / 2", persisted=True))
    columns = [half, sa.Column("value", sa.Numeric(), nullable=False)]
    columns.append(sa.Column("user_id", sa.Uuid(), nullable=False))
    op.import_foreign_schema("public", server="hospital", into="federation_link", tables={"results": columns})
    op.bind_before_write("results", schema="federation_link")
    op.create_rls_view(RLSView("results", ("half", "value", "user_id"), predicate=PREDICATE, grants=GRANTS))
"""


@pytest.fixture
def results(project: Project) -> None:
    """A table whose key the cloud's view leaves out; the first column that it shows is generated."""
    project.edit("federation.toml", '["pets", "visits"]', '["pets", "visits", "results"]')
    project.edit(LOCAL_2, UP_2, UP_2 + RESULTS)
    project.edit(
        CLOUD_2, "op.replace_rls_view(AFTER, was=BEFORE)", f"op.replace_rls_view(AFTER, was=BEFORE){RESULTS_IN_CLOUD}"
    )


@pytest.mark.usefixtures("results")
def test_a_view_without_its_tables_key_passes(databases: Databases, pytestconfig: pytest.Config) -> None:
    checks.test_older_clouds_read_and_write(databases, "0002", ACCOUNTS, {}, pytestconfig)
    checks.test_two_accounts_see_and_change_only_their_own_rows(databases, "results", ACCOUNTS, {}, pytestconfig)


@pytest.mark.usefixtures("results")
def test_a_view_with_a_key_that_the_hospital_numbers_passes(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(CLOUD_2, "columns = [half,", 'columns = [sa.Column("id", sa.BigInteger(), sa.Identity()), half,')
    project.edit(CLOUD_2, '("half", "value", "user_id")', '("id", "half", "value", "user_id")')
    checks.test_older_clouds_read_and_write(databases, "0002", ACCOUNTS, {}, pytestconfig)
    checks.test_two_accounts_see_and_change_only_their_own_rows(databases, "results", ACCOUNTS, {}, pytestconfig)
    checks.test_offline_sql_makes_what_online_makes(databases, "0002")


@pytest.mark.usefixtures("results")
def test_rows_that_a_view_without_a_key_leaks_are_named(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    own = 'op.create_policy("own_rows", "results", using="(SELECT auth.uid()) = user_id")'
    project.edit(LOCAL_2, own, 'op.create_policy("own_rows", "results", using="true")')
    check = checks.test_two_accounts_see_and_change_only_their_own_rows
    sentence = said(check, databases, "results", ACCOUNTS, {}, pytestconfig)
    assert f"public.results shows 2 rows of account {FIRST} to account {SECOND} — " in sentence
    assert f"account {SECOND} can change rows of account {FIRST} — " in sentence


def test_a_command_that_cannot_be_run_is_no_refusal(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(
        LOCAL_2,
        UP_2,
        f'{UP_2}\n    op.execute("CREATE FUNCTION public.broken() RETURNS trigger LANGUAGE plpgsql '
        "AS $$BEGIN IF session_user = 'federation_link' THEN PERFORM no_column; END IF; RETURN new; END$$\")\n"
        '    op.execute("CREATE TRIGGER broken BEFORE INSERT ON pets FOR EACH ROW EXECUTE FUNCTION broken()")',
    )
    assert leak(databases, pytestconfig).startswith(
        f"public.pets: whether account {SECOND} can add rows of account {FIRST} is not tested ("
    )


CONTRACT_LOCAL = """import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
phase = "contract"


def upgrade() -> None:
    op.drop_column("pets", "name")


def downgrade() -> None:
    op.add_column("pets", sa.Column("name", sa.Text(), nullable=False))
"""
CONTRACT_CLOUD = """import sqlalchemy as sa
from alembic import op

from federation.operations.views import RLSView

revision = "0003"
down_revision = "0002"
phase = "contract"

PREDICATE = "(SELECT federation.bind_claims()) IS NOT NULL"
DEFAULTS = {"id": "gen_random_uuid()"}
GRANTS = {"authenticated": ("SELECT", "INSERT", "UPDATE", "DELETE")}
BEFORE = RLSView("pets", ("id", "user_id", "name", "chip"), predicate=PREDICATE, defaults=DEFAULTS, grants=GRANTS)
AFTER = RLSView("pets", ("id", "user_id", "chip"), predicate=PREDICATE, defaults=DEFAULTS, grants=GRANTS)
NAME = (sa.Column("name", sa.Text(), nullable=False),)


def upgrade() -> None:
    op.replace_rls_view(AFTER, was=BEFORE)
    op.alter_foreign_table("pets", schema="federation_link", drop=NAME)


def downgrade() -> None:
    op.alter_foreign_table("pets", schema="federation_link", add=NAME)
    op.replace_rls_view(BEFORE, was=AFTER)
"""


def test_a_release_that_drops_a_middle_column_can_be_undone(databases: Databases, project: Project) -> None:
    """The column comes back as the table's last one: PostgreSQL has no other place for it."""
    project.write("versions/local/0003_no_name.py", CONTRACT_LOCAL)
    project.write("versions/cloud/0003_no_name.py", CONTRACT_CLOUD)
    checks.test_each_release_up_down_and_up_leaves_the_same_catalogs(databases, "0003")


def test_a_view_that_gets_its_columns_back_in_another_order_is_named(databases: Databases, project: Project) -> None:
    project.write("versions/local/0003_no_name.py", CONTRACT_LOCAL)
    was = """    op.replace_rls_view(BEFORE, was=AFTER)"""
    odd = was.replace(
        "BEFORE,",
        """RLSView(
        "pets", ("id", "user_id", "chip", "name"), predicate=PREDICATE, defaults=DEFAULTS, grants=GRANTS
    ),""",
    )
    project.write("versions/cloud/0003_no_name.py", CONTRACT_CLOUD.replace(was, odd))
    sentence = said(checks.test_each_release_up_down_and_up_leaves_the_same_catalogs, databases, "0003")
    assert sentence.startswith("cloud: 0003: after downgrade() column public.pets.chip is the 3., text")


OF_OWN_PETS = """op.create_policy("own_rows", table, using="(SELECT auth.uid()) = user_id" if table == "pets"
            else "EXISTS (SELECT FROM pets WHERE pets.id = pet_id)"{})"""
ONE_VISIT_A_PET = f"""{UP_2}
    op.create_unique_constraint("visits_pet_id_key", "visits", ["pet_id"])"""
IN_ANY_PET = ', with_check="true"'


def test_a_row_of_an_account_points_at_rows_of_the_same_account(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    """A visit is whose pet it is of, and both accounts have pets."""
    project.edit(LOCAL_1, OWN_ROWS, OF_OWN_PETS.format(""))
    check = checks.test_two_accounts_see_and_change_only_their_own_rows
    check(databases, "visits", ACCOUNTS, {}, pytestconfig)


@pytest.mark.parametrize("one", [False, True], ids=["visits a pet", "one visit a pet"])
def test_a_row_that_can_be_added_to_anothers_is_named(
    databases: Databases, project: Project, pytestconfig: pytest.Config, one: bool
) -> None:
    """Also where a unique foreign key stands before it, as long as the other has its row."""
    project.edit(LOCAL_1, OWN_ROWS, OF_OWN_PETS.format(IN_ANY_PET))
    if one:
        project.edit(LOCAL_2, UP_2, ONE_VISIT_A_PET)
    check = checks.test_two_accounts_see_and_change_only_their_own_rows
    sentence = said(check, databases, "visits", ACCOUNTS, {}, pytestconfig)
    assert sentence == (
        f"public.visits: account {SECOND} can add rows of account {FIRST} — narrow USING and WITH CHECK of the "
        "hospital's policies"
    )


def test_one_row_a_parent_passes(databases: Databases, project: Project, pytestconfig: pytest.Config) -> None:
    project.edit(LOCAL_1, OWN_ROWS, OF_OWN_PETS.format(""))
    project.edit(LOCAL_2, UP_2, ONE_VISIT_A_PET)
    checks.test_two_accounts_see_and_change_only_their_own_rows(databases, "visits", ACCOUNTS, {}, pytestconfig)
    for release in ("0001", "0002"):
        checks.test_older_clouds_read_and_write(databases, release, ACCOUNTS, {}, pytestconfig)


def test_a_row_that_others_point_at_need_not_be_deletable(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    """The visit is made first, and its pet stays as long as it does."""
    project.edit(LOCAL_1, ', ondelete="CASCADE"', "")
    project.edit("federation.toml", '["pets", "visits"]', '["visits", "pets"]')
    checks.test_older_clouds_read_and_write(databases, "0002", ACCOUNTS, {}, pytestconfig)


def test_another_error_is_no_refusal(databases: Databases, project: Project, pytestconfig: pytest.Config) -> None:
    """The row would be there, were it not for a constraint that has nothing to do with accounts."""
    project.edit(
        LOCAL_1, OWN_ROWS, f'{OWN_ROWS}\n        op.create_policy("add", table, command="INSERT", with_check="true")'
    )
    project.edit(
        LOCAL_2,
        UP_2,
        f"{UP_2}\n    op.execute(\"ALTER TABLE pets ADD CHECK (session_user <> 'federation_link')\")",
    )
    assert leak(databases, pytestconfig).startswith(
        f"public.pets: whether account {SECOND} can add rows of account {FIRST} is not tested ("
    )


def test_claims_may_name_the_accounts_role(databases: Databases, pytestconfig: pytest.Config) -> None:
    accounts: dict[str, dict[str, object]] = {
        FIRST: {"sub": FIRST, "role": "authenticated"},
        SECOND: {"role": "authenticated"},
    }
    checks.test_two_accounts_see_and_change_only_their_own_rows(databases, "pets", accounts, {}, pytestconfig)
    checks.test_older_clouds_read_and_write(databases, "0002", accounts, {}, pytestconfig)


def test_a_role_that_no_account_takes_is_named(databases: Databases, pytestconfig: pytest.Config) -> None:
    assert leak(databases, pytestconfig, accounts={FIRST: {}, SECOND: {"role": "service_role"}}) == (
        f"account {SECOND} of federation_accounts has the role service_role, and accounts act as authenticated — let "
        "its claims name one of roles.callers in federation.toml, or no role"
    )


READ_ONLY = """op.create_policy("own_rows", table, using="(SELECT auth.uid()) = user_id", command="SELECT")"""


def test_what_the_policies_let_nobody_write_need_not_be_writable(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    """Privileges are Supabase's usual ones, for everything."""
    project.edit(LOCAL_1, OWN_ROWS, READ_ONLY)
    for release in ("0001", "0002"):
        checks.test_older_clouds_read_and_write(databases, release, ACCOUNTS, {}, pytestconfig)


def test_a_hospital_that_no_longer_lets_an_older_cloud_write_is_named(
    databases: Databases, project: Project, pytestconfig: pytest.Config
) -> None:
    project.edit(
        LOCAL_2,
        UP_2,
        f'{UP_2}\n    op.execute("DROP POLICY own_rows ON pets")\n    ' + READ_ONLY.replace("table", '"pets"'),
    )
    sentence = said(checks.test_older_clouds_read_and_write, databases, "0001", ACCOUNTS, {}, pytestconfig)
    assert sentence == ("cloud at 0001, local at 0002: UPDATE on public.pets finds 0 rows and not the account's one")


class Shared:
    """pytest's configuration with pets in the ini setting federation_shared."""

    def getini(self, name: str) -> list[str]:
        assert name == "federation_shared"
        return ["pets"]


def test_what_every_account_may_read_need_not_be_writable(databases: Databases, project: Project) -> None:
    """Here others than the account may write it."""
    project.edit(
        LOCAL_1,
        OWN_ROWS,
        READ_ONLY
        + """
        op.create_policy("vets", table, using="(SELECT auth.jwt() ->> 'vet') = 'yes'")""",
    )
    project.edit("federation.toml", 'exported = ["pets", "visits"]', 'exported = ["pets"]')
    shared: Any = Shared()
    checks.test_older_clouds_read_and_write(databases, "0002", ACCOUNTS, {}, shared)


def test_a_sentence_stands_alone(project: Project) -> None:
    """Not after the error that it repeats."""
    (project.root / CLOUD_2).unlink()
    with pytest.raises(pytest.fail.Exception) as failure:
        checks.test_the_chains_have_one_head_and_the_same_releases(Config.load(project.toml, {}))
    assert failure.value.__suppress_context__


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [(UP_2, f"{UP_2})", "SyntaxError"), ("import sqlalchemy", "import sqlalchemist", "ModuleNotFoundError")],
)
def test_a_file_that_is_no_migration_is_named(project: Project, before: str, after: str, error: str) -> None:
    project.edit(LOCAL_2, before, after)
    sentence = said(checks.test_the_chains_have_one_head_and_the_same_releases, Config.load(project.toml, {}))
    assert "a file of the chain cannot be imported (" in sentence
    assert str(project.root / LOCAL_2) in sentence
    assert ", line " in sentence
    assert error in sentence
