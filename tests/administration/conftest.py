"""One pair of servers for each version of PostgreSQL that this machine has, logging every statement."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig

from federation.administration import bootstrap
from federation.config import Config
from federation.databases import connect
from federation.servers import Pair, Server, find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from federation.errors import Side
    from federation.servers import Binaries

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", params=find_binaries(), ids=lambda binaries: binaries.version)
def binaries(request: pytest.FixtureRequest) -> Binaries:
    found: Binaries = request.param
    return found


@pytest.fixture(scope="session")
def pair(binaries: Binaries) -> Iterator[Pair]:
    settings = {"log_statement": "all", "log_min_duration_statement": "0", "log_error_verbosity": "verbose"}
    with Pair(binaries, settings=settings) as pair:
        yield pair


@pytest.fixture
def psql(binaries: Binaries, tmp_path: Path) -> Callable[[Server, str], subprocess.CompletedProcess[str]]:
    """Runs a script as a server's superuser, as an administrator would, against its database postgres."""

    def run(server: Server, script: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "bootstrap.sql"
        file.write_text(script)
        return subprocess.run(
            [binaries.bindir / "psql", "--no-psqlrc", "--file", file, server.url()],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def federated(pair: Pair) -> Config:
    """Both databases bootstrapped and both chains at head."""
    config = Config.load(None, pair.environment())
    sides: tuple[Side, Side] = ("local", "cloud")
    for side in sides:
        bootstrap.apply(config, side)
    for side in sides:
        alembic = AlembicConfig(ROOT / "alembic.ini", ini_section=side)
        with connect(config, side) as connection:
            alembic.attributes |= {"federation": config, "connection": connection}
            command.upgrade(alembic, "head")
    return config
