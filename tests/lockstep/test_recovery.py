"""docs/recover.md: each state that the pair can be in, how `status` shows it, and the command that ends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest

from federation.administration import bootstrap, link
from federation.databases import connect
from federation.guard import current_release
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment, Deployments


@pytest.fixture
def pair_of_four(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Releases 0001 to 0003 that add, and 0004 that takes a column away, on two databases at base."""
    chains = {
        side: {**chain, "0004": chain["0002"][::-1]} for side, chain in (("local", three.LOCAL), ("cloud", three.CLOUD))
    }
    with deployments.at_base(three.write(tmp_path, local=chains["local"], cloud=chains["cloud"])) as deployment:
        for side in chains:
            file = deployment.root / "versions" / side / "0004.py"
            file.write_text(file.read_text() + '\n\nphase = "contract"\n')
        deployment.enter(monkeypatch)
        yield deployment


def run(deployment: Deployment, command: str, *, code: int = 0) -> str:
    """The output of a command line of `federation` or `alembic`."""
    program, *words = command.split()
    result = deployment.run(program, *words)
    assert result.returncode == code, result.stderr
    return result.stdout + result.stderr


def backup(deployment: Deployment, side: str) -> Callable[[], None]:
    """Take a backup of one database; the function returned restores it."""
    server = deployment.pair.local if side == "local" else deployment.pair.cloud
    name = deployment.local_dbname if side == "local" else deployment.cloud_dbname
    owner = "hospital_owner" if side == "local" else "postgres"
    server.create_database(f"{name}_backup", owner=owner, template=name)

    def restore() -> None:
        server.drop_database(name)
        server.create_database(name, owner=owner, template=f"{name}_backup")
        server.drop_database(f"{name}_backup")
        bootstrap.apply(deployment.config, side)  # a restored database has none of the privileges on itself

    return restore


