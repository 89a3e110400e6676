"""A server whose processes stand still: its machine acknowledges what comes, and nothing answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from federation.servers import Server


@contextmanager
def frozen(server: Server) -> Iterator[Callable[[], None]]:
    """What freezes the server's processes, which are thawed at the end."""
    stopped: list[int] = []

    def freeze() -> None:
        postmaster = server.pid
        os.kill(postmaster, signal.SIGSTOP)  # first, so that it has no more children then
        stopped.append(postmaster)
        for child in children(postmaster):
            os.kill(child, signal.SIGSTOP)
            stopped.append(child)

    try:
        yield freeze
    finally:
        for process in reversed(stopped):  # the postmaster last, so that it has reaped none of them
            os.kill(process, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """A process's children; a server's backends are the postmaster's."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
