"""A process that has imported the toolkit: commands run in a fork of it, which saves the imports.

    python kill_prepared.py [PREAMBLE]      jobs on standard input, a JSON object a line, see `Prepared`

It answers each with the fork's process id and a line a command, its exit code (negative: the signal); before it goes
on to the next command it waits for a line. What is to ``warm`` it runs itself, and answers with one code: a command is
twice as fast where another has run, and sends the same statements. PREAMBLE is Python that is executed first: tests
break the toolkit with it, to see that the matrix finds out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
import traceback

MODULES = (
    "alembic.command",
    "alembic.ddl.postgresql",
    "federation.cli.downgrade",
    "federation.cli.status",
    "federation.cli.upgrade",
    "federation.environments.runtime",
    "federation.verification",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
)


def serve() -> None:
    asked, answered = os.fdopen(os.dup(0)), os.dup(1)
    for line in asked:
        job = json.loads(line)
        if job["warm"]:
            code = _warm(job)
        else:
            pid = os.fork()
            if pid == 0:
                _run(job, asked.fileno(), answered)
            os.write(answered, f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
        os.write(answered, f"{code}\n".encode())


def _warm(job: dict) -> int:
    """Run the commands here, once: what the interpreter then knows (bytecode, patterns, types) each fork has as well.

    What the toolkit knows of a database is forgotten. The first code that is not 0, or 0.
    """
    from federation.databases.sessions import _engine

    _become(job)
    code = next(filter(None, map(_command, job["commands"])), 0)
    _engine.cache_clear()
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join()  # a timer that was cancelled
    _freeze()
    return code


def _run(job: dict, asked: int, answered: int) -> None:
    """Become the commands; never returns."""
    code = 1
    try:
        _become(job)
        *earlier, last = job["commands"]
        for arguments in earlier:
            code = _command(arguments)
            os.write(answered, f"{code}\n".encode())
            if os.read(asked, 100) != b"on\n":
                return
        code = _command(last)
    finally:
        os._exit(code)


def _become(job: dict) -> None:
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environ"])
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for standard, file in ((0, nothing), (1, log), (2, log)):
        os.dup2(file, standard)
    os.close(log)
    os.close(nothing)


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


def _freeze() -> None:
    """Forks are short-lived, and share the memory that is not written."""
    gc.collect()
    gc.freeze()
    gc.disable()


if __name__ == "__main__":
    sys.dont_write_bytecode = False  # revision files are the same in every fork
    for name in MODULES:
        importlib.import_module(name)
    exec("".join(sys.argv[1:2]), {})  # noqa: S102
    _freeze()
    serve()
