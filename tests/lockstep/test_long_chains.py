"""Twelve releases, two of them contracts: up, down, to an exact one, and from where a DBA has local ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import chains_of_three as three
import pytest
from runs import add_note, at, catalogs, joined, mark, no_lock_left

from federation.errors import VerificationFailed
from federation.lockstep import State, downgrade, read_status, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments

LAST = 12
CONTRACTS = (5, 9)
"""Each takes the oldest column away; the others add one."""

ORDER = {False: ("local", "cloud"), True: ("cloud", "local")}


def name(number: int) -> str:
    return f"{number:04}"


def shown(columns: tuple[str, ...]) -> str:
    return three.NOTE.format(more="".join(f', "{column}"' for column in columns))


def chains() -> dict[str, dict[str, tuple[str, str]]]:
    local, cloud = {"0001": three.LOCAL["0001"]}, {"0001": three.CLOUD["0001"]}
    columns: tuple[str, ...] = ()
    for number in range(2, LAST + 1):
        was = columns
        columns = columns[1:] if number in CONTRACTS else (*columns, f"c{number}")
        ((column,),) = [set(was) ^ set(columns)]
        typed = f'sa.Column("{column}", sa.Text)'
        there = f'op.add_column("note", {typed})', f'op.drop_column("note", "{column}")'
        here = tuple(
            f'op.alter_foreign_table("note", schema="federation_link", {how}=[{typed}])' for how in ("add", "drop")
        )
        views = [
            f"op.replace_rls_view({shown(new)}, was={shown(old)})" for new, old in ((columns, was), (was, columns))
        ]
        if number in CONTRACTS:
            local[name(number)] = there[::-1]
            cloud[name(number)] = f"{views[0]}\n    {here[1]}", f"{here[0]}\n    {views[1]}"
        else:
            local[name(number)] = there
            cloud[name(number)] = f"{here[0]}\n    {views[0]}", f"{views[1]}\n    {here[1]}"
    return {"local": local, "cloud": cloud}


@pytest.fixture
def long(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Twelve releases on two databases at base."""
    with deployments.at_base(three.write(tmp_path, **chains())) as deployment:
        for number in CONTRACTS:
            for side in ("local", "cloud"):
                with (tmp_path / "versions" / side / f"{name(number)}.py").open("a") as file:
                    file.write('\n\nphase = "contract"\n')
        deployment.enter(monkeypatch)
        yield deployment


def steps(first: int, last: int) -> list[tuple[str, str]]:
    """Each release from ``first`` to ``last`` with its sides, in the order of the run."""
    if first <= last:
        return [(name(n), side) for n in range(first, last + 1) for side in ORDER[n in CONTRACTS]]
    return steps(last, first)[::-1]


def whole(deployment: Deployment, release: str | None) -> None:
    assert at(deployment) == (release, release)
    assert mark(deployment) == (release or "")
    assert no_lock_left(deployment)
    status = read_status(deployment.config)
    assert status.state is State.WHOLE
    assert status.next_command == (None if release == name(LAST) else "federation upgrade")


def test_up_and_down_over_all_of_them_each_pair_in_its_order(long: Deployment) -> None:
    up = upgrade(long.config)
    assert [(step.release, step.side) for step, _ in up.steps] == steps(1, LAST)
    whole(long, name(LAST))
    head = catalogs(long)
    down = downgrade(long.config, "base")
    assert [(step.release, step.side) for step, _ in down.steps] == steps(LAST, 1)
    whole(long, None)
    upgrade(long.config)
    assert catalogs(long) == head


def test_to_an_exact_one_and_relative(long: Deployment) -> None:
    upgrade(long.config, "0005")
    whole(long, "0005")
    fifth = catalogs(long)
    upgrade(long.config, "0008")
    down = downgrade(long.config, "-3")
    assert [(step.release, step.side) for step, _ in down.steps] == steps(8, 6)
    whole(long, "0005")
    assert catalogs(long) == fifth
    downgrade(long.config, "0002")
    whole(long, "0002")


