"""The runner on chains of three tiny releases: pairs, order, and the half of a release undone."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest

from federation.databases import connect, run_lock
from federation.errors import FederationError, LockHeld, Refused, ReleasesDiffer, Unreachable, VerificationFailed
from federation.guard import current_release
from federation.lockstep import Releases, State, downgrade, read_status, steps_down, steps_up, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

FAILS = "op.execute('SELECT 1/0')"


@pytest.fixture
def tiny(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at base."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        yield deployment


def at(deployment: Deployment) -> tuple[str | None, str | None]:
    found = []
    for side in ("local", "cloud"):
        with connect(deployment.config, side) as connection:
            found.append(current_release(connection, side))
    return found[0], found[1]


def rewrite(deployment: Deployment, side: str, release: str, *, up: str | None = None, down: str | None = None) -> None:
    chains = {"local": dict(three.LOCAL), "cloud": dict(three.CLOUD)}
    was = chains[side][release]
    chains[side][release] = (up or was[0], down or was[1])
    three.write(deployment.root, **chains)


def test_local_goes_first_on_the_way_up_and_cloud_on_the_way_down(tiny: Deployment) -> None:
    up = upgrade(tiny.config)
    assert [(step.release, step.side) for step, _ in up.steps] == [
        (release, side) for release in ("0001", "0002", "0003") for side in ("local", "cloud")
    ]
    down = downgrade(tiny.config, "0001")
    assert [(step.release, step.side) for step, _ in down.steps] == [
        (release, side) for release in ("0003", "0002") for side in ("cloud", "local")
    ]
    assert at(tiny) == ("0001", "0001")


def test_a_second_run_finds_nothing_to_do(tiny: Deployment) -> None:
    upgrade(tiny.config)
    assert upgrade(tiny.config).steps == []


def test_a_failing_cloud_half_is_answered_by_undoing_the_local_half(tiny: Deployment) -> None:
    rewrite(tiny, "cloud", "0002", up=FAILS)
    with pytest.raises(FederationError, match="division by zero") as raised:
        upgrade(tiny.config)
    assert (raised.value.side, raised.value.release) == ("cloud", "0002")
    assert at(tiny) == ("0001", "0001")
    with tiny.owner("local") as owner:
        columns = owner.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'note'::regclass AND attnum > 0")
        assert "text" not in {name for (name,) in columns}


def test_on_failure_stop_leaves_the_half_for_a_later_run(tiny: Deployment) -> None:
    rewrite(tiny, "cloud", "0002", up=FAILS)
    with pytest.raises(ReleasesDiffer, match="local is at 0002, cloud at 0001"):
        upgrade(tiny.config, on_failure="stop")
    assert at(tiny) == ("0002", "0001")
    status = read_status(tiny.config)
    assert (status.state, status.next_command) == (State.LOCAL_AHEAD, "federation upgrade 0002")
    three.write(tiny.root)
    upgrade(tiny.config, "0002")
    assert at(tiny) == ("0002", "0002")


@pytest.mark.parametrize("closes", ["the command of status", "the same command again"])
def test_a_stopped_downgrade_names_the_command_that_status_names(tiny: Deployment, closes: str) -> None:
    upgrade(tiny.config, "0002")
    rewrite(tiny, "local", "0002", down=FAILS)
    with pytest.raises(ReleasesDiffer, match="local is at 0002, cloud at 0001") as raised:
        downgrade(tiny.config, "0001", on_failure="stop")
    status = read_status(tiny.config)
    assert status.next_command == "federation upgrade 0002"
    assert raised.value.hint == f"when the cause is gone: {status.next_command}, or the same command again"
    three.write(tiny.root)
    if closes == "the same command again":
        downgrade(tiny.config, "0001")
        assert at(tiny) == ("0001", "0001")
    else:
        upgrade(tiny.config, "0002")
        assert at(tiny) == ("0002", "0002")


def test_a_failing_local_half_changes_nothing(tiny: Deployment) -> None:
    rewrite(tiny, "local", "0002", up=FAILS)
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(tiny.config)
    assert at(tiny) == ("0001", "0001")


def test_a_failing_local_half_on_the_way_down_brings_the_cloud_half_back(tiny: Deployment) -> None:
    upgrade(tiny.config)
    rewrite(tiny, "local", "0002", down=FAILS)
    with pytest.raises(FederationError, match="division by zero"):
        downgrade(tiny.config, "base")
    assert at(tiny) == ("0002", "0002")


def test_a_half_that_an_earlier_run_did_is_not_undone(tiny: Deployment) -> None:
    upgrade(tiny.config, "0001")
    assert tiny.alembic("local", "upgrade", "0002").returncode == 0
    rewrite(tiny, "cloud", "0002", up=FAILS)
    with pytest.raises(ReleasesDiffer, match="local is at 0002, cloud at 0001"):
        upgrade(tiny.config)
    assert at(tiny) == ("0002", "0001")


def test_a_python_error_in_a_migration_is_undone_too(tiny: Deployment) -> None:
    rewrite(tiny, "cloud", "0002", up="raise KeyError('x')")
    with pytest.raises(FederationError, match="the migration failed"):
        upgrade(tiny.config)
    assert at(tiny) == ("0001", "0001")


def test_a_lost_session_in_the_second_half_is_undone_over_a_new_one(tiny: Deployment) -> None:
    rewrite(tiny, "cloud", "0002", up="op.execute('SELECT pg_terminate_backend(pg_backend_pid())')")
    with pytest.raises(Unreachable):
        upgrade(tiny.config)
    assert at(tiny) == ("0001", "0001")


def test_a_column_that_the_hospital_lacks_is_named(tiny: Deployment) -> None:
    rewrite(
        tiny,
        "cloud",
        "0002",
        up='op.alter_foreign_table("note", schema="federation_link", add=[sa.Column("txet", sa.Text)])',
    )
    with pytest.raises(VerificationFailed, match=r"column note\.txet is missing at the hospital"):
        upgrade(tiny.config)
    assert at(tiny) == ("0001", "0001")


def test_a_column_of_another_type_is_named(tiny: Deployment) -> None:
    rewrite(
        tiny,
        "cloud",
        "0002",
        up='op.alter_foreign_table("note", schema="federation_link", add=[sa.Column("text", sa.Integer)])',
    )
    with pytest.raises(VerificationFailed, match=r"column note\.text is text at the hospital and declared integer"):
        upgrade(tiny.config)


def test_a_table_that_the_hospital_lacks_is_named(tiny: Deployment) -> None:
    result = tiny.alembic("cloud", "upgrade", "0001")
    assert result.returncode == 8
    assert "the link leads to a database that is not a federation hospital" in result.stderr
    assert tiny.alembic("local", "upgrade", "0001").returncode == 0
    with tiny.owner("local") as owner:
        owner.execute("ALTER TABLE note RENAME TO notes")
    result = tiny.alembic("cloud", "upgrade", "0001")
    assert result.returncode == 7
    assert "the hospital has no table note" in result.stderr
    with tiny.owner("local") as owner:
        owner.execute("ALTER TABLE notes RENAME TO note")
    assert tiny.alembic("local", "downgrade", "base").returncode == 0
    assert at(tiny) == (None, None)


def test_chains_that_do_not_pair_up_are_refused(tiny: Deployment) -> None:
    (tiny.root / "versions/cloud/0003.py").unlink()
    with pytest.raises(Refused, match="do not pair up at 0003"):
        upgrade(tiny.config)


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("'0002', '0001'", "'0002', 'nothing'", "Revision nothing referenced from nothing -> 0002"),
        ("'0002', '0001'", "'0001', None", "Revision 0001 is present more than once"),
    ],
)
def test_a_file_that_has_no_place_in_the_chain_is_named(tiny: Deployment, was: str, now: str, says: str) -> None:
    file = tiny.root / "versions/cloud/0002.py"
    text = file.read_text()
    file.write_text(text.replace(was, now))
    result = tiny.federation("status")
    assert result.returncode == 8
    assert result.stderr.startswith(f"federation: cloud: the chain cannot be read ({says}")
    assert len(result.stderr.splitlines()) == 1
    file.write_text(text)
    assert tiny.federation("status").returncode == 0


def test_a_chain_with_branches_is_refused(tiny: Deployment) -> None:
    text = (tiny.root / "versions/local/0003.py").read_text()
    (tiny.root / "versions/local/0004.py").write_text(text.replace("'0003', '0002'", "'0004', '0002'"))
    with pytest.raises(Refused, match="branches"):
        upgrade(tiny.config)


def test_a_step_without_a_downgrade_is_refused_before_anything_is_undone(tiny: Deployment) -> None:
    upgrade(tiny.config)
    file = tiny.root / "versions/local/0002.py"
    file.write_text(file.read_text().split("def downgrade")[0])
    with pytest.raises(Refused, match="no downgrade"):
        downgrade(tiny.config, "base")
    assert at(tiny) == ("0003", "0003")


def test_a_database_at_an_unknown_release_is_refused(tiny: Deployment) -> None:
    upgrade(tiny.config)
    for side in ("local", "cloud"):
        with tiny.owner(side) as owner:
            owner.execute("UPDATE federation.alembic_version SET version_num = '9999'")
    with pytest.raises(Refused, match="9999, for which there is no revision file"):
        upgrade(tiny.config)
    assert read_status(tiny.config).state is State.UNKNOWN


def test_two_runs_never_overlap(tiny: Deployment) -> None:
    with run_lock(tiny.config), pytest.raises(LockHeld):
        upgrade(tiny.config)
    assert at(tiny) == (None, None)


def test_a_table_of_the_apps_name_in_the_cloud_is_refused_before_anything_happens(tiny: Deployment) -> None:
    with tiny.owner("cloud") as owner:
        owner.execute("CREATE TABLE public.note (id uuid)")
    result = tiny.federation("upgrade")
    assert result.returncode == 8
    assert "table public.note" in result.stderr
    assert "SET SCHEMA" in result.stderr
    for side in ("local", "cloud"):
        with tiny.superuser(side) as connection:
            assert connection.execute("SELECT to_regnamespace('federation')").fetchone() == (None,)


def test_the_plan_is_pure_arithmetic(tiny: Deployment) -> None:
    releases = Releases.load(tiny.config)
    assert [str(step) for step in steps_up(releases, 2, 1, 3)] == ["↑ 0002 cloud", "↑ 0003 local", "↑ 0003 cloud"]
    assert [str(step) for step in steps_down(releases, 3, 2, 1)] == ["↓ 0003 local", "↓ 0002 cloud", "↓ 0002 local"]
    with pytest.raises(ReleasesDiffer, match="beyond 0002"):
        steps_up(releases, 3, 1, 2)
    with pytest.raises(Refused, match="beyond 0002"):
        steps_up(releases, 3, 3, 2)
    assert [str(step) for step in steps_down(releases, 3, 1, 2)] == ["↓ 0003 local", "↑ 0002 cloud"]
    with pytest.raises(Refused, match="below 0002 — federation upgrade 0003"):
        steps_down(releases, 1, 3, 2)


def test_plan_says_what_upgrade_will_do_and_check_exits_with_3(tiny: Deployment) -> None:
    result = tiny.federation("plan", "0002", "--check", "--json")
    assert result.returncode == 3
    planned = [(step["release"], step["side"]) for step in json.loads(result.stdout)["steps"]]
    assert planned == [(step.release, step.side) for step, _ in upgrade(tiny.config, "0002").steps]
    assert tiny.federation("plan", "0002", "--check").returncode == 0


def test_history_holds_every_step_of_both_sides(tiny: Deployment) -> None:
    upgrade(tiny.config, "0001")
    downgrade(tiny.config, "base")
    entries = json.loads(tiny.federation("history", "--json").stdout)["history"]
    assert [(entry["side"], entry["from_release"], entry["to_release"], entry["result"]) for entry in entries] == [
        ("local", "base", "0001", "upgraded"),
        ("cloud", "base", "0001", "upgraded"),
        ("cloud", "0001", "base", "downgraded"),
        ("local", "0001", "base", "downgraded"),
    ]
    assert all(len(entry["file_sha256"]) == 64 for entry in entries)
    assert {entry["host"] for entry in entries} == {socket.gethostname()}


def test_forget_is_refused_while_a_side_holds_a_release(tiny: Deployment) -> None:
    upgrade(tiny.config, "0001")
    result = tiny.federation("forget")
    assert result.returncode == 8
    assert "downgrade base" in result.stderr


@pytest.fixture
def contracting(tiny: Deployment) -> Deployment:
    """Release 0003 takes the column away again: the cloud lets go of it before the hospital drops it."""
    chains = {"local": dict(three.LOCAL), "cloud": dict(three.CLOUD)}
    for chain in chains.values():
        chain["0003"] = chain["0002"][::-1]
    three.write(tiny.root, **chains)
    for side in chains:
        file = tiny.root / "versions" / side / "0003.py"
        file.write_text(file.read_text() + '\n\nphase = "contract"\n')
    return tiny


def test_a_contract_release_goes_the_other_way_round(contracting: Deployment) -> None:
    upgrade(contracting.config, "0002")
    up = upgrade(contracting.config)
    assert [step.side for step, _ in up.steps] == ["cloud", "local"]
    down = downgrade(contracting.config, "0002")
    assert [step.side for step, _ in down.steps] == ["local", "cloud"]
    with contracting.as_user() as caller:
        caller.execute("SELECT id, text FROM note")


def test_a_contract_releases_failing_local_half_brings_the_clouds_column_back(contracting: Deployment) -> None:
    upgrade(contracting.config, "0002")
    file = contracting.root / "versions/local/0003.py"
    file.write_text(file.read_text().replace('op.drop_column("note", "text")', FAILS))
    with pytest.raises(FederationError, match="division by zero"):
        upgrade(contracting.config)
    assert at(contracting) == ("0002", "0002")
    with contracting.as_user() as caller:
        caller.execute("SELECT id, text FROM note")


def test_a_half_done_contract_release_is_closed_by_the_command_that_status_names(contracting: Deployment) -> None:
    upgrade(contracting.config, "0002")
    assert contracting.alembic("cloud", "upgrade", "0003").returncode == 0
    status = read_status(contracting.config)
    assert (status.state, status.next_command) == (State.CLOUD_AHEAD, "federation upgrade 0003")
    upgrade(contracting.config, "0003")
    assert at(contracting) == ("0003", "0003")


def test_files_that_disagree_about_the_phase_are_refused(contracting: Deployment) -> None:
    file = contracting.root / "versions/cloud/0003.py"
    file.write_text(file.read_text().replace('"contract"', '"expand"'))
    with pytest.raises(Refused, match="0003 is contract and expand"):
        upgrade(contracting.config)
    assert at(contracting) == (None, None)
