"""Which steps bring both databases to a release. Pure: it reads neither files nor databases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from federation.errors import Refused, ReleasesDiffer, Side
from federation.lockstep.release import Releases


class Direction(StrEnum):
    """Which way a step goes."""

    UP = "upgrade"
    DOWN = "downgrade"


@dataclass(frozen=True)
class Step:
    """One side's half of a release, up or down."""

    release: str
    side: Side
    direction: Direction
    to: str | None
    """The side's release after the step; None is base."""

    def __str__(self) -> str:
        arrow = "↑" if self.direction is Direction.UP else "↓"
        return f"{arrow} {self.release} {self.side}"


def steps_up(releases: Releases, local: int, cloud: int, target: int) -> list[Step]:
    """From the two positions up to ``target``: release by release, in its order, what is done already left out.

    Raises ReleasesDiffer when a side is beyond ``target``, Refused when both are, or when the hospital has removed
    what the cloud's next steps import.
    """
    contract = releases.contract_in_the_way(local, cloud)
    if contract is not None:
        raise Refused(
            f"the cloud, at {releases.at(cloud) or 'base'}, cannot catch up: release {releases.at(contract)} has "
            "removed what it would import",
            side="local",
            hint=f"federation downgrade {releases.at(contract - 1)}, which brings the cloud there, too; then "
            "run the command again",
        )
    if min(local, cloud) > target:
        raise Refused(
            f"the databases are at {releases.at(min(local, cloud))}, beyond {releases.at(target) or 'base'}",
            hint=f"federation downgrade {releases.at(target) or 'base'}",
        )
    if max(local, cloud) > target:
        side: Side = "local" if local > target else "cloud"
        raise ReleasesDiffer(
            f"the database is at {releases.at(max(local, cloud))}, beyond {releases.at(target) or 'base'}",
            side=side,
            hint=f"federation upgrade {releases.at(max(local, cloud))}, or federation downgrade "
            f"{releases.at(target) or 'base'}",
        )
    positions: dict[Side, int] = {"local": local, "cloud": cloud}
    return [
        Step(releases.ids[n - 1], side, Direction.UP, releases.at(n))
        for n in range(1, target + 1)
        for side in releases.order(releases.ids[n - 1])
        if positions[side] < n
    ]


def steps_down(releases: Releases, local: int, cloud: int, target: int) -> list[Step]:
    """From the two positions down to ``target``: release by release, each in its opposite order.

    A cloud that is below ``target`` is brought up to it once the hospital is there. Raises Refused when the hospital is
    below it, or lacks what the cloud imports on its way down.
    """
    if local < target:
        raise Refused(
            f"the database is at {releases.at(local) or 'base'}, below {releases.at(target)}",
            side="local",
            hint=f"federation upgrade {releases.at(max(target, cloud))}",
        )
    for n in range(cloud, max(local, target), -1):
        if releases.is_contract(releases.ids[n - 1]) and not releases.fit(local, n - 1):
            raise Refused(
                f"undoing contract release {releases.at(n)}, the cloud imports what the hospital, at "
                f"{releases.at(local) or 'base'}, does not have",
                side="local",
                hint=f"federation upgrade {releases.at(cloud)}, then run the command again",
            )
    positions: dict[Side, int] = {"local": local, "cloud": cloud}
    down = [
        Step(releases.ids[n - 1], side, Direction.DOWN, releases.at(n - 1))
        for n in range(max(local, cloud), target, -1)
        for side in reversed(releases.order(releases.ids[n - 1]))
        if positions[side] >= n
    ]
    return down + (steps_up(releases, target, cloud, target) if cloud < target else [])
