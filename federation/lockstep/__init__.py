"""Both databases in lockstep: releases paired by id, local first on the way up, cloud first on the way down.

A release that removes something (``phase = "contract"``) goes the other way round.
"""

from federation.lockstep.plan import Direction, Step, steps_down, steps_up
from federation.lockstep.release import Releases
from federation.lockstep.run import Outcome, downgrade, upgrade
from federation.lockstep.status import State, Status, read_status

__all__ = [
    "Direction",
    "Outcome",
    "Releases",
    "State",
    "Status",
    "Step",
    "downgrade",
    "read_status",
    "steps_down",
    "steps_up",
    "upgrade",
]
