"""One running PostgreSQL server, thrown away at the end."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from federation.errors import FederationError, Unreachable
from federation.servers.binaries import Binaries, default_binaries
from federation.servers.guardian import GuardedFolder
from federation.servers.processes import run, server_user, start
from federation.servers.running import RunningServer

HOST = "127.0.0.1"

PORTS = range(20_000, 32_000)
"""Below the ports that systems hand out to clients, so that a stopped server's port is free when it starts again."""

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
"""Seconds."""

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    # PostgreSQL 15 ends neither by itself nor by a signal to its children while a client that came after the stop has
    # said nothing yet (SignalSomeChildren in postmaster.c passes over such a child); a minute is the default.
    "authentication_timeout": "10s",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # Nothing in it has to survive a power failure.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}

_IN_MEMORY = {"max_wal_size": "128MB", "min_wal_size": "32MB"}

_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
"""https://www.postgresql.org/docs/current/server-shutdown.html"""


class _PortTaken(FederationError):
    """Another process listens on the port."""


class Server(RunningServer):
    """A PostgreSQL server of its own, from ``with`` to the end of it: loopback only, scram passwords only.

    ``binaries`` are the default ones unless given; ``superuser`` is the name that initdb gives to the bootstrap role;
    ``settings`` are added to postgresql.conf. ``memory``: the folder is in memory if there is room, which makes and
    drops databases three times as fast where disks are slow, and is no place for many rows. In the block it has
    ``host``, ``port``, ``password`` (the superuser's) and ``log`` (a file). Nothing for rows that anybody wants to
    keep: fsync is off, and the folder is removed however the process ends.
    """

    def __init__(
        self,
        binaries: Binaries | None = None,
        *,
        superuser: str = "postgres",
        settings: Mapping[str, str] | None = None,
        memory: bool = False,
    ) -> None:
        self.binaries = binaries or default_binaries()
        super().__init__(HOST, 0, superuser, secrets.token_urlsafe())
        self._settings = _SETTINGS | (_IN_MEMORY if memory else {}) | dict(settings or {})
        self._memory = memory
        self._folder: GuardedFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.close)
            self._folder = GuardedFolder(self.binaries, memory=self._memory)
            self._initialize()
            self.start()
            self.set_password(self.superuser, self.password)  # initdb's verifier is a slow one
            stack.pop_all()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and remove everything of it; again, or before it was started, does nothing."""
        try:
            self.stop("immediate")
        finally:
            if self._folder is not None:
                self._folder.close()

    @property
    def folder(self) -> Path:
        """The temporary folder; the server's data directory is ``data`` in it."""
        if self._folder is None:
            raise FederationError("the server has no folder before its `with` block")
        return self._folder.path

    @property
    def log(self) -> Path:
        """The file that the server writes its log to."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """The postmaster's process id. FederationError if it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise FederationError("the server does not run")
        return self._process.pid

    def log_text(self) -> str:
        """Return everything that the server has logged so far."""
        return self.log.read_text(errors="replace")

    def start(self) -> None:
        """Start the server, again on the port it had before, and return when it takes connections; running, do nothing.

        FederationError if it does not start, Unreachable if it is not ready in time.
        """
        if self._process is not None and self._process.poll() is None:
            return
        if self.port:
            self._launch(self.port)
            return
        for _ in range(20):
            port = secrets.choice(PORTS)
            try:
                self._launch(port)
            except _PortTaken:
                continue
            self.port = port
            return
        raise FederationError(f"no free port found between {PORTS.start} and {PORTS.stop}")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and return when it is gone; ``immediate`` is a crash of its own will. Stopped, do nothing."""
        if self._process is None:
            return
        self._process.send_signal(_STOP_SIGNALS[mode])
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise FederationError(f"the server did not stop within {STOP_TIMEOUT:g} s") from None
        self._process = None

    def _initialize(self) -> None:
        """Make the data directory. The superuser's password reaches initdb by a file that is gone afterwards."""
        assert self._folder is not None  # noqa: S101
        data, password_file = self.folder / "data", self.folder / "password"
        password_file.touch(mode=0o600, exist_ok=False)
        if user := server_user():
            os.chown(password_file, user.pw_uid, user.pw_gid)
        try:
            password_file.write_text(self.password)
            run(
                [
                    self.binaries.bindir / "initdb",
                    f"--pgdata={data}",
                    f"--username={self.superuser}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # Everywhere the same order; macOS has no C.UTF-8 in all its releases.
                    f"--locale={'C.UTF-8' if sys.platform == 'linux' else 'C'}",
                    "--no-sync",
                ],
                # A folder removed under initdb's servers has them abort, and their shared memory stays for ever.
                pass_fds=[self._folder.pipe],
            )
        finally:
            password_file.unlink()
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {_quoted(value)}\n" for name, value in self._settings.items())

    def _launch(self, port: int) -> None:
        """Start the postmaster on ``port``. PostgreSQL itself finds out whether it is free, so there is no race."""
        with self.log.open("ab") as log:
            before = log.tell()
            self._process = start(
                [self.binaries.bindir / "postgres", "-D", self.folder / "data", "-p", str(port)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None:
            if self._is_ready(self._process.pid):
                return
            if time.monotonic() > deadline:
                self.stop("immediate")
                raise Unreachable(f"the server was not ready within {START_TIMEOUT:g} s")
            time.sleep(0.01)
        self._process = None
        said = self.log.read_bytes()[before:].decode(errors="replace")
        if "could not bind" in said:
            raise _PortTaken(f"port {port} is taken by another process")
        reason = next((line for line in said.splitlines() if "FATAL:" in line), said)
        raise FederationError(f"PostgreSQL {self.binaries.version} did not start ({reason})")

    def _is_ready(self, pid: int) -> bool:
        """Whether the server is ready: line 8 of postmaster.pid says so to pg_ctl (src/include/utils/pidfile.h)."""
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _quoted(value: str) -> str:
    """A value for postgresql.conf: https://www.postgresql.org/docs/current/config-setting.html"""
    doubled = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
