"""Two servers behind a proxy, with templates at every release that a run starts from or leads to."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kill_chains import CHAINS
from kill_wire import POLL, Wire
from psycopg import sql

from federation.administration import bootstrap
from federation.config import Config
from federation.databases import SIDES
from federation.servers import Pair
from federation.testing.databases import quicken_logins

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import psycopg
    from kill_wire import POLL, Statement

    from federation.errors import Side
    from federation.servers import Binaries, Server

HERE = Path(__file__).parent
CATALOG = (HERE / "kill_catalog.sql").read_text()
DATABASES: dict[Side, str] = {"local": "hospital", "cloud": "app"}

PATIENCE = 60.0
"""Seconds until a command that does not end, or a session that does not go, is a failure."""

_LOGGED = re.compile(
    r"^\S+ \S+ UTC \[(?P<backend>\d+)\] (?P<role>\S+)@(?:hospital|app) (?P<transaction>\d+) LOG:  "
    r"(?:statement|execute [^:]*): (?P<text>.*)"
)
_STEP = re.compile(r"INSERT INTO federation\.history .* VALUES \('(\w+)', '(\w+)', '(\w+)'")


_SETTINGS = {
    # What was answered as committed survives the servers' being stopped; the machine itself never fails.
    "synchronous_commit": "on",
    "log_statement": "all",
    "log_line_prefix": "%m [%p] %q%u@%d %x ",
    # The rest is for speed: databases are copied and thrown away by the thousand.
    "autovacuum": "off",
    "dynamic_shared_memory_type": "mmap",  # in the data directory, which is removed after a crash
    "jit": "off",
    "log_checkpoints": "off",
    # A server that starts again has fewer processes to start, and less memory to lay out.
    "max_connections": "50",
    "max_logical_replication_workers": "0",
    "max_wal_senders": "0",
    "shared_buffers": "16MB",
    "wal_level": "replica",
}
_SETTINGS_OF_18 = {"io_method": "sync"}  # instead of processes that read for others


@dataclass(frozen=True)
class Found:
    """What both databases hold: catalogs and rows, and the books, which no two runs share."""

    catalogs: dict[Side, list[str]]
    rows: list[tuple[Any, ...]]
    releases: dict[Side, str]
    mark: str | None
    steps: dict[Side, list[tuple[str, ...]]]
    """Of the history: from, to and result."""


class Prepared:
    """The process of kill_prepared.py."""

    def __init__(self, wire: Wire, preamble: str = "") -> None:
        self.wire = wire
        command = [sys.executable, str(HERE / "kill_prepared.py"), preamble]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.fork = 0
        self.said = b""
        wire.watch(self.stdout.fileno())
        os.set_blocking(self.stdout.fileno(), False)

    def close(self) -> None:
        self.wire.unwatch(self.stdout.fileno())
        self.stdin.close()
        self.stdout.close()
        self.process.wait(PATIENCE)

    def warm(self, commands: Sequence[Sequence[str]], environ: dict[str, str], folder: Path, log: Path) -> int:
        """Run ``commands`` in the process itself, whose forks are faster then; 0, or the code of one that failed."""
        self._give(commands, environ, folder, log, warm=True)
        return self._number()

    def start(self, commands: Sequence[Sequence[str]], environ: dict[str, str], folder: Path, log: Path) -> int:
        """The process id of the fork that runs ``commands``."""
        self._give(commands, environ, folder, log, warm=False)
        select.select([self.stdout], [], [], PATIENCE)  # the wire waits, or a trap might spring first
        self.fork = self._number()
        return self.fork

    def _give(
        self, commands: Sequence[Sequence[str]], environ: dict[str, str], folder: Path, log: Path, *, warm: bool
    ) -> None:
        job = {"commands": commands, "environ": environ, "folder": str(folder), "log": str(log), "warm": warm}
        self.stdin.write(json.dumps(job).encode() + b"\n")

    def end(self) -> int:
        """The exit code of a command, once it has ended; the wire works meanwhile."""
        try:
            return self._number()
        except AssertionError:
            os.kill(self.fork, signal.SIGKILL)
            self._number()
            raise

    def go_on(self, word: str) -> None:
        """``on`` to the next command, or ``stop``."""
        self.stdin.write(f"{word}\n".encode())

    def _number(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self.said:
            assert time.monotonic() < deadline, "the command did not end"
            if self.stdout.fileno() in self.wire.poll(1):
                said = self.stdout.read()
                assert said, "the prepared process has ended"
                self.said += said
        line, self.said = self.said.split(b"\n", 1)
        return int(line)


class World:
    """A pair of servers, from ``with`` to the end of it; in its databases everything starts from `clone`."""

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        self.folder = folder
        settings = _SETTINGS | (_SETTINGS_OF_18 if binaries.major >= 18 else {})
        self.pair = Pair(binaries, settings=settings, memory=True)
        self.roots = {kind: folder / kind for kind in CHAINS}
        self.stack = ExitStack()
        self.pool = ThreadPoolExecutor(2)
        self.found: dict[str, Found] = {}
        self.recorded: dict[str, Any] = {}
        self.runner_said = ""
        self.templates: dict[str, Found] = {}
        self.recoveries = 0
        self.recovered: set[str] = set()
        """States of the databases, as `Found` shows them, from which a recovery was seen."""
        self.cloned: tuple[str, list[int]] = "", []
        self.pristine: str | None = None
        """The template that the databases still are."""
        self.crashed: set[Side] = set()
        self.before_crash: dict[Side, list[tuple[str, ...]]] = {side: [] for side in SIDES}
        """What `logged_steps` had found when the server came back: ids that it lost are given out again."""
        self._sessions: dict[tuple[Side, str], psycopg.Connection[Any]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.pool)
            stack.enter_context(self.pair)
            ports = {"local": self.pair.local.port, "cloud": self.pair.cloud.port, "link": self.pair.local.port}
            self.wire = stack.enter_context(Wire(ports))
            self.prepared = Prepared(self.wire)
            stack.callback(self.prepared.close)
            stack.callback(self.disconnect)
            for kind, chain in CHAINS.items():
                self.roots[kind].mkdir()
                chain.write(self.roots[kind])
            self.pair.cloud.create_database(DATABASES["cloud"])
            self.pair.prepare_cloud_database(DATABASES["cloud"])
            config = self.config("expand")
            for side in SIDES:
                bootstrap.apply(config, side)
            quicken_logins(self.pair, config)
            self.keep("base")
            self._warm()
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stack.__exit__(kind, error, traceback)

    def _warm(self) -> None:
        commands = ["upgrade", "--yes"], ["downgrade", "base", "--yes"]
        code = self.prepared.warm(
            commands, self._process_environ(through_wire=True), self.roots["contract"], self.folder / "said"
        )
        assert code == 0, self.said

    def server(self, side: Side) -> Server:
        return self.pair.local if side == "local" else self.pair.cloud

    def environ(self, *, through_wire: bool = False) -> dict[str, str]:
        """The commands' variables. The cloud finds the hospital through the wire in any case."""
        environ = self.pair.environment(*DATABASES.values())
        environ |= {"FEDERATION_LINK_PORT": str(self.wire.ports["link"]), "FEDERATION_LINK_SSLMODE": "disable"}
        for side in SIDES if through_wire else ():
            name = f"FEDERATION_{side.upper()}_URL"
            environ[name] = environ[name].replace(f":{self.server(side).port}/", f":{self.wire.ports[side]}/")
        return environ

    def config(self, kind: str) -> Config:
        return Config.load(self.roots[kind] / "federation.toml", self.environ())

    @property
    def said(self) -> str:
        """What the last command of `start` or `federation` printed."""
        return (self.folder / "said").read_text()

    def start(self, kind: str, *arguments: str, prepared: Prepared | None = None) -> int:
        """Start a command whose statements go through the wire; its process id."""
        environ = self._process_environ(through_wire=True)
        return (prepared or self.prepared).start([arguments], environ, self.roots[kind], self.folder / "said")

    def federation(self, kind: str, *arguments: str) -> int:
        """Run a command to its end; its exit code."""
        (code,) = self.each(kind, arguments)
        return code

    def each(self, kind: str, *commands: Sequence[str], interpreter: bool = False) -> Iterator[int]:
        """Run commands in one fresh process, or each in an ``interpreter`` of its own; the exit codes, each when it
        is known and before the next command."""
        environ, folder, said = self._process_environ(), self.roots[kind], self.folder / "said"
        if interpreter:
            for arguments in commands:
                command = [sys.executable, "-m", "federation", *arguments]
                with (
                    said.open("wb") as log,
                    subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log) as process,
                ):
                    self.until(lambda process=process: process.poll() is not None, "the command did not end")
                    yield process.returncode
            return
        self.prepared.start(commands, environ, folder, said)
        left = len(commands)
        try:
            while left:
                code = self.prepared.end()
                left -= 1
                yield code
                if left:
                    self.prepared.go_on("on")
        finally:
            if left:
                self.prepared.go_on("stop")
                self.prepared.end()

    def _process_environ(self, *, through_wire: bool = False) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
        return clean | self.environ(through_wire=through_wire)

    def until(self, condition: Any, otherwise: str) -> None:
        """Let the wire work until ``condition()``."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, otherwise
            self.wire.poll(0.005)

    def session(self, side: Side, dbname: str = "postgres") -> psycopg.Connection[Any]:
        """The superuser's, kept until the server is stopped."""
        key = (side, dbname)
        if key not in self._sessions:
            self._sessions[key] = self.server(side).connect(dbname)
        return self._sessions[key]

    def disconnect(self, side: Side | None = None, dbname: str | None = None) -> None:
        for key in list(self._sessions):
            if side in {None, key[0]} and dbname in {None, key[1]}:
                self._sessions.pop(key).close()

    def leave_databases(self) -> None:
        """End the superuser's sessions in both, and return when they are gone.

        A server that finds one when it drops a database, or copies it, looks again 0.1 s later.
        """
        for side, database in DATABASES.items():
            if (session := self._sessions.get((side, database))) is not None:
                backend = session.info.backend_pid
                self.disconnect(side, database)
                self.until(partial(self._is_gone, side, backend), "a session does not end")

    def _is_gone(self, side: Side, backend: int) -> bool:
        query = "SELECT FROM pg_stat_activity WHERE pid = %s"
        return not self.session(side).execute(query, [backend]).rowcount

    def keep(self, name: str) -> None:
        """Make templates of both databases as they are."""
        self.leave_databases()
        for side, database in DATABASES.items():
            self.until(lambda side=side: not self.sessions_left(side), "a session does not end")
            self.server(side).create_database(f"{name}_{side}", template=database)
            with self.server(side).connect(f"{name}_{side}") as copy:  # which leaves the cache file for its copies, too
                if copy.execute("SELECT to_regclass('federation.pair')").fetchone() != (None,):
                    copy.execute("DELETE FROM federation.pair")  # a copy is another database
        if name != "base":
            self.found[name] = self.look()

    def clone(self, name: str) -> None:
        """Both databases anew from their templates, unless they are what was cloned; the servers' logs begin again."""
        if self.pristine != name:
            self.leave_databases()
            list(self.pool.map(lambda side: self._clone(side, name), SIDES))
        for side in SIDES:
            os.truncate(self.server(side).log, 0)
            self.before_crash[side] = []
        self.pristine = None
        self.cloned = name, [self._next_transaction(side) for side in SIDES]

    def written(self) -> bool:
        """Whether any transaction since `clone` had an id; without one the databases are what was cloned."""
        return [self._next_transaction(side) for side in SIDES] != self.cloned[1]

    def _next_transaction(self, side: Side) -> int:
        query = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        return int(self.session(side).execute(query).fetchall()[0][0])

    def _clone(self, side: Side, name: str) -> None:
        database, owner = DATABASES[side], {"local": "hospital_owner", "cloud": "postgres"}[side]
        session = self.session(side)
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
        session.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(database), sql.Identifier(owner), sql.Identifier(f"{name}_{side}")
            )
        )
        if side == "local":
            session.execute(self._privileges)

    @cached_property
    def _privileges(self) -> sql.Composed:
        """What a clone does not have of its template: privileges on the database itself, and roles' settings in it."""
        whole = [
            statement.command
            for statement in bootstrap.statements(self.config("expand"), "local")
            if statement.database == "target" and b"DATABASE" in statement.command.as_bytes(None)
        ]
        return sql.SQL("; ").join(whole)

    def stop(self, side: Side) -> None:
        """Immediately: a crash."""
        self.disconnect(side)
        self.server(side).stop("immediate")
        self.crashed.add(side)

    def restart(self) -> None:
        """Start what was stopped."""
        for side in self.crashed:
            self.server(side).start()
            self.before_crash[side] = self.logged_steps(side)
            os.truncate(self.server(side).log, 0)
        self.crashed.clear()

    def terminate(self, side: Side, backend: int) -> None:
        self.session(side).execute("SELECT pg_terminate_backend(%s)", [backend])

    def sessions_left(self, side: Side) -> list[tuple[Any, ...]]:
        """Sessions of the runner and of the link, and advisory locks."""
        return (
            self.session(side)
            .execute(
                "SELECT a.pid::text, a.application_name, a.state, a.query FROM pg_stat_activity AS a "
                "WHERE a.datname = %(name)s AND a.usename <> %(superuser)s "
                "UNION ALL SELECT pid::text, 'lock', mode, '' FROM pg_locks WHERE locktype = 'advisory'",
                {"name": DATABASES[side], "superuser": self.server(side).superuser},
            )
            .fetchall()
        )

    def lock_left(self, side: Side) -> bool:
        query = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')"
        return bool(self.session(side).execute(query).fetchall()[0][0])

    def read_releases(self) -> dict[Side, str]:
        """As the version tables have them; base is empty."""
        return {side: self._release(side) for side in SIDES}

    def _release(self, side: Side) -> str:
        version = "SELECT version_num FROM federation.alembic_version"
        return "".join(name for (name,) in self._rows(side, "federation.alembic_version", version))

    def look(self) -> Found:
        catalogs, steps = {}, {}
        for side in SIDES:
            session = self.session(side, DATABASES[side])
            session.execute("SET search_path = pg_catalog")
            catalogs[side] = [line for (line,) in session.execute(CATALOG, prepare=True)]
            history = "SELECT from_release, to_release, result FROM federation.history ORDER BY id"
            steps[side] = self._rows(side, "federation.history", history)
        rows = self._rows("local", "public.note", "SELECT to_jsonb(note)::text FROM public.note ORDER BY id")
        marks = self._rows("local", "federation.guard", "SELECT cloud_release FROM federation.guard")
        return Found(catalogs, rows, self.read_releases(), marks[0][0] if marks else None, steps)

    def _rows(self, side: Side, table: str, query: str) -> list[tuple[Any, ...]]:
        """Of a table that may not be there."""
        session = self.session(side, DATABASES[side])
        there = session.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchall() == [(True,)]
        return session.execute(query).fetchall() if there else []

    def logged_steps(self, side: Side) -> list[tuple[str, ...]]:
        """From, to and result of the steps whose COMMIT is in the server's log and was carried out."""
        steps: dict[str, tuple[str, ...]] = {}
        asked = []
        for line in self._logged(side):
            backend, text = line["backend"], line["text"]
            if text.startswith("BEGIN"):
                steps.pop(backend, None)
            elif match := _STEP.match(text):
                steps[backend] = match.groups()
            elif text.startswith("COMMIT") and backend in steps:
                asked.append((line["transaction"], steps.pop(backend)))
        session = self.session(side)
        status = (
            "SELECT CASE WHEN %(id)s::xid8 < pg_snapshot_xmax(pg_current_snapshot()) "
            "THEN pg_xact_status(%(id)s::xid8) = 'committed' END"
        )
        carried_out = [step for id_, step in asked if session.execute(status, {"id": id_}).fetchall() == [(True,)]]
        return [*self.before_crash[side], *carried_out]

    def logged_statements(self, side: Side) -> list[str]:
        """The first lines of the statements of the database's owner and of the link."""
        return [line["text"] for line in self._logged(side) if not line["text"].startswith(POLL)]

    def _logged(self, side: Side) -> Iterator[re.Match[str]]:
        server = self.server(side)
        matches = map(_LOGGED.match, server.log_text().splitlines())
        return (match for match in matches if match is not None and match["role"] != server.superuser)

    def record(self, kind: str, *arguments: str, prepared: Prepared | None = None) -> list[Statement]:
        """Run a command undisturbed: its statements."""
        self.wire.arm(None)
        self.start(kind, *arguments, prepared=prepared)
        assert (prepared or self.prepared).end() == 0, self.said
        statements = self.wire.statements
        self.wire.arm(None)
        return statements
