"""The steps of a run before it runs. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from federation.config import Config
from federation.lockstep.plan import Step, steps_down, steps_up
from federation.lockstep.run import resolve
from federation.lockstep.status import read_status


@dataclass(frozen=True)
class PlannedStep:
    """A step and what its revision file says it is."""

    step: Step
    message: str


def preview(config: Config, target: str) -> list[PlannedStep]:
    """What would bring both databases to ``target``, up or down. Raises what `read_status` found wrong."""
    status = read_status(config)
    if status.errors:
        raise status.errors[0]
    releases = status.releases
    local, cloud = releases.position(status.local, "local"), releases.position(status.cloud, "cloud")
    position = resolve(releases, target, local, cloud)
    plan = steps_up if position >= max(local, cloud) else steps_down
    steps = plan(releases, local, cloud, position)
    return [PlannedStep(step, _message(releases.script(step.side, step.release).doc)) for step in steps]


def _message(doc: str) -> str:
    return doc.strip().split("\n", 1)[0]
