"""Where both databases answer, a command that writes to one of them is remembered by both."""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress

from federation import guard
from federation.config import Config
from federation.databases import SIDES, connect
from federation.errors import FederationError

_LOG = logging.getLogger("federation")


def remember(config: Config) -> None:
    """Write a new nonce to both databases, and warn if one of them was set back.

    The command itself has done its work, and needs only one of them: the other one may be out of reach.
    """
    with suppress(FederationError), ExitStack() as stack:
        sessions = {side: stack.enter_context(connect(config, side)) for side in SIDES}
        found = guard.compare(sessions["local"], sessions["cloud"])
        for error in found.set_back:
            _LOG.warning("federation: %s", error)
        if not found.set_back:
            guard.renew(sessions["local"], sessions["cloud"])
