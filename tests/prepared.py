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
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

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
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(self.path)
            with asking.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps({"command": command, "folder": str(folder), "environ": environ}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
        return subprocess.CompletedProcess(command, answer["code"], answer["out"], answer["err"])


@cache
def prepared() -> Prepared:
    """One for this process."""
    return Prepared()


def _serve(listening: socket.socket) -> None:
    while True:
        asking, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            if os.fork() == 0:  # nobody's child, so that nobody needs to wait for it
                _answer(asking)
            os._exit(0)
        os.wait()
        asking.close()


def _answer(asking: socket.socket) -> None:
    """Run one command in a fork and say how it ended; never returns."""
    try:
        with (
            asking.makefile("rw", encoding="utf-8") as stream,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            job = json.loads(stream.readline())
            pid = os.fork()
            if pid == 0:
                _become(job, asking.fileno(), out.fileno(), err.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = {}
            for name, file in (("out", out), ("err", err)):
                file.seek(0)
                texts[name] = file.read().decode()
            stream.write(json.dumps({"code": code, **texts}) + "\n")
    finally:
        os._exit(0)


def _become(job: dict[str, object], asking: int, out: int, err: int) -> None:
    """Become the command; never returns."""
    code = 1
    try:
        os.close(asking)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
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
