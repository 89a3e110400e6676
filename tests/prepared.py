"""A process that has imported the toolkit and run nothing: a command line runs in a fork of it, without the imports.

What is run is what ``python -m`` runs, in a process of its own, with its own environment, folder and exit code. Most of
a command's time is Python's start; several thousand of them are most of the suite's.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

import asking
from asking import ask

MODULES = (
    "alembic.command",
    "alembic.config",
    "alembic.ddl.postgresql",
    "federation.cli.account",
    "federation.cli.bootstrap",
    "federation.cli.check",
    "federation.cli.downgrade",
    "federation.cli.history",
    "federation.cli.plan",
    "federation.cli.revision",
    "federation.cli.status",
    "federation.cli.upgrade",
    "federation.environments.runtime",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
)


class Prepared:
    """The process, and the socket by which it is asked."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="prepared-")
        path = str(Path(self.folder.name) / "socket")
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(path)
        self.listening.listen(64)
        self.path = path
        # It ends when this process does: the pipe to its standard input is closed then.
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.listening.fileno())],
            pass_fds=[self.listening.fileno()],
            stdin=subprocess.PIPE,
        )

    def run(self, command: tuple[str, ...], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        with Path(os.devnull).open() as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            files = [nothing, out, err]
            code = ask(self.path, command, str(folder), environ, [file.fileno() for file in files])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(command, code, *texts)

    def words(self, module: str) -> list[str]:
        """The words of a command line that runs ``module`` here."""
        return [sys.executable, "-IS", asking.__file__, self.path, module]

    def script(self, module: str) -> str:
        """A shell script of it."""
        return f'#!/bin/sh\nexec {shlex.join(self.words(module))} "$@"\n'


@cache
def prepared() -> Prepared:
    """One for this process."""
    return Prepared()


def _serve(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            if os.fork() == 0:  # nobody's child, so that nobody needs to wait for it
                _answer(connection)
            os._exit(0)
        os.wait()
        connection.close()


def _answer(connection: socket.socket) -> None:
    """Run one command in a fork, say which process it is and how it ended; never returns."""
    try:
        head, files, _, _ = socket.recv_fds(connection, 32, 3)
        length, _, job = head.partition(b"\n")
        while len(job) < int(length):
            job += connection.recv(int(length) - len(job))
        ended, under_way = os.pipe()
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(json.loads(job), files)
        os.close(under_way)  # the command holds the other one
        connection.sendall(b"%d\n" % pid)
        ready, _, _ = select.select([ended, connection], [], [])
        if connection in ready:  # who asked is gone
            os.kill(pid, signal.SIGKILL)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        os._exit(0)


def _become(job: dict[str, object], files: list[int]) -> None:
    """Become the command; never returns."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which Python leaves out where it is ignored
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        # Made anew, since they remember what kind of file they were.
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        os.chdir(str(job["folder"]))
        os.environ.clear()
        os.environ.update(job["environ"])  # type: ignore[call-overload]
        module, *words = job["command"]  # type: ignore[misc]
        sys.argv = [module, *words]
        sys.path[0] = str(job["folder"])  # as `python -m` has it
        importlib.invalidate_caches()
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                sys.stderr.write(f"{error.code}\n")
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # what the forks share and do not write
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _serve(socket.socket(fileno=int(sys.argv[1])))
