"""docs/recover.md: each state that the pair can be in, how `status` shows it, and the command that ends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from sqlalchemy.engine import make_url

from federation.administration import bootstrap, link
from federation.databases import connect
from federation.guard import current_release
from federation.lockstep import upgrade

if TYPE_CHECKING:
    from pathlib import Path

    from deployments import Deployment, Deployments

    from federation.errors import Side


COLOURED = {
    side: tuple(body.replace('"text"', '"colour"') for body in chain["0002"])
    for side, chain in (("local", three.LOCAL), ("cloud", three.CLOUD))
}
"""What 0002 does, for another column."""


@pytest.fixture
def pair_of_five(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Releases 0001 to 0003 that add, 0004 that takes a column away, 0005 that adds one; two databases at base."""
    three.write(
        tmp_path,
        local=three.LOCAL | {"0004": three.LOCAL["0002"][::-1], "0005": COLOURED["local"]},
        cloud=three.CLOUD | {"0004": three.CLOUD["0002"][::-1], "0005": COLOURED["cloud"]},
    )
    for side in COLOURED:
        file = tmp_path / "versions" / side / "0004.py"
        file.write_text(file.read_text() + '\n\nphase = "contract"\n')
    with deployments.at_base(tmp_path) as deployment:
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


def local_restored_to_base(deployment: Deployment) -> None:
    restore = backup(deployment, "local")
    upgrade(deployment.config, "0003")
    restore()


def local_restored_to_base_by_a_dba(deployment: Deployment) -> None:
    """The hospital's new books know nothing of the cloud."""
    local_restored_to_base(deployment)
    run(deployment, "alembic -n local upgrade 0003")


def local_restored_from_before_a_contract(deployment: Deployment) -> None:
    upgrade(deployment.config, "0003")
    restore = backup(deployment, "local")
    upgrade(deployment.config, "0004")
    restore()


def local_restored_from_long_before_a_contract(deployment: Deployment) -> None:
    """The hospital lacks the column that the cloud's way down over the contract release imports."""
    upgrade(deployment.config, "0001")
    restore = backup(deployment, "local")
    upgrade(deployment.config)
    restore()


def local_restored_to_base_from_after_a_contract(deployment: Deployment) -> None:
    restore = backup(deployment, "local")
    upgrade(deployment.config)
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


def cloud_restored_from_long_before_a_contract(deployment: Deployment) -> None:
    """What 0002 of the cloud imports, 0004 at the hospital has removed."""
    upgrade(deployment.config, "0001")
    restore = backup(deployment, "cloud")
    upgrade(deployment.config)
    restore()


@dataclass(frozen=True)
class Case:
    """A state: how to get there, what `status` shows (its code, state, next command), and where that command ends.

    ``base``: the code of `federation downgrade base`. ``restored``: the sides that have to be accepted before.
    """

    make: Callable[[Deployment], None]
    code: int
    state: str
    next: str | None
    ends_at: str
    base: int = 0
    restored: tuple[Side, ...] = ()


LOCAL, CLOUD, BOTH = ("local",), ("cloud",), ("local", "cloud")

CASES = [
    Case(local_ahead_by_a_dba, 4, "local_ahead", "federation upgrade 0003", "0003"),
    Case(cloud_half_missing, 4, "local_ahead", "federation upgrade 0002", "0002"),
    Case(local_half_missing_on_the_way_down, 4, "local_ahead", "federation upgrade 0003", "0003"),
    Case(contract_half_done, 4, "cloud_ahead", "federation upgrade 0004", "0004"),
    Case(mark_left_high, 4, "local_ahead", "federation upgrade 0003", "0003"),
    Case(mark_left_high_at_base, 0, "whole", "federation downgrade base", "base"),
    Case(local_restored_from_an_older_backup, 4, "cloud_ahead", "federation upgrade 0003", "0003", restored=LOCAL),
    Case(cloud_restored_from_an_older_backup, 4, "local_ahead", "federation upgrade 0003", "0003", restored=CLOUD),
    Case(cloud_restored_from_before_a_contract, 4, "local_ahead", "federation upgrade 0004", "0004", restored=CLOUD),
    Case(local_restored_from_before_a_contract, 4, "cloud_ahead", "federation upgrade 0004", "0004", restored=LOCAL),
    Case(both_restored_to_different_releases, 4, "cloud_ahead", "federation upgrade 0002", "0002", restored=BOTH),
    Case(cloud_restored_to_base, 4, "local_ahead", "federation upgrade 0003", "0003", restored=CLOUD),
    Case(local_restored_to_base, 4, "cloud_ahead", "federation upgrade 0003", "0003", restored=LOCAL),
    Case(local_restored_to_base_by_a_dba, 0, "whole", "federation upgrade 0003", "0003", restored=LOCAL),
    Case(
        local_restored_from_long_before_a_contract,
        4,
        "cloud_ahead",
        "federation upgrade 0005",
        "0005",
        base=8,
        restored=LOCAL,
    ),
    Case(
        local_restored_to_base_from_after_a_contract,
        4,
        "cloud_ahead",
        "federation upgrade 0005",
        "0005",
        base=8,
        restored=LOCAL,
    ),
    Case(
        cloud_restored_from_long_before_a_contract,
        4,
        "local_ahead",
        "federation downgrade 0003",
        "0003",
        restored=CLOUD,
    ),
]


each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)


def named(status: dict[str, object]) -> str:
    """What `status` says to type next."""
    return f"{status['next']}{' --yes' if 'downgrade' in str(status['next']) else ''}"


