"""A bounded number of attempts for what does not get its locks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases.holders import naming_holders
from federation.errors import LockHeld, Side


def patiently(config: Config, sessions: Mapping[Side, Connection], ask: Callable[[], None]) -> None:
    """Call ``ask`` up to ``lock_attempts`` times, while it raises LockHeld.

    ``ask`` ends its transaction when it fails. So it lets go of its locks between two attempts, and the app does not
    queue behind it. The last LockHeld names who holds the lock.
    """
    for attempt in range(1, config.database.lock_attempts):
        try:
            return ask()
        except LockHeld:
            time.sleep(random.uniform(0.1, 0.5) * attempt)  # noqa: S311  # jitter
    with naming_holders(config, sessions):
        return ask()
