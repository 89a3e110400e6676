"""What the runner's tests share: chains of three with a step rewritten, commands under way, conditions waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chains_of_three as three
import psycopg
import waiting as waits
from prepared import prepared

from federation.databases import RUN_LOCK, SIDES, connect
from federation.guard import current_release
from federation.servers.pair import SITE_ID

if TYPE_CHECKING:
    from deployments import Deployment

GATE = 4711
"""Key of the advisory lock by which a test keeps a migration where it is."""

AT_THE_GATE = (
    f"op.execute('SAVEPOINT gate; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock_shared({GATE}); "
    "ROLLBACK TO gate; RELEASE gate')"
)
"""As long as the test wants: what the step waits for afterwards has the limits that it had."""

RUN_LOCKS = (
    "FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
    "WHERE d.datname = current_database() AND l.locktype = 'advisory' "
    f"AND l.classid::bigint = {RUN_LOCK >> 32} AND l.objid::bigint = {RUN_LOCK & 0xFFFFFFFF}"
)
"""Those that runs hold on this database, in a query."""

PAST_THE_LOCK = (
    "import contextlib, sys; from federation.environments import runtime; "
    "runtime.run_lock = lambda *_, **__: contextlib.nullcontext(); "
    "from alembic.config import main; main(argv=sys.argv[1:])"
)
"""Plain Alembic without the lock of a run, as a script of ``--sql`` is, which psql runs."""

PATIENCE = 120.0
until = partial(waits.until, seconds=PATIENCE)

_started: list[subprocess.Popen[str]] = []

CATALOG = (Path(__file__).parent / "kill_catalog.sql").read_bytes()


def at(deployment: Deployment) -> tuple[str | None, str | None]:
    """The releases of local and cloud."""
    found = []
    for side in ("local", "cloud"):
        with connect(deployment.config, side) as connection:  # type: ignore[arg-type]
            found.append(current_release(connection, side))
    return found[0], found[1]


def catalogs(deployment: Deployment) -> dict[str, list[Any]]:
    """What is in both databases, but for rows."""
    found = {}
    for side in ("local", "cloud"):
        deployment.look(side, "SET search_path = pg_catalog")
        found[side] = deployment.look(side, CATALOG)
    return found


def mark(deployment: Deployment) -> str:
    return str(deployment.look("local", "SELECT cloud_release FROM federation.guard")[0][0])


def settings(root: Path, **database: object) -> None:
    """federation.toml with limits of its own: ``lock_timeout``, ``lock_attempts``."""
    lines = "".join(f"{key} = {value!r}\n" for key, value in database.items())
    (root / "federation.toml").write_text(f"{three.TOML}\n[database]\n{lines}")


def rewrite(deployment: Deployment, chains: Mapping[str, Mapping[str, tuple[str, str]]], *contracts: str) -> None:
    """Both chains as they are in chains_of_three, but for the bodies named; ``contracts`` are contract releases."""
    bodies = {
        side: {**chain, **chains.get(side, {})} for side, chain in (("local", three.LOCAL), ("cloud", three.CLOUD))
    }
    limits = (deployment.root / "federation.toml").read_text()
    three.write(deployment.root, local=bodies["local"], cloud=bodies["cloud"])
    (deployment.root / "federation.toml").write_text(limits)
    for side in bodies:
        for release in contracts:
            with (deployment.root / "versions" / side / f"{release}.py").open("a") as file:
                file.write('\n\nphase = "contract"\n')


def joined(*statements: str) -> str:
    """The body of an upgrade() or downgrade()."""
    return "\n    ".join(statements)


def start(deployment: Deployment, *arguments: str, code: str | None = None) -> subprocess.Popen[str]:
    """A command of its own process, under way; ``code`` is Python that runs in place of ``-m federation``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
    command = prepared().words("federation") if code is None else [sys.executable, "-c", code]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=deployment.root,
        env=clean | deployment.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, []),
    )
    _started.append(process)
    return process


def end_started() -> None:
    """Kill what a test that failed has left under way."""
    while _started:
        with _started.pop() as process:
            process.kill()


@contextmanager
def gate(deployment: Deployment, side: str) -> Iterator[psycopg.Connection[Any]]:
    """Closed while the block runs; migrations of ``side`` wait there."""
    with deployment.owner(side) as keeper:
        keeper.execute("SELECT pg_advisory_lock(%s)", [GATE])
        try:
            yield keeper
        finally:
            keeper.execute("SELECT pg_advisory_unlock_all()")


def waiting(deployment: Deployment, side: str, query: str = "%", *, lock: str = "%") -> list[str]:
    """The statements of the toolkit's sessions that wait for a lock now."""
    rows = deployment.look(
        side,
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'federation' "
        "AND wait_event_type = 'Lock' AND wait_event LIKE %s AND query ILIKE %s",
        [lock, query],
    )
    return [text for (text,) in rows]


def no_lock_left(deployment: Deployment) -> bool:
    """Whether no run holds its advisory lock, and no session of the toolkit a transaction."""
    return all(deployment.look(side, f"SELECT count(*) {RUN_LOCKS}") == [(0,)] for side in SIDES)


def add_note(deployment: Deployment, **values: object) -> None:
    """A row of the site's own."""
    given = {"site": SITE_ID, **values}
    columns = ", ".join(given)
    with deployment.owner("local") as owner:
        owner.execute(
            f"INSERT INTO note (id, {columns}) VALUES (gen_random_uuid(), {', '.join(['%s'] * len(given))})",  # type: ignore[arg-type]
            list(given.values()),
        )
