"""Leave no trace: schema ``federation`` goes from two databases that are at base."""

from __future__ import annotations

from contextlib import ExitStack

from federation import guard
from federation.config import Config
from federation.databases import SIDES, connect, run_lock
from federation.errors import Refused


def forget(config: Config) -> None:
    """Drop schema ``federation`` on both sides. Raises Refused, with nothing dropped, unless both are at base."""
    with run_lock(config) as lock, ExitStack() as stack:
        sessions = {side: stack.enter_context(connect(config, side)) for side in SIDES}
        for side, session in sessions.items():
            release = guard.current_release(session, side)
            if release is not None:
                raise Refused(f"the database is at {release}", side=side, hint="run `federation downgrade base` first")
        guard.part(sessions["local"])
        lock.let_go_of_tables()
        for side in reversed(SIDES):
            guard.forget(sessions[side], side)
