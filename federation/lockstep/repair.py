"""``federation repair``: what brings a pair that was damaged back to what it should be."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import ExitStack

from federation import guard
from federation.config import Config
from federation.databases import SIDES, connect, run_lock
from federation.errors import Side
from federation.lockstep import preflight
from federation.lockstep.status import Status, read_status

_LOG = logging.getLogger("federation")


def accept(config: Config, sides: Collection[Side]) -> Status:
    """Take the databases of ``sides``, which were set back, as they are now; how both stand to each other then.

    Raises SetBack, with nothing accepted, for a database that was set back and is not among ``sides``; LockHeld while
    a run is under way.
    """
    with run_lock(config), ExitStack() as stack:
        sessions = {side: stack.enter_context(connect(config, side)) for side in SIDES}
        preflight.require_own(config, sessions)
        for error in guard.compare(sessions["local"], sessions["cloud"]).set_back:
            if error.side not in sides:
                raise error
        guard.renew(sessions["local"], sessions["cloud"])
    return read_status(config)