def local_ahead_by_a_dba(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    run(deployment, "alembic -n local upgrade 0003")


def cloud_half_missing(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    file = deployment.root / "versions/cloud/0002.py"
    good = file.read_text()
    file.write_text(good.replace("def upgrade():", "def upgrade():\n    op.execute('SELECT 1/0')"))
    run(deployment, "federation upgrade 0002 --on-failure=stop", code=4)
    file.write_text(good)


def local_half_missing_on_the_way_down(deployment: Deployment) -> None:
    upgrade(deployment.config, "0003")
    run(deployment, "alembic -n cloud downgrade 0002")


def contract_half_done(deployment: Deployment) -> None:
    upgrade(deployment.config, "0003")
    run(deployment, "alembic -n cloud upgrade 0004")


def mark_left_high(deployment: Deployment) -> None:
    upgrade(deployment.config, "0003")
    with deployment.owner("cloud") as owner:
        owner.execute("ALTER SERVER hospital OPTIONS (SET port '1')")
    run(deployment, "alembic -n cloud downgrade 0002")
    link.apply(deployment.config)
    run(deployment, "alembic -n local downgrade 0002", code=8)


def mark_left_high_at_base(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    with deployment.owner("cloud") as owner:
        owner.execute("ALTER SERVER hospital OPTIONS (SET port '1')")
    run(deployment, "alembic -n cloud downgrade base")
    run(deployment, "alembic -n local -x override=lost downgrade base")


def local_restored_from_an_older_backup(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    restore = backup(deployment, "local")
    upgrade(deployment.config, "0003")
    restore()


def cloud_restored_from_an_older_backup(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    restore = backup(deployment, "cloud")
    upgrade(deployment.config, "0003")
    restore()


def local_restored_from_before_a_contract(deployment: Deployment) -> None:
    upgrade(deployment.config, "0003")
    restore = backup(deployment, "local")
    upgrade(deployment.config, "0004")
    restore()


def both_restored_to_different_releases(deployment: Deployment) -> None:
    upgrade(deployment.config, "0001")
    restore_local = backup(deployment, "local")
    upgrade(deployment.config, "0002")
    restore_cloud = backup(deployment, "cloud")
    upgrade(deployment.config, "0004")
    restore_local()
    restore_cloud()


def cloud_restored_to_base(deployment: Deployment) -> None:
    restore = backup(deployment, "cloud")
    upgrade(deployment.config, "0003")
    restore()


def cloud_restored_from_before_a_contract(deployment: Deployment) -> None:
    upgrade(deployment.config, "0003")
    restore = backup(deployment, "cloud")
    upgrade(deployment.config, "0004")
    restore()


@dataclass(frozen=True)
class Case:
    """A state: how to get there, what `status` shows (its code, state, next command), and where that command ends."""

    make: Callable[[Deployment], None]
    code: int
    state: str
    next: str | None
    ends_at: str


CASES = [
    Case(local_ahead_by_a_dba, 4, "local_ahead", "federation upgrade 0003", "0003"),
    Case(cloud_half_missing, 4, "local_ahead", "federation upgrade 0002", "0002"),
    Case(local_half_missing_on_the_way_down, 4, "local_ahead", "federation upgrade 0003", "0003"),
    Case(contract_half_done, 4, "cloud_ahead", "federation upgrade 0004", "0004"),
    Case(mark_left_high, 4, "local_ahead", "federation upgrade 0003", "0003"),
    Case(mark_left_high_at_base, 0, "whole", "federation downgrade base", "base"),
    Case(local_restored_from_an_older_backup, 4, "cloud_ahead", "federation upgrade 0003", "0003"),
    Case(cloud_restored_from_an_older_backup, 4, "local_ahead", "federation upgrade 0003", "0003"),
    Case(cloud_restored_from_before_a_contract, 4, "local_ahead", "federation upgrade 0004", "0004"),
    Case(local_restored_from_before_a_contract, 4, "cloud_ahead", "federation upgrade 0004", "0004"),
    Case(both_restored_to_different_releases, 4, "cloud_ahead", "federation upgrade 0002", "0002"),
    Case(cloud_restored_to_base, 4, "local_ahead", "federation upgrade 0003", "0003"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_status_names_the_command_that_ends(pair_of_four: Deployment, case: Case) -> None:
    case.make(pair_of_four)
    status = json.loads(run(pair_of_four, "federation status --json", code=case.code))
    assert (status["state"], status["next"]) == (case.state, case.next)
    assert status["next"] in run(pair_of_four, "federation status", code=case.code)
    run(pair_of_four, status["next"] + (" --yes" if "downgrade" in status["next"] else ""))
    ended = json.loads(run(pair_of_four, "federation status --json"))
    assert (ended["local"], ended["cloud"], ended["mark"]) == (case.ends_at,) * 3
    if case.ends_at != "base":
        with pair_of_four.as_user() as caller:
            caller.execute("SELECT * FROM note")


@pytest.mark.parametrize("make", [case.make for case in CASES], ids=[case.make.__name__ for case in CASES])
def test_going_back_to_base_ends_it_too(pair_of_four: Deployment, make: Callable[[Deployment], None]) -> None:
    make(pair_of_four)
    run(pair_of_four, "federation downgrade base --yes")
    ended = json.loads(run(pair_of_four, "federation status --json"))
    assert (ended["local"], ended["cloud"], ended["mark"]) == ("base",) * 3


def test_a_cloud_restored_to_before_what_a_contract_removed_catches_up_once_that_is_undone(
    pair_of_four: Deployment,
) -> None:
    """What 0002 of the cloud imports, 0004 at the hospital has removed."""
    upgrade(pair_of_four.config, "0001")
    restore = backup(pair_of_four, "cloud")
    upgrade(pair_of_four.config, "0004")
    restore()
    said = run(pair_of_four, "federation upgrade", code=8)
    assert "the cloud, at 0001, cannot catch up: release 0004 has removed what it would import" in said
    for expected in ("alembic -n local downgrade 0003", "federation upgrade 0003"):
        status = json.loads(run(pair_of_four, "federation status --json", code=4))
        assert status["next"] == expected
        run(pair_of_four, expected)
    run(pair_of_four, "federation upgrade")
    ended = json.loads(run(pair_of_four, "federation status --json"))
    assert (ended["local"], ended["cloud"], ended["mark"]) == ("0004",) * 3


def test_a_side_that_does_not_answer_is_named_and_the_other_shown(pair_of_four: Deployment) -> None:
    upgrade(pair_of_four.config, "0001")
    url = pair_of_four.environ["FEDERATION_CLOUD_URL"].replace(str(pair_of_four.pair.cloud.port), "1")
    result = pair_of_four.federation("status", "--json", FEDERATION_CLOUD_URL=url)
    assert result.returncode == 6
    status = json.loads(result.stdout)
    assert (status["local"], status["state"]) == ("0001", "unknown")
    assert status["errors"][0]["side"] == "cloud"
    result = pair_of_four.federation("upgrade", FEDERATION_CLOUD_URL=url)
    assert result.returncode == 6
    with connect(pair_of_four.config, "local") as connection:
        assert current_release(connection) == "0001"


def test_files_that_are_older_than_a_database_are_said(pair_of_four: Deployment) -> None:
    upgrade(pair_of_four.config, "0002")
    for side in ("local", "cloud"):
        for release in ("0004", "0003", "0002"):
            (pair_of_four.root / "versions" / side / f"{release}.py").unlink()
    said = run(pair_of_four, "federation status", code=8)
    assert "at 0002, of which there is no file (the releases are 0001)" in said
    run(pair_of_four, "federation upgrade", code=8)


def test_a_hospital_whose_cloud_is_lost_goes_back_by_an_override(pair_of_four: Deployment) -> None:
    upgrade(pair_of_four.config, "0002")
    run(pair_of_four, "alembic -n local downgrade 0001", code=8)
    result = pair_of_four.alembic("local", "-x", "override=the cloud project is deleted", "downgrade", "0001")
    assert result.returncode == 0, result.stderr
    assert "overridden" in result.stderr
