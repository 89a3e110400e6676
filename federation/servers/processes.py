"""Run PostgreSQL's programs as an ordinary user, with a bare environment, out of the terminal's reach."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from federation.errors import FederationError


def server_user() -> pwd.struct_passwd | None:
    """Return the user of the servers when we are root: ``postgres``, else ``nobody``. None when we are not root.

    PostgreSQL refuses to run as root: https://www.postgresql.org/docs/current/postgres-user.html
    """
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


def start(
    command: Sequence[str | Path],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    cwd: Path = Path("/"),
    pass_fds: Collection[int] = (),
) -> subprocess.Popen[bytes]:
    """Start ``command`` without root's privileges, in a session of its own, so that Ctrl-C goes to us alone.

    It holds the open files ``pass_fds``, too. OSError if it cannot be executed by that user.
    """
    user = server_user()
    # Of our environment no more than programs need to be found: PGPORT and its kin would change what the server
    # does, and FEDERATION_… holds secrets. English messages, because we look for one of them.
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        pass_fds=pass_fds,
        env=environment | {"LC_ALL": "C"},
        start_new_session=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )


def run(command: Sequence[str | Path], *, timeout: float = 120, pass_fds: Collection[int] = ()) -> str:
    """Run ``command`` to its end, at most ``timeout`` seconds, and return its output, standard error included.

    ``pass_fds`` as in `start`. FederationError if it fails or takes longer, OSError if it cannot be executed.
    """
    with start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=pass_fds) as process:
        try:
            said = process.communicate(timeout=timeout)[0].decode(errors="replace")
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise FederationError(f"{command[0]} did not end within {timeout:g} s") from None
            raise
    if process.returncode:
        reason = next((line for line in said.splitlines() if "error:" in line), said.strip())
        raise FederationError(f"{command[0]} failed ({reason})")
    return said