def accept(deployment: Deployment, case: Case) -> None:
    """Where a database was restored, everything says so, and names the command that takes it as it is."""
    if not case.restored:
        return
    named = " ".join(("federation repair", *(f"--accept {side}" for side in case.restored)))
    status = json.loads(run(deployment, "federation status --json", code=4))
    assert (status["next"], [error["side"] for error in status["set_back"]]) == (named, list(case.restored))
    before = run(deployment, "federation history")
    for command in ("upgrade", "downgrade base --yes", "plan", "check"):
        said = run(deployment, f"federation {command}", code=4)
        assert f"{case.restored[0]}: the database" in said
        assert named in said
    assert run(deployment, "federation history") == before
    run(deployment, named)


@each
def test_status_names_the_command_that_ends(pair_of_five: Deployment, case: Case) -> None:
    case.make(pair_of_five)
    accept(pair_of_five, case)
    status = json.loads(run(pair_of_five, "federation status --json", code=case.code))
    assert (status["state"], status["next"]) == (case.state, case.next)
    assert status["next"] in run(pair_of_five, "federation status", code=case.code)
    run(pair_of_five, named(status))
    ended = json.loads(run(pair_of_five, "federation status --json"))
    assert (ended["local"], ended["cloud"], ended["mark"]) == (case.ends_at,) * 3
    if case.ends_at != "base":
        with pair_of_five.as_user() as caller:
            caller.execute("SELECT * FROM note")


@each
def test_whoever_types_what_status_names_until_it_names_nothing_is_at_the_newest_release(
    pair_of_five: Deployment, case: Case
) -> None:
    """One command for the state and one for the rest: no two of them send each other in a circle."""
    case.make(pair_of_five)
    accept(pair_of_five, case)
    for code in (case.code, 0):
        status = json.loads(run(pair_of_five, "federation status --json", code=code))
        run(pair_of_five, named(status) if status["next"] else "federation upgrade")
    ended = json.loads(run(pair_of_five, "federation status --json"))
    assert (ended["local"], ended["cloud"], ended["mark"], ended["next"]) == ("0005", "0005", "0005", None)


@each
def test_going_back_to_base_ends_it_too_or_is_refused_before_anything_happens(
    pair_of_five: Deployment, case: Case
) -> None:
    case.make(pair_of_five)
    accept(pair_of_five, case)
    before = run(pair_of_five, "federation history")
    said = run(pair_of_five, "federation downgrade base --yes", code=case.base)
    if case.base:
        assert run(pair_of_five, "federation history") == before
        assert f"does not have — {case.next}, then run the command again" in said
        run(pair_of_five, str(case.next))
        run(pair_of_five, "federation downgrade base --yes")
    ended = json.loads(run(pair_of_five, "federation status --json"))
    assert (ended["local"], ended["cloud"], ended["mark"]) == ("base",) * 3


def test_a_cloud_that_cannot_catch_up_names_the_same_command_as_status(pair_of_five: Deployment) -> None:
    cloud_restored_from_long_before_a_contract(pair_of_five)
    run(pair_of_five, "federation repair --accept cloud")
    said = run(pair_of_five, "federation upgrade", code=8)
    assert "the cloud, at 0001, cannot catch up: release 0004 has removed what it would import" in said
    assert "federation downgrade 0003, which brings the cloud there, too" in said


def test_a_table_that_stands_where_the_hospital_has_no_books_is_named(pair_of_five: Deployment) -> None:
    """Not the link, which leads there."""
    upgrade(pair_of_five.config, "0001")
    with pair_of_five.owner("local") as owner:
        owner.execute("DROP SCHEMA federation CASCADE")
    run(pair_of_five, "federation repair --accept local")
    assert "local: in the way: table public.note" in run(pair_of_five, "federation upgrade 0001", code=8)


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_a_side_that_does_not_answer_is_named_and_the_other_shown(pair_of_five: Deployment, side: Side) -> None:
    other: Side = "cloud" if side == "local" else "local"
    upgrade(pair_of_five.config, "0001")
    variable = f"FEDERATION_{side.upper()}_URL"
    nobody = {variable: make_url(pair_of_five.environ[variable]).set(port=1).render_as_string(hide_password=False)}
    result = pair_of_five.federation("status", "--json", **nobody)
    assert result.returncode == 6
    status = json.loads(result.stdout)
    assert (status[other], status[side], status["state"]) == ("0001", None, "unknown")
    assert status["mark"] == ("0001" if other == "local" else None)
    assert status["errors"][0]["side"] == side
    assert pair_of_five.federation("upgrade", **nobody).returncode == 6
    with connect(pair_of_five.config, other) as connection:
        assert current_release(connection, other) == "0001"


def test_a_side_at_base_has_said_so(pair_of_five: Deployment) -> None:
    """The control."""
    status = json.loads(run(pair_of_five, "federation status --json"))
    assert (status["local"], status["cloud"], status["mark"]) == ("base",) * 3


def test_files_that_are_older_than_a_database_are_said(pair_of_five: Deployment) -> None:
    upgrade(pair_of_five.config, "0002")
    for side in ("local", "cloud"):
        for release in ("0005", "0004", "0003", "0002"):
            (pair_of_five.root / "versions" / side / f"{release}.py").unlink()
    said = run(pair_of_five, "federation status", code=8)
    assert "at 0002, for which there is no revision file (the releases are 0001)" in said
    run(pair_of_five, "federation upgrade", code=8)


def test_a_hospital_whose_cloud_is_lost_goes_back_by_an_override(pair_of_five: Deployment) -> None:
    upgrade(pair_of_five.config, "0002")
    run(pair_of_five, "alembic -n local downgrade 0001", code=8)
    result = pair_of_five.alembic("local", "-x", "override=the cloud project is deleted", "downgrade", "0001")
    assert result.returncode == 0, result.stderr
    assert "overridden" in result.stderr
