"""A process that has imported the toolkit and run nothing: commands run in a fork of it, which saves the imports.

    python kill_prepared.py [PREAMBLE]      jobs on standard input, a JSON object a line: commands, environ, folder, log

It answers each with the fork's process id and a line a command, its exit code (negative: the signal); before it goes
on to the next command it waits for a line. PREAMBLE is Python that is executed first: tests break the toolkit with
it, to see that the matrix finds out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback

MODULES = (
    "alembic.command",
    "alembic.ddl.postgresql",
    "federation.cli.downgrade",
    "federation.cli.status",
    "federation.cli.upgrade",
    "federation.environments.runtime",
    "federation.lockstep.verification",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
)


def serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(job)
        os.write(1, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run(job: dict) -> None:
    """Become the commands; never returns."""
    code = 1
    try:
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environ"])
        asked, answered = os.dup(0), os.dup(1)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for standard, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(file, standard)
        *earlier, last = job["commands"]
        for arguments in earlier:
            code = _command(arguments)
            os.write(answered, f"{code}\n".encode())
            if os.read(asked, 100) != b"on\n":
                return
        code = _command(last)
    finally:
        os._exit(code)


def _command(arguments: list[str]) -> int:
    from federation.cli import main

    try:
        main(arguments, prog_name="federation")
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 1


if __name__ == "__main__":
    sys.dont_write_bytecode = False  # revision files are the same in every fork
    for name in MODULES:
        importlib.import_module(name)
    exec("".join(sys.argv[1:2]), {})  # noqa: S102
    gc.freeze()
    gc.disable()  # forks are short-lived, and share the memory that is not written
    serve()
