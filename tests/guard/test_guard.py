"""The guard in the databases: what it refuses, to whom, what passes, and the trace of an override."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import guarded_chains
import psycopg
import pytest
from waiting import until

from federation.databases import connect
from federation.errors import Refused, Side
from federation.guard import current_release
from federation.lockstep import downgrade, read_status, upgrade

if TYPE_CHECKING:
    from deployments import Deployment

SIDES: tuple[Side, ...] = ("local", "cloud")
OTHER_SITE = "00000000-0000-0000-0000-0000000000aa"


def at(deployment: Deployment) -> tuple[str | None, str | None]:
    found = []
    for side in ("local", "cloud"):
        with connect(deployment.config, side) as connection:  # type: ignore[arg-type]
            found.append(current_release(connection, side))
    return found[0], found[1]


def mark(deployment: Deployment) -> str:
    with deployment.owner("local") as owner:
        row = owner.execute("SELECT cloud_release FROM federation.guard").fetchone()
    assert row is not None
    return str(row[0])


def alembic(deployment: Deployment, side: str, *words: str, expect: int = 0) -> str:
    result = deployment.alembic(side, *words)
    assert result.returncode == expect, result.stderr
    return result.stderr


def psql(deployment: Deployment, side: str, script: str) -> subprocess.CompletedProcess[str]:
    """As somebody runs it who does not think of ON_ERROR_STOP."""
    binaries = deployment.pair.local.binaries
    return subprocess.run(
        [binaries.program("psql"), "-X", "-q", deployment.environ[f"FEDERATION_{side.upper()}_URL"]],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )


def written(deployment: Deployment, side: str, *words: str) -> str:
    """The words' ``--sql``."""
    result = deployment.alembic(side, *words, "--sql")
    assert result.returncode == 0, result.stderr
    return result.stdout


def everything(deployment: Deployment) -> list[Any]:
    """Both schemas, the toolkit's own functions, the releases and how many steps each history has."""
    functions = (
        "SELECT p.oid::regprocedure::text, p.prosrc FROM pg_proc AS p "
        "WHERE p.pronamespace = to_regnamespace('federation') ORDER BY 1"
    )
    books = "SELECT (SELECT array_agg(version_num) FROM federation.alembic_version), count(*) FROM federation.history"
    return [
        found
        for side in SIDES
        for found in (deployment.dump(side), deployment.look(side, functions), deployment.look(side, books))
    ]


def exchanged(deployment: Deployment) -> dict[str, str]:
    """Each side's URL under the other's name."""
    environ = deployment.environ
    return {
        "FEDERATION_LOCAL_URL": environ["FEDERATION_CLOUD_URL"],
        "FEDERATION_CLOUD_URL": environ["FEDERATION_LOCAL_URL"],
    }