def test_local_ahead_by_several_is_closed_and_gone_on_from(long: Deployment) -> None:
    """A DBA's plain alembic stops at the contract, having done what may be done."""
    upgrade(long.config, "0001")
    plain = long.alembic("local", "upgrade", "head")
    assert plain.returncode == 8
    assert "release 0005 removes what the cloud, at 0001, still needs" in plain.stderr
    assert at(long) == ("0004", "0001")
    status = read_status(long.config)
    assert (status.state, status.next_command) == (State.LOCAL_AHEAD, "federation upgrade 0004")
    up = upgrade(long.config)
    assert [(step.release, step.side) for step, _ in up.steps] == [
        *((name(n), "cloud") for n in (2, 3, 4)),
        *steps(5, LAST),
    ]
    whole(long, name(LAST))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("0002", [("0004", "local"), ("0003", "local")]),
        ("-1", [("0004", "local"), ("0003", "local"), ("0002", "cloud"), ("0002", "local")]),
        ("base", [("0004", "local"), ("0003", "local"), *steps(2, 1)]),
    ],
)
def test_local_ahead_by_several_is_taken_back(long: Deployment, target: str, expected: list[tuple[str, str]]) -> None:
    """``-1`` counts from the release at which both were last."""
    upgrade(long.config, "0002")
    assert long.alembic("local", "upgrade", "0004").returncode == 0
    down = downgrade(long.config, target)
    assert [(step.release, step.side) for step, _ in down.steps] == expected
    whole(long, {"0002": "0002", "-1": "0001", "base": None}[target])


@pytest.mark.parametrize("side", ["local", "cloud"])
def test_an_irreversible_step_in_the_middle_is_refused_before_anything_is_undone(long: Deployment, side: str) -> None:
    upgrade(long.config)
    file = long.root / "versions" / side / "0006.py"
    file.write_text(file.read_text().split("def downgrade")[0])
    before = catalogs(long)
    result = long.federation("downgrade", "base", "--yes")
    assert result.returncode == 8
    assert f"federation: {side}: 0006: the step cannot be undone: its file has no downgrade()" in result.stderr
    assert "downgraded" not in result.stderr
    whole(long, name(LAST))
    assert catalogs(long) == before
    downgrade(long.config, "0006")
    whole(long, "0006")


def test_a_release_in_the_middle_that_fails_leaves_those_before_it(long: Deployment) -> None:
    file = long.root / "versions/cloud/0008.py"
    good = file.read_text()
    file.write_text(good.replace("def upgrade():", "def upgrade():\n    op.execute('GRANT SELECT ON note TO anon')\n"))
    file.write_text(
        file.read_text().replace(
            "def downgrade():", "def downgrade():\n    op.execute('REVOKE SELECT ON note FROM anon')\n"
        )
    )
    with pytest.raises(VerificationFailed, match="both databases are at 0007") as raised:
        upgrade(long.config)
    assert raised.value.release == "0008"
    whole(long, "0007")
    file.write_text(good)
    upgrade(long.config)
    whole(long, name(LAST))


def test_a_column_whose_type_changes_is_closed_after_its_first_half(long: Deployment) -> None:
    """Until then the two databases differ, which is no drift."""
    view = shown(("c2",))
    foreign = (
        f"op.drop_rls_view({view})",
        'op.alter_foreign_table("note", schema="federation_link", alter=[({}, {})]{})',
        f"op.create_rls_view({view})",
    )
    text, short = 'sa.Column("c2", sa.Text)', 'sa.Column("c2", sa.String(9))'
    bodies = {
        "local": [f'op.alter_column("note", "c2", type_=sa.{type_})' for type_ in ("String(9)", "Text")],
        "cloud": [
            joined(foreign[0], foreign[1].format(text, short, ""), foreign[2]),
            joined(foreign[0], foreign[1].format(short, text, ", ask=False"), foreign[2]),
        ],
    }
    for side, (up, down) in bodies.items():
        retyped = three.REVISION.format(message="retyped", release="0003", previous="0002", up=up, down=down)
        (long.root / "versions" / side / "0003.py").write_text(retyped)
    upgrade(long.config, "0002")
    add_note(long, c2="x")
    assert long.alembic("local", "upgrade", "0003").returncode == 8, "it rewrites the table"
    assert long.alembic("local", "-x", "override=nobody is at work", "upgrade", "0003").returncode == 0
    upgrade(long.config, "0003")
    whole(long, "0003")
    downgrade(long.config, "0002")
    whole(long, "0002")
