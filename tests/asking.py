"""Asks the process of prepared.py to run a command line; imports little, since it is run for each command of a page.

python -IS asking.py SOCKET MODULE [WORD …]

SIGINT and SIGTERM are passed on; when this process is killed, the command is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence


def ask(path: str, command: Sequence[str], folder: str, environ: Mapping[str, str], files: Sequence[int]) -> int:
    """Run the module ``command[0]`` with its words; ``files`` are its standard ones. The exit code."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        job = json.dumps({"command": list(command), "folder": folder, "environ": dict(environ)}).encode()
        socket.send_fds(asking, [b"%d\n" % len(job)], list(files))
        asking.sendall(job)
        with asking.makefile() as answer:
            command_id = int(answer.readline())
            if __name__ == "__main__":
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, lambda number, _: os.kill(command_id, number))
            return int(answer.readline())


if __name__ == "__main__":
    here = os.getcwd()  # noqa: PTH109  # importing pathlib would take longer than all of this
    sys.exit(ask(sys.argv[1], sys.argv[2:], here, os.environ, [0, 1, 2]))