def test_a_hospital_does_not_undo_what_the_cloud_needs(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    said = alembic(guarded, "local", "downgrade", "0001", expect=8)
    assert "the cloud is at 0003 and needs release 0003 here" in said
    assert "alembic -n cloud downgrade" in said
    assert at(guarded) == ("0003", "0003")
    alembic(guarded, "cloud", "downgrade", "0001")
    assert mark(guarded) == "0001"
    alembic(guarded, "local", "downgrade", "0001")
    assert at(guarded) == ("0001", "0001")


def test_without_its_trigger_the_hospital_would_undo_it(guarded: Deployment) -> None:
    """The control of the test above: the views in the cloud then fail."""
    upgrade(guarded.config, "0003")
    with guarded.superuser("local") as superuser:
        superuser.execute("ALTER TABLE federation.alembic_version DISABLE TRIGGER guard_version")
    alembic(guarded, "local", "downgrade", "0001")
    with guarded.as_user() as caller, pytest.raises(psycopg.Error, match="column"):
        caller.execute("SELECT text FROM note")


def test_the_cloud_does_not_go_ahead_of_the_hospital(guarded: Deployment) -> None:
    upgrade(guarded.config, "0002")
    said = alembic(guarded, "cloud", "upgrade", "0003", expect=8)
    assert "release 0003 needs the hospital at 0003, which is at 0002" in said
    assert at(guarded) == ("0002", "0002")
    assert mark(guarded) == "0002"
    alembic(guarded, "local", "upgrade", "0003")
    alembic(guarded, "cloud", "upgrade", "0003")
    assert (at(guarded), mark(guarded)) == (("0003", "0003"), "0003")


def test_a_hospital_may_be_any_number_of_expand_releases_ahead_and_stops_at_a_contract(guarded: Deployment) -> None:
    upgrade(guarded.config, "0001")
    said = alembic(guarded, "local", "upgrade", "head", expect=8)
    assert "release 0004 removes what the cloud, at 0001, still needs" in said
    assert at(guarded) == ("0003", "0001")
    with guarded.as_user() as caller:
        caller.execute("SELECT id FROM note")
    alembic(guarded, "cloud", "upgrade", "0004")
    alembic(guarded, "local", "upgrade", "0004")
    assert at(guarded) == ("0004", "0004")


def test_the_cloud_does_not_take_back_what_the_hospital_has_removed(guarded: Deployment) -> None:
    upgrade(guarded.config)
    file = guarded.root / "versions/cloud/0004.py"  # which would find out itself that the column is gone
    file.write_text(
        file.read_text().replace("op.alter_foreign_table", "pass  # ").replace("op.replace_rls_view", "pass  # ")
    )
    said = alembic(guarded, "cloud", "downgrade", "0003", expect=8)
    assert "below release 0004 the cloud needs what the hospital, at 0004, has removed" in said
    assert (at(guarded), mark(guarded)) == (("0004", "0004"), "0004")
    alembic(guarded, "local", "downgrade", "0003")
    alembic(guarded, "cloud", "downgrade", "0003")
    assert (at(guarded), mark(guarded)) == (("0003", "0003"), "0003")


def test_a_contract_undone_in_the_cloud_alone_stops_where_the_hospital_must_go_down_first(guarded: Deployment) -> None:
    guarded_chains.add_an_expand_release(guarded.root)
    upgrade(guarded.config)
    said = alembic(guarded, "cloud", "downgrade", "0003", expect=7)
    assert "column note.text is missing at the hospital" in said
    assert "on the way down federation downgrade" in said
    assert (at(guarded), mark(guarded)) == (("0005", "0004"), "0004"), "the step that is done was not told"
    alembic(guarded, "local", "downgrade", "0003")
    alembic(guarded, "cloud", "downgrade", "0003")
    assert (at(guarded), mark(guarded)) == (("0003", "0003"), "0003")


def test_a_cloud_whose_session_is_lost_in_a_later_step_has_told_of_the_one_that_is_done(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    file = guarded.root / "versions/cloud/0002.py"
    lost = "def downgrade():\n    op.execute('SELECT pg_terminate_backend(pg_backend_pid())')"
    file.write_text(file.read_text().replace("def downgrade():", lost))
    said = alembic(guarded, "cloud", "downgrade", "0001", expect=6)
    assert "Traceback" not in said
    assert (at(guarded), mark(guarded)) == (("0003", "0002"), "0002")


def test_offline_sql_meets_the_same_guard(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    script = guarded.alembic("local", "downgrade", "0003:0002", "--sql").stdout
    result = psql(guarded, "local", script)
    assert result.returncode == 3
    assert "the cloud is at 0003 and needs release 0003 here" in result.stderr
    downgrade(guarded.config, "0002")
    script = guarded.alembic("cloud", "upgrade", "0002:0003", "--sql").stdout
    result = psql(guarded, "cloud", script)
    assert "needs the hospital at 0003, which is at 0002" in result.stderr
    alembic(guarded, "local", "upgrade", "0003")
    assert psql(guarded, "cloud", script).returncode == 0
    script = guarded.alembic("cloud", "downgrade", "0003:0001", "--sql").stdout
    assert psql(guarded, "cloud", script).returncode == 0
    assert mark(guarded) == "0001", "the script's last line tells the hospital"


def test_offline_sql_from_base_puts_the_guard_on_the_version_table(guarded: Deployment) -> None:
    for side in ("local", "cloud"):
        script = guarded.alembic(side, "upgrade", "0003", "--sql").stdout
        result = psql(guarded, side, script)
        assert result.returncode == 0, result.stderr
    assert mark(guarded) == "0003"
    alembic(guarded, "local", "downgrade", "0002", expect=8)


@pytest.mark.parametrize("stopping", [True, False])
@pytest.mark.parametrize(
    ("side", "direction", "source", "target"),
    [
        ("local", "downgrade", "0002", "0001"),
        ("cloud", "downgrade", "0002", "0001"),
        ("local", "upgrade", "0001", "0002"),
        ("local", "stamp", "0001", "0002"),
        ("local", "upgrade", "base", "0002"),
        ("cloud", "upgrade", "base", "0001"),
    ],
)
def test_a_script_for_another_release_changes_nothing(
    guarded: Deployment, side: str, direction: str, source: str, target: str, stopping: bool
) -> None:
    """Nor where psql does not stop: then each step of it finds out anew."""
    upgrade(guarded.config, "0003")
    before = everything(guarded)
    script = written(guarded, side, direction, f"{source}:{target}" if source != "base" else target)
    result = psql(guarded, side, script if stopping else script.replace("\\set ON_ERROR_STOP on", ""))
    assert result.returncode == (3 if stopping else 0)
    assert f"the script takes {source} to {'0001' if source == 'base' else target}, and this" in result.stderr
    assert "is at 0003" in result.stderr
    assert everything(guarded) == before


def test_a_script_for_another_release_makes_no_books(guarded: Deployment) -> None:
    before = guarded.dump("local")
    assert psql(guarded, "local", written(guarded, "local", "upgrade", "0001:0002")).returncode == 3
    assert guarded.dump("local") == before
    assert guarded.look("local", "SELECT to_regnamespace('federation')") == [(None,)]


def test_a_script_that_is_run_twice_runs_its_steps_once(guarded: Deployment) -> None:
    upgrade(guarded.config, "0002")
    file = guarded.root / "versions/local/0003.py"
    file.write_text(file.read_text().replace("pass", "op.execute(\"UPDATE note SET text = text || 'x'\")", 1))
    with guarded.superuser("local") as superuser:
        superuser.execute("INSERT INTO note VALUES (gen_random_uuid(), gen_random_uuid(), 'a')")
    script = written(guarded, "local", "upgrade", "0002:0003")
    assert psql(guarded, "local", script).returncode == 0
    after = everything(guarded)
    assert psql(guarded, "local", script).returncode == 3
    assert guarded.look("local", "SELECT text FROM note") == [("ax",)]
    assert everything(guarded) == after


@pytest.mark.parametrize("stopping", [True, False])
def test_after_a_refused_step_the_rest_of_the_script_changes_nothing(guarded: Deployment, stopping: bool) -> None:
    guarded_chains.add_an_expand_release(guarded.root)
    script = written(guarded, "local", "upgrade", "head")
    result = psql(guarded, "local", script if stopping else script.replace("\\set ON_ERROR_STOP on", ""))
    assert result.returncode == (3 if stopping else 0)
    assert "release 0004 removes what the cloud, at base, still needs" in result.stderr
    assert at(guarded) == ("0003", None)
    assert "colour" not in guarded.dump("local")
    upgrade(guarded.config)
    assert at(guarded) == ("0005", "0005")


def test_a_step_that_commits_in_its_middle_looks_first_and_again(guarded: Deployment) -> None:
    upgrade(guarded.config, "0002")
    file = guarded.root / "versions/local/0003.py"
    block = (
        "with op.get_context().autocommit_block():\n        op.execute('CREATE INDEX CONCURRENTLY i ON note (text)')"
    )
    file.write_text(file.read_text().replace("pass", block, 1))
    script = written(guarded, "local", "upgrade", "0002:0003")
    downgrade(guarded.config, "0001")
    assert psql(guarded, "local", script).returncode == 3
    assert guarded.look("local", "SELECT to_regclass('i')") == [(None,)]
    upgrade(guarded.config, "0002")
    alembic(guarded, "cloud", "downgrade", "0001")
    again = "BEGIN;\n\nLOCK"
    assert script.count(again) == 1
    somebody_else = "UPDATE federation.alembic_version SET version_num = '0001';\n\n"
    steps = guarded.look("local", "SELECT count(*) FROM federation.history WHERE to_release = '0003'")
    result = psql(guarded, "local", script.replace(again, somebody_else + again))
    assert result.returncode == 3
    assert "the script takes 0002 to 0003, and this database is at 0001" in result.stderr
    assert guarded.look("local", "SELECT count(*) FROM federation.history WHERE to_release = '0003'") == steps
    assert at(guarded) == ("0001", "0001")


def test_the_guard_is_overridden_loudly_with_a_reason_that_the_history_keeps(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    alembic(guarded, "local", "-x", "override= ", "downgrade", "0002", expect=9)
    said = alembic(guarded, "local", "-x", "override=the cloud is lost", "downgrade", "0002")
    assert "the guard was overridden (the cloud is lost): the cloud is at 0003 and needs release 0003 here" in said
    entry = json.loads(guarded.federation("history", "--json").stdout)["history"][-1]
    assert (entry["override"], entry["to_release"]) == ("the cloud is lost", "0002")
    assert entry["refusal"] == "the cloud is at 0003 and needs release 0003 here"


def test_an_override_in_the_cloud_passes_where_the_hospital_cannot_be_asked(guarded: Deployment) -> None:
    upgrade(guarded.config, "0002")
    with guarded.owner("cloud") as owner:
        owner.execute("ALTER SERVER hospital OPTIONS (SET port '1')")
    alembic(guarded, "cloud", "upgrade", "0003", expect=6)
    said = alembic(guarded, "cloud", "-x", "override=the app must go on", "upgrade", "0003")
    assert "the guard was overridden (the app must go on): the hospital could not be asked" in said
    assert at(guarded) == ("0002", "0003")


@pytest.mark.parametrize("target", ["0002", "base"])
def test_a_cloud_downgrade_works_with_the_hospital_gone_and_the_mark_stays(guarded: Deployment, target: str) -> None:
    upgrade(guarded.config, "0003")
    with guarded.owner("cloud") as owner:
        owner.execute("ALTER SERVER hospital OPTIONS (SET port '1')")
    said = alembic(guarded, "cloud", "downgrade", target)
    assert "the hospital could not be told that the cloud" in said
    assert mark(guarded) == "0003"
    alembic(guarded, "local", "downgrade", target, expect=8)

    status = read_status(guarded.config)
    assert (status.mark, status.cloud or "base") == ("0003", target)
    assert "takes the cloud to be at 0003" in guarded.federation("status").stdout
    assert status.next_command == "federation upgrade 0003"
    if target == "0002":
        with guarded.owner("cloud") as owner:
            owner.execute(f"ALTER SERVER hospital OPTIONS (SET port '{guarded.pair.local.port}')")
    downgrade(guarded.config, target)
    assert (at(guarded), mark(guarded)) == (
        (None if target == "base" else target,) * 2,
        "" if target == "base" else target,
    )


def test_a_mark_that_was_left_high_is_set_by_the_command_that_status_names(guarded: Deployment) -> None:
    upgrade(guarded.config, "0002")
    with guarded.owner("local") as owner:
        owner.execute("UPDATE federation.guard SET cloud_release = '0003'")
    status = read_status(guarded.config)
    assert status.next_command == "federation upgrade 0002"
    assert guarded.federation(*str(status.next_command).split()[1:]).returncode == 0
    assert mark(guarded) == "0002"


@pytest.mark.claim("S28")
def test_a_link_to_the_cloud_itself_is_refused_before_anything_is_imported(guarded: Deployment) -> None:
    """The link roles are given what they need there, too: nothing but the guard tells the two databases apart."""
    alembic(guarded, "local", "upgrade", "0001")
    environ = guarded.environ
    with guarded.superuser("cloud") as superuser:
        for user, password in (
            ("federation_link", environ["FEDERATION_LINK_PASSWORD"]),
            ("federation_service", environ["FEDERATION_SERVICE_PASSWORD"]),
        ):
            superuser.execute(f"DO $$ BEGIN CREATE ROLE {user} LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
            verifier = superuser.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()
            superuser.execute(f"ALTER ROLE {user} PASSWORD '{verifier}'")
        superuser.execute("CREATE TABLE public.note (id uuid, site uuid)")
        superuser.execute("GRANT ALL ON public.note TO federation_link, federation_service")
    try:
        result = guarded.run(
            "alembic",
            *("-n", "cloud", "upgrade", "0001"),
            FEDERATION_LINK_HOST=str(guarded.config.url("cloud").host),
            FEDERATION_LINK_PORT=str(guarded.config.url("cloud").port),
            FEDERATION_LINK_DBNAME=str(guarded.config.url("cloud").database),
        )
        assert result.returncode == 8, result.stderr
        assert "not a federation hospital" in result.stderr
        assert at(guarded) == ("0001", None)
    finally:
        with guarded.superuser("cloud") as superuser:
            for user in ("federation_link", "federation_service"):
                superuser.execute(f"DROP OWNED BY {user}")
                superuser.execute(f"DROP ROLE {user}")


@pytest.mark.claim("S28")
def test_a_link_to_another_sites_hospital_is_refused(guarded: Deployment) -> None:
    alembic(guarded, "local", "upgrade", "0001")
    result = guarded.run("alembic", "-n", "cloud", "upgrade", "0001", FEDERATION_SITE_ID=OTHER_SITE)
    assert result.returncode == 8
    assert f"this is the cloud of site {OTHER_SITE}" in result.stderr
    assert at(guarded) == ("0001", None)
    upgrade(guarded.config, "0002")
    alembic(guarded, "local", "upgrade", "0003")
    with guarded.superuser("local") as superuser:  # as if the link had been re-pointed since
        superuser.execute("UPDATE federation.guard SET site = %s", [OTHER_SITE])
    said = alembic(guarded, "cloud", "upgrade", "0003", expect=8)
    assert "another database than this site's hospital" in said


def test_a_hospital_of_another_site_is_not_upgraded(guarded: Deployment) -> None:
    upgrade(guarded.config, "0001")
    result = guarded.run("alembic", "-n", "local", "upgrade", "0002", FEDERATION_SITE_ID=OTHER_SITE)
    assert result.returncode == 8
    assert f"FEDERATION_SITE_ID is {OTHER_SITE}" in result.stderr
    assert at(guarded) == ("0001", "0001")


def test_a_release_set_by_hand_is_judged_and_written_down(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    with guarded.owner("local") as owner, pytest.raises(psycopg.Error, match="needs release 0003 here"):
        owner.execute("UPDATE federation.alembic_version SET version_num = '0001'")
    downgrade(guarded.config, "0002")
    with guarded.owner("cloud") as owner, pytest.raises(psycopg.Error, match="needs the hospital at 0003"):
        owner.execute("UPDATE federation.alembic_version SET version_num = '0003'")
    with guarded.owner("local") as owner:
        owner.execute("UPDATE federation.alembic_version SET version_num = '0003'")
    entry = json.loads(guarded.federation("history", "--json").stdout)["history"][-1]
    assert (entry["result"], entry["from_release"], entry["to_release"]) == ("by hand", "0002", "0003")


@pytest.mark.parametrize("side", SIDES)
def test_a_second_release_is_not_let_in_and_one_that_is_there_is_named_and_let_out(
    guarded: Deployment, side: Side
) -> None:
    upgrade(guarded.config, "0003")
    second = "INSERT INTO federation.alembic_version VALUES ('0001')"
    with guarded.owner(side) as owner, pytest.raises(psycopg.Error, match="would hold several releases: 0001, 0003"):
        owner.execute(second)
    with guarded.superuser(side) as superuser:
        superuser.execute("ALTER TABLE federation.alembic_version DISABLE TRIGGER guard_version")
        superuser.execute(second)
        superuser.execute("ALTER TABLE federation.alembic_version ENABLE TRIGGER guard_version")
    with connect(guarded.config, side) as connection, pytest.raises(Refused) as raised:
        current_release(connection, side)
    assert (raised.value.side, raised.value.message) == (side, "federation.alembic_version holds 0001, 0003")
    assert "DELETE" in str(raised.value.hint)
    with guarded.owner(side) as owner:
        with pytest.raises(psycopg.Error, match="would hold several releases"):
            owner.execute("UPDATE federation.alembic_version SET version_num = '0002' WHERE version_num = '0001'")
        owner.execute("DELETE FROM federation.alembic_version WHERE version_num = '0001'")
    assert (at(guarded), mark(guarded)) == (("0003", "0003"), "0003")
    assert guarded.look("local", "SELECT local_release FROM federation.guard") == [("0003",)]
    assert guarded.federation("upgrade").returncode == 0


def test_of_two_releases_the_hospital_keeps_the_one_that_the_cloud_needs(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    with guarded.superuser("local") as superuser:
        superuser.execute("ALTER TABLE federation.alembic_version DISABLE TRIGGER guard_version")
        superuser.execute("INSERT INTO federation.alembic_version VALUES ('0001')")
        superuser.execute("ALTER TABLE federation.alembic_version ENABLE TRIGGER guard_version")
    with guarded.owner("local") as owner, pytest.raises(psycopg.Error, match="the cloud is at 0003 and needs"):
        owner.execute("DELETE FROM federation.alembic_version WHERE version_num = '0003'")


def test_exchanged_urls_change_nothing(guarded: Deployment) -> None:
    upgrade(guarded.config, "0002")
    before = everything(guarded)
    for side in SIDES:
        other = "hospital's" if side == "cloud" else "cloud's"
        for words in (("upgrade", "0003"), ("downgrade", "0001"), ("stamp", "0001")):
            result = guarded.alembic(side, *words, **exchanged(guarded))
            assert result.returncode == 8, result.stderr
            assert f"this is a {other} database" in result.stderr
            assert f"FEDERATION_{side.upper()}_URL" in result.stderr
        script = written(guarded, side, "upgrade", "0002:0003")
        result = psql(guarded, "local" if side == "cloud" else "cloud", script)
        assert result.returncode == 3
        assert f"this is a {other} database" in result.stderr
        assert everything(guarded) == before


def test_exchanged_urls_are_refused_at_base_too(guarded: Deployment) -> None:
    upgrade(guarded.config, "0001")
    downgrade(guarded.config, "base")
    for side in SIDES:
        result = guarded.alembic(side, "upgrade", "0001", **exchanged(guarded))
        assert result.returncode == 8, result.stderr
        assert "database" in result.stderr


@pytest.mark.parametrize("side", SIDES)
def test_what_is_for_another_site_changes_nothing(guarded: Deployment, side: str) -> None:
    upgrade(guarded.config, "0002")
    before = everything(guarded)
    script = guarded.alembic(side, "upgrade", "0002:0003", "--sql", FEDERATION_SITE_ID=OTHER_SITE).stdout
    result = psql(guarded, side, script)
    assert result.returncode == 3
    assert f"FEDERATION_SITE_ID is {OTHER_SITE}" in result.stderr
    result = guarded.alembic(side, "downgrade", "0001", FEDERATION_SITE_ID=OTHER_SITE)
    assert result.returncode == 8
    assert f"FEDERATION_SITE_ID is {OTHER_SITE}" in result.stderr
    assert everything(guarded) == before


def test_a_guard_without_its_row_lets_nothing_pass_and_says_how_to_put_it_back(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    with guarded.owner("local") as owner:
        owner.execute("DELETE FROM federation.guard")
        with pytest.raises(psycopg.Error, match=r"federation\.guard has lost its row"):
            owner.execute("UPDATE federation.alembic_version SET version_num = '0001'")
    said = alembic(guarded, "local", "downgrade", "0002", expect=8)
    assert "Traceback" not in said
    put_back = said[said.index("INSERT INTO") :].split(";")[0]
    result = psql(guarded, "local", written(guarded, "local", "downgrade", "0003:0002"))
    assert "federation.guard has lost its row" in result.stderr
    with guarded.owner("local") as owner:
        owner.execute(put_back)  # type: ignore[call-overload]
    alembic(guarded, "local", "downgrade", "0002", expect=8)
    assert guarded.federation("upgrade", "0003").returncode == 0
    assert (at(guarded), mark(guarded)) == (("0003", "0003"), "0003")


@pytest.mark.parametrize("side", SIDES)
def test_a_step_without_a_downgrade_is_refused_before_the_first(guarded: Deployment, side: str) -> None:
    upgrade(guarded.config, "0003")
    alembic(guarded, "cloud", "downgrade", "0003")
    file = guarded.root / "versions" / side / "0002.py"
    file.write_text(file.read_text().split("def downgrade")[0])
    for words in (("downgrade", "0001"), ("downgrade", "0003:0001", "--sql")):
        said = alembic(guarded, side, *words, expect=8)
        assert said.startswith(f"federation: {side}: 0002: the step cannot be undone: its file has no downgrade()")
        assert "Traceback" not in said
    assert at(guarded) == ("0003", "0003")


def test_books_of_an_earlier_version_get_the_guard_of_this_one(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    with guarded.owner("local") as owner:
        owner.execute("COMMENT ON SCHEMA federation IS 'alembic-federation books 1'")
        owner.execute(
            "CREATE OR REPLACE FUNCTION federation.guard_version() RETURNS trigger LANGUAGE plpgsql "
            "SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'"
        )
    alembic(guarded, "local", "downgrade", "0002", expect=8)


def test_a_stamp_is_guarded_over_all_the_releases_that_it_crosses(guarded: Deployment) -> None:
    upgrade(guarded.config, "0003")
    alembic(guarded, "local", "stamp", "0001", expect=8)
    alembic(guarded, "local", "stamp", "0004", expect=8)
    alembic(guarded, "cloud", "stamp", "0001")
    assert mark(guarded) == "0001"
    alembic(guarded, "local", "stamp", "0001")
    entry = json.loads(guarded.federation("history", "--json").stdout)["history"][-1]
    assert (entry["result"], entry["to_release"]) == ("stamped", "0001")


@pytest.mark.claim("S27")
def test_callers_reach_nothing_of_the_guard(guarded: Deployment) -> None:
    upgrade(guarded.config, "0001")
    for role in ("authenticated", "anon", "service_role"):
        for query in (
            "SELECT * FROM federation_private.guard",
            "UPDATE federation_private.guard SET cloud_release = ''",
            "SELECT federation.settle()",
            "SELECT federation_private.require_hospital()",
            "SELECT * FROM federation.history",
        ):
            with guarded.as_user(role=role) as caller, pytest.raises(psycopg.errors.InsufficientPrivilege):
                caller.execute(query)  # type: ignore[arg-type]


@pytest.mark.claim("S27")
def test_the_link_roles_may_move_the_mark_and_nothing_else_of_the_guard(guarded: Deployment) -> None:
    upgrade(guarded.config, "0001")
    environ = guarded.environ
    url = guarded.config.url("local")

    def login(user: str, password: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=url.host, port=url.port, dbname=url.database, user=user, password=password, autocommit=True
        )

    with login("federation_link", environ["FEDERATION_LINK_PASSWORD"]) as link:
        for query in ("SELECT * FROM federation.guard", "UPDATE federation.guard SET cloud_release = '0009'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                link.execute(query)  # type: ignore[call-overload]
    with login("federation_service", environ["FEDERATION_SERVICE_PASSWORD"]) as service:
        for query in (
            "UPDATE federation.guard SET local_release = '0009'",
            "UPDATE federation.guard SET site = gen_random_uuid()",
            "DELETE FROM federation.guard",
            "SELECT * FROM federation.history",
            "UPDATE federation.alembic_version SET version_num = '0003'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute(query)  # type: ignore[call-overload]


def test_the_mark_takes_a_releases_id_and_no_other_text(guarded: Deployment) -> None:
    """Whoever has the service role's password could write what `status` prints."""
    upgrade(guarded.config, "0001")
    with guarded.link_role("service") as service:
        for text in ("0001; rm -rf", "\x1b[31m", "a" * 33, "0001\n"):
            with pytest.raises(psycopg.errors.CheckViolation):
                service.execute("UPDATE federation.guard SET cloud_release = %s", [text])
            service.rollback()
        service.execute("UPDATE federation.guard SET cloud_release = '0001'")


BOOKS = """
    SELECT o.name, acl.grantee::regrole::text FROM (
        SELECT n.nspname::text AS name, n.nspowner AS owner, n.nspacl AS acl FROM pg_namespace AS n
        WHERE n.nspname = 'federation'
        UNION ALL SELECT c.relname, c.relowner, c.relacl FROM pg_class AS c
        WHERE c.relnamespace = 'federation'::regnamespace
        UNION ALL SELECT p.proname, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_proc AS p
        WHERE p.pronamespace = 'federation'::regnamespace AND p.proname IN ('guard_version', 'settle')
    ) AS o, aclexplode(o.acl) AS acl
    WHERE acl.grantee <> o.owner AND acl.grantee IN (0, 'authenticated'::regrole) AND o.name NOT IN ('bind', 'account')
"""


WITHOUT_COMMENT = """
    SELECT a.attrelid::regclass::text, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace::regnamespace::text IN ('federation', 'federation_private') AND c.relkind = 'r'
        AND a.attnum > 0 AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL
    UNION ALL
    SELECT c.oid::regclass::text, NULL FROM pg_class AS c
    WHERE c.relnamespace::regnamespace::text IN ('federation', 'federation_private') AND c.relkind = 'r'
        AND obj_description(c.oid, 'pg_class') IS NULL
"""


def test_every_table_and_column_that_a_dba_sees_has_a_comment(guarded: Deployment) -> None:
    for side in SIDES:
        result = psql(guarded, side, written(guarded, side, "upgrade", "base:0001"))
        assert result.returncode == 0, result.stderr
        assert guarded.look(side, WITHOUT_COMMENT) == []


@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
def test_default_privileges_give_nothing_of_the_books(guarded: Deployment, offline: bool) -> None:
    for side in SIDES:
        with guarded.owner(side) as owner:
            owner.execute("CREATE SCHEMA control")
            for what in ("TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS"):
                owner.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO authenticated")  # type: ignore[arg-type]
            owner.execute("CREATE TABLE control.given ()")
        given = "SELECT has_table_privilege('authenticated', 'control.given', 'INSERT')"
        assert guarded.look(side, given) == [(True,)], "the control: what nobody takes back"
        if offline:
            result = psql(guarded, side, written(guarded, side, "upgrade", "base:0001"))
            assert result.returncode == 0, result.stderr
    if not offline:
        upgrade(guarded.config, "0001")
    for side in SIDES:
        names = {name for name, _ in guarded.look(side, BOOKS)}
        # The binding grants USAGE on the schema to the cloud's callers.
        assert names <= ({"federation"} if side == "cloud" else set())


def test_settling_waits_for_a_step_that_is_under_way(guarded: Deployment) -> None:
    """Its release is neither the old one nor the new one until it has ended: the mark would stay too high for good."""
    upgrade(guarded.config, "0003")
    with guarded.owner("cloud") as step, guarded.owner("cloud") as other, ThreadPoolExecutor(1) as thread:
        step.execute("BEGIN; UPDATE federation.alembic_version SET version_num = '0002'")
        pid = other.info.backend_pid
        settled = thread.submit(other.execute, "SELECT federation.settle()")
        waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        until(lambda: settled.done() or guarded.look("cloud", waits, [pid]) == [(1,)])
        step.execute("COMMIT")
        settled.result()
    assert (at(guarded)[1], mark(guarded)) == ("0002", "0002")
