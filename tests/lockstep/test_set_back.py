"""A database that was restored is noticed, also at the same release; a command that was killed is not a restore."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import pytest
from deployments import Deployment, Deployments
from runs import add_note, start, until

from federation import guard
from federation.administration import bootstrap
from federation.databases import connect
from federation.errors import SetBack
from federation.lockstep import upgrade
from federation.servers import Binaries, Pair, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from federation.errors import Side

each_side = pytest.mark.parametrize("side", ["local", "cloud"])


@pytest.fixture
def triple(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Three tiny releases on two databases at the newest, and a command that wrote to both."""
    with deployments.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config)
        yield deployment


@pytest.fixture
def own_servers(binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The same on servers that can be stopped, at release 0002."""
    with Pair(binaries) as pair, Deployments(pair) as databases, databases.at_base(three.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        upgrade(deployment.config, "0002")
        yield deployment


def federation(deployment: Deployment, *words: str, code: int = 0) -> str:
    result = deployment.federation(*words)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def status(deployment: Deployment, *, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(federation(deployment, "status", "--json", code=code))
    return found


def set_back(deployment: Deployment) -> list[SetBack]:
    with connect(deployment.config, "local") as local, connect(deployment.config, "cloud") as cloud:
        return list(guard.compare(local, cloud).set_back)


def row(deployment: Deployment, side: Side) -> tuple[Any, ...]:
    return deployment.look(side, "SELECT number, nonce, previous, confirmed, written_at FROM federation.pair")[0]


def expect_set_back(deployment: Deployment, side: Side, says: str) -> None:
    """Everything that reads or writes says it, and nothing is changed; then the named command is typed."""
    found = status(deployment, code=4)
    assert [error["side"] for error in found["set_back"]] == [side]
    assert says in found["set_back"][0]["message"]
    assert found["next"] == f"federation repair --accept {side}"
    for words in (["upgrade"], ["downgrade", "base", "--yes"], ["check"], ["plan"]):
        said = federation(deployment, *words, code=4)
        assert f"federation: {side}: " in said
        assert says in said
        assert str(found["next"]) in said
    other = "cloud" if side == "local" else "local"
    assert says in federation(deployment, "repair", "--accept", other, code=4)
    federation(deployment, *str(found["next"]).split()[1:])
    assert set_back(deployment) == []


def follow(deployment: Deployment, *, code: int) -> None:
    """Type what `status` names until it names nothing: both databases are at the newest release then."""
    found = status(deployment, code=code)
    while found["next"]:
        federation(deployment, *found["next"].split()[1:])
        found = status(deployment)
    assert (found["local"], found["cloud"]) == ("0003", "0003")


# A nonce is written to both sides by each command that writes.


def test_each_command_that_writes_writes_a_nonce(triple: Deployment) -> None:
    seen = {row(triple, "local")[1]}
    for words in (
        ["upgrade"],
        ["downgrade", "-1", "--yes"],
        ["upgrade"],
        ["repair"],
        ["repair"],
        ["link", "apply"],
        ["analyze"],
        ["account", "add", "00000000-0000-0000-0000-00000000000a"],
        ["account", "remove", "00000000-0000-0000-0000-00000000000a"],
    ):
        federation(triple, *words)
        local, cloud = row(triple, "local"), row(triple, "cloud")
        assert local[:2] == cloud[:2]
        assert local[3:] == cloud[3:]
        assert local[1] not in seen, words
        seen.add(local[1])


def test_a_command_that_reads_writes_none(triple: Deployment) -> None:
    before = [row(triple, side) for side in ("local", "cloud")]
    for words in (["status"], ["plan"], ["history"], ["account", "list"]):
        federation(triple, *words)
    triple.federation("check")
    assert [row(triple, side) for side in ("local", "cloud")] == before


KILLED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from federation import guard
from federation.cli import main

left, renew, renewing = {point}, guard.renew, False

def passed(*_):
    global left
    left -= renewing
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
    event.listen(Engine, name, passed)

def renewed(*sessions):
    global renewing
    renewing = True
    renew(*sessions)

guard.renew = renewed
main()
"""


def test_a_command_that_is_killed_while_it_writes_the_nonce_is_no_restore(triple: Deployment) -> None:
    """At every point: before and after each statement, and before each COMMIT. Also the very first one."""
    for first in (False, True):
        kills = apart = 0
        for point in range(1, 1000):
            if first:
                for side in ("local", "cloud"):
                    triple.look(side, "DELETE FROM federation.pair")
            process = start(triple, "upgrade", code=KILLED.format(point=point))
            _, said = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -9, said
            kills += 1
            rows = [triple.look(side, "SELECT nonce FROM federation.pair") for side in ("local", "cloud")]
            apart += rows[0] != rows[1]
            assert set_back(triple) == []
            if point % 4 == 0:  # the next command's row takes its place as it is
                upgrade(triple.config)
                assert set_back(triple) == []
        assert kills > 20
        assert apart > 1


@pytest.mark.parametrize("statement", ["SET confirmed = true", "SET previous = gen_random_uuid()"])
def test_without_what_the_hospital_keeps_of_it_it_would_be_one(triple: Deployment, statement: str) -> None:
    """The control of the kills: a hospital that has the new nonce, and a cloud that does not."""
    old = row(triple, "cloud")[1]
    upgrade(triple.config)
    triple.look("cloud", "UPDATE federation.pair SET nonce = %s, number = number - 1", [old])
    triple.look("local", "UPDATE federation.pair SET confirmed = false")
    assert set_back(triple) == []
    triple.look("local", f"UPDATE federation.pair {statement}")
    assert [error.side for error in set_back(triple)] == ["cloud"]


def test_commands_at_once_leave_one_nonce(triple: Deployment) -> None:
    processes = [start(triple, "account", "add", f"00000000-0000-0000-0000-0000000000{n:02}") for n in range(16, 22)]
    assert {process.wait() for process in processes} == {0}
    assert row(triple, "local")[:2] == row(triple, "cloud")[:2]
    assert set_back(triple) == []


# What the rows tell.


@each_side
def test_the_older_of_two_rows_tells_the_side_and_since_when(triple: Deployment, side: Side) -> None:
    columns = "number, nonce, previous, confirmed, written_at"
    old = row(triple, side)
    for _ in range(3):
        upgrade(triple.config)
    triple.look(side, f"UPDATE federation.pair SET ({columns}) = (%s, %s, %s, %s, %s)", old)
    (error,) = set_back(triple)
    assert (error.side, error.since) == (side, old[4].isoformat())
    assert f"{old[4]:%Y-%m-%d %H:%M:%S}" in error.message
    assert error.exit_code == 4


@each_side
def test_a_side_without_its_row_was_set_back(triple: Deployment, side: Side) -> None:
    triple.look(side, "DELETE FROM federation.pair")
    (error,) = set_back(triple)
    assert (error.side, error.since) == (side, None)
    federation(triple, "repair", "--accept", side)
    assert set_back(triple) == []


def test_databases_that_were_used_with_others_since_are_not_each_others(triple: Deployment) -> None:
    triple.look("local", "UPDATE federation.pair SET nonce = gen_random_uuid()")
    assert [error.side for error in set_back(triple)] == ["local", "cloud"]
    assert status(triple, code=4)["next"] == "federation repair --accept local --accept cloud"


FIGURES = {
    "another server": ('{"system": "1"}', "the database is on another server"),
    "another database": ('{"database": 1}', "the database is another one of the server"),
    "another timeline": ('{"timeline": "0000000A"}', "the server is on timeline 1 and was on 10"),
}


@each_side
@pytest.mark.parametrize("what", FIGURES)
def test_what_a_server_says_of_itself_tells_of_a_restore_since_the_last_command(
    triple: Deployment, side: Side, what: str
) -> None:
    seen, says = FIGURES[what]
    for both in ("local", "cloud"):
        triple.look(both, f"UPDATE federation.pair SET {side}_seen = {side}_seen || '{seen}'")  # type: ignore[arg-type]
    (error,) = set_back(triple)
    assert error.side == side
    assert says in error.message


def test_figures_that_the_owner_may_not_read_are_left_out(triple: Deployment) -> None:
    triple.look("local", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    upgrade(triple.config)
    assert triple.look(
        "local", "SELECT local_seen ->> 'system', (local_seen -> 'database') IS NULL FROM federation.pair"
    ) == [(None, False)]
    triple.look("local", "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
    assert set_back(triple) == []


def test_a_side_that_does_not_answer_is_not_compared(triple: Deployment) -> None:
    result = triple.federation("status", "--json", FEDERATION_CLOUD_URL="postgresql://nobody@127.0.0.1:1/x")
    assert json.loads(result.stdout)["compared"] is False
    assert (
        "not compared" in triple.federation("status", FEDERATION_CLOUD_URL="postgresql://nobody@127.0.0.1:1/x").stdout
    )


def test_forget_that_is_killed_between_the_two_can_be_run_again(triple: Deployment) -> None:
    federation(triple, "downgrade", "base", "--yes")
    with connect(triple.config, "local") as local, connect(triple.config, "cloud") as cloud:
        guard.part(local)
        guard.forget(cloud, "cloud")
    assert set_back(triple) == []
    federation(triple, "forget")
    upgrade(triple.config)


# Restored databases.


def server(deployment: Deployment, side: Side) -> Server:
    return deployment.pair.local if side == "local" else deployment.pair.cloud


def snapshot(deployment: Deployment, side: Side) -> Path:
    """A copy of the server's data folder, as a disk snapshot is; where it is."""
    there = server(deployment, side)
    deployment.close()
    there.stop()
    copy = there.folder / "snapshot"
    subprocess.run(["cp", "-a", there.folder / "data", copy], check=True)
    there.start()
    return copy


def put_back(deployment: Deployment, side: Side, copy: Path) -> None:
    there = server(deployment, side)
    deployment.close()
    there.stop()
    (there.folder / "data").rename(there.folder / "lost")
    copy.rename(there.folder / "data")
    there.start()


def grow(deployment: Deployment, side: Side, past: str) -> None:
    """Let the server's log grow past where it ended: its position tells nothing then."""
    with deployment.superuser(side) as superuser:
        superuser.execute("CREATE TABLE public.grown (x integer)")
        while superuser.execute("SELECT pg_current_wal_lsn() <= %s::pg_lsn", [past]).fetchone() == (True,):
            superuser.execute("INSERT INTO public.grown SELECT generate_series(1, 10000)")


def ended(deployment: Deployment, side: Side) -> str:
    return str(deployment.look(side, "SELECT pg_current_wal_lsn()::text")[0][0])


@each_side
@pytest.mark.parametrize("release", ["0003", "0002"])
def test_a_snapshot_that_has_grown_is_noticed_and_the_named_commands_end_it(
    own_servers: Deployment, side: Side, release: str
) -> None:
    """At the same release and at an older one. Neither timeline, system identifier nor position tells."""
    upgrade(own_servers.config, release)
    copy = snapshot(own_servers, side)
    add_note(own_servers, text="lost")
    upgrade(own_servers.config)
    past = ended(own_servers, side)
    put_back(own_servers, side, copy)
    grow(own_servers, side, past)
    expect_set_back(own_servers, side, "the database was set back: the last command that it knows of was at ")
    follow(own_servers, code=0 if release == "0003" else 4)


@each_side
def test_without_the_nonce_it_would_not_be_noticed(own_servers: Deployment, side: Side) -> None:
    """The control: the restored database is given the row that the other one has."""
    upgrade(own_servers.config)
    copy = snapshot(own_servers, side)
    add_note(own_servers, text="lost")
    upgrade(own_servers.config)
    past = ended(own_servers, side)
    put_back(own_servers, side, copy)
    grow(own_servers, side, past)
    number, nonce, *_ = row(own_servers, "cloud" if side == "local" else "local")
    own_servers.look(side, "UPDATE federation.pair SET number = %s, nonce = %s", [number, nonce])
    assert set_back(own_servers) == []
    assert own_servers.look("local", "SELECT count(*) FROM note WHERE text = 'lost'") == [(int(side == "cloud"),)]


@each_side
def test_a_recovery_to_a_point_after_the_last_command_is_noticed(own_servers: Deployment, side: Side) -> None:
    """By the timeline; the nonces are the same."""
    copy = snapshot(own_servers, side)
    add_note(own_servers, text="lost")
    (copy / "recovery.signal").touch()
    subprocess.run(["chown", "--reference", copy / "PG_VERSION", copy / "recovery.signal"], check=True)
    with (copy / "postgresql.conf").open("a") as file:
        file.write("restore_command = 'false'\n")
    put_back(own_servers, side, copy)
    until(lambda: own_servers.look(side, "SELECT pg_is_in_recovery()") == [(False,)], "the recovery does not end")
    expect_set_back(own_servers, side, "the server is on timeline 2 and was on 1")
    follow(own_servers, code=0)


@each_side
@pytest.mark.parametrize("release", ["0003", "0002"])
def test_a_restored_dump_is_noticed_and_the_named_commands_end_it(
    triple: Deployment, side: Side, release: str, world_writable: Path
) -> None:
    if release == "0002":
        federation(triple, "downgrade", "0002", "--yes")
    there, name = server(triple, side), triple.dbname(side)
    file = world_writable / "dump"
    subprocess.run(
        [there.binaries.program("pg_dump"), "--format=custom", f"--file={file}", triple.superuser_url(side)], check=True
    )
    add_note(triple)
    upgrade(triple.config)
    triple.close()
    there.drop_database(name)
    there.create_database(name, owner="hospital_owner" if side == "local" else "postgres")
    triple.pg_restore(side, file, "--exit-on-error")
    bootstrap.apply(triple.config, side)  # a restored database has none of the privileges on itself
    expect_set_back(triple, side, "the database was set back: the last command that it knows of was at ")
    follow(triple, code=0 if release == "0003" else 4)


def test_a_clone_of_the_kit_is_no_restore(deployments: Deployments) -> None:
    with deployments.make_pair("0003", local="0004") as pair:
        assert isinstance(pair, Deployment)
        assert set_back(pair) == []
        assert status(pair, code=4)["set_back"] == []


def test_a_copy_that_the_kit_has_not_made_is_one(triple: Deployment) -> None:
    """Its control: CREATE DATABASE … TEMPLATE, the name exchanged."""
    name = triple.cloud_dbname
    there = triple.pair.cloud
    triple.close()
    there.create_database(f"{name}_copy", owner="postgres", template=name)
    there.drop_database(name)
    there.create_database(name, owner="postgres", template=f"{name}_copy")
    there.drop_database(f"{name}_copy")
    bootstrap.apply(triple.config, "cloud")
    assert [error.side for error in set_back(triple)] == ["cloud"]
    assert "another one of the server" in set_back(triple)[0].message
