"""A process that has imported the toolkit and run nothing: each command runs in a fork of it, which saves the imports.

    python kill_prepared.py [PREAMBLE]      jobs on standard input, a JSON object a line: arguments, environ, folder, log

It answers each with two lines: the process id, then the exit code (negative: the signal). PREAMBLE is Python that is
executed first: tests break the toolkit with it, to see that the matrix finds out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys

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
    """Become the command; never returns."""
    code = 1
    try:
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environ"])
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for standard, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(file, standard)
        from federation.cli import main

        main(job["arguments"], prog_name="federation")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    exec("".join(sys.argv[1:2]), {})  # noqa: S102
    gc.freeze()
    serve()
