"""A temporary folder that never outlives us, nor does the server in it: not after Ctrl-C, SIGTERM or SIGKILL.

A guardian process makes the folder and waits at a pipe whose other end only we hold. When we close it, or die and
the kernel closes it, the guardian stops the server and removes the folder. There is one way to clean up, and every
normal exit takes it too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from federation.errors import FederationError, PreconditionMissing
from federation.servers.binaries import Binaries
from federation.servers.processes import start

# $1: the bin directory, the rest: where to make the folder, best first (root's TMPDIR may be closed to the servers'
# user). PIPE is ignored too: we may die before we have read the folder's name. A process that is just being
# stopped can still write into the folder, so rm is tried more than once.
_SCRIPT = """
trap '' HUP INT PIPE TERM
bindir=$1; shift
for root in "$@"; do folder=$(mktemp -d "$root/federation-XXXXXXXX") && break; done
test -n "$folder" || exit
echo "$folder"
read -r end_of_file
"$bindir/pg_ctl" stop -m immediate -t 10 -D "$folder/data" >/dev/null 2>&1
for attempt in 1 2 3 4 5; do rm -rf "$folder" 2>/dev/null && exit; sleep 0.5; done
exit 1
"""


MEMORY = Path("/dev/shm")  # noqa: S108

ROOM = 2 << 30
"""Bytes that must be free in memory; a container has 64 MB there unless told otherwise."""


class GuardedFolder:
    """A new folder ``path``, mode 0700, of the user who runs the servers. ``data`` in it may be a server's.

    With ``memory`` it is there, if the machine has room and TMPDIR does not say another place.

    Processes that are *forked* from ours, without exec, hold the pipe as well: the folder lives as long as they do.
    PreconditionMissing if no temporary directory can be written.
    """

    def __init__(self, binaries: Binaries, *, memory: bool = False) -> None:
        roots = [tempfile.gettempdir(), "/tmp", "/var/tmp"]  # noqa: S108  mktemp makes an unguessable name
        if memory and "TMPDIR" not in os.environ and _has_room(MEMORY):
            roots.insert(0, str(MEMORY))
        self._guardian = start(
            ["/bin/sh", "-c", _SCRIPT, "federation-guardian", binaries.bindir, *roots],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        pipe, told = self._guardian.stdin, self._guardian.stdout
        assert pipe and told, "both are pipes"  # noqa: S101, PT018
        self._pipe = pipe
        try:
            with told:
                self.path = Path(told.readline().decode().removesuffix("\n"))
        except BaseException:  # Ctrl-C: the folder is there, or will be
            self.close()
            raise
        if not self.path.is_absolute():
            self._pipe.close()
            self._guardian.wait()
            raise PreconditionMissing(
                f"no folder can be made in {' or '.join(roots)}",
                hint="set TMPDIR to a directory that the user of the servers can write",
            )

    @property
    def pipe(self) -> int:
        """The descriptor of the pipe: who holds it is waited for before the folder is removed."""
        return self._pipe.fileno()

    def close(self) -> None:
        """Stop the server if it runs, remove the folder, and return when both are gone; again does nothing."""
        self._pipe.close()
        if self._guardian.wait(timeout=60):
            raise FederationError(f"{self.path} could not be removed")


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > ROOM
