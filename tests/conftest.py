"""One pair of servers for each version of PostgreSQL that this machine has, and deployments on them."""

from __future__ import annotations

import gc
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployments import ALL, Deployment, Deployments
from packaging.specifiers import SpecifierSet

from federation.servers import Binaries, Pair, find_binaries

FOUND = find_binaries()

ON_EACH_VERSION = {
    "test_callers",
    "test_linter",
    "test_full_link",
    "test_link_failures",
    "test_link_roles",
    "test_on_servers",
    "test_oracles",
    "test_privileges",
    "test_password_logs",
    "test_pushdown",
    "test_readers",
    "test_reading",
    "test_row_counts",
    "test_sessions",
    "test_writing",
}
"""Tests whose answers are the server's own, by file: policies, plans, how a link fails, what our SQL does.

The others are about the toolkit's own doing, and run on one version each, which their names decide.
"""


WITH_OWN_SERVERS = {"test_benchmarks", "test_binaries", "test_command", "test_docs", "test_kit_sessions"}
"""Files whose tests start servers without the fixtures: commands and pages do, as a user runs them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        if "binaries" in getattr(item, "fixturenames", ()) or item.path.stem in WITH_OWN_SERVERS:
            item.add_marker("server")
        chosen[ALL or _in_turn(item)].append(item)
    if chosen[False]:
        config.hook.pytest_deselected(items=chosen[False])
        items[:] = chosen[True]


def _in_turn(item: pytest.Item) -> bool:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    of_the_server = item.path.stem in ON_EACH_VERSION
    if "binaries" not in parameters or of_the_server or item.get_closest_marker("pg"):
        return True
    version = parameters["binaries"].version
    # What a file's tests share is made once: the kill matrix's world takes longer than most of its tests.
    name = item.path.name if "world" in item.fixturenames else item.nodeid.replace(version, "")
    return FOUND[zlib.crc32(name.encode()) % len(FOUND)].version == version


def pytest_collection_finish() -> None:
    """What has been imported and collected stays, and need not be looked through again and again."""
    gc.freeze()


@pytest.fixture
def world_writable() -> Iterator[Path]:
    """A folder that the servers' user may write. pytest's own are closed to others, anew by each session."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def pytest_report_header() -> str:
    return "PostgreSQL: " + ", ".join(f"{binaries.version} ({binaries.bindir})" for binaries in FOUND)


@pytest.fixture(scope="session", params=FOUND, ids=lambda binaries: binaries.version)
def binaries(request: pytest.FixtureRequest) -> Binaries:
    found: Binaries = request.param
    return found


@pytest.fixture(autouse=True)
def _path_as_before() -> Iterator[None]:
    """Alembic puts a chain's folder in front of what Python imports from."""
    before = sys.path.copy()
    yield
    sys.path[:] = before


@pytest.fixture(autouse=True)
def _right_version(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("pg")
    if marker is not None and "binaries" in request.fixturenames:
        binaries = request.getfixturevalue("binaries")
        if not SpecifierSet(marker.args[0]).contains(str(binaries.major)):
            pytest.skip(f"needs PostgreSQL {marker.args[0]}")


@pytest.fixture(scope="session")
def pair(binaries: Binaries) -> Iterator[Pair]:
    """Two servers that log every statement: what must not be in a log is looked for there."""
    settings = {"log_statement": "all", "log_min_duration_statement": "0", "log_error_verbosity": "verbose"}
    with Pair(binaries, settings=settings, memory=True) as pair:
        yield pair


@pytest.fixture(scope="session")
def federation_servers(pair: Pair) -> Pair:
    """The kit's own fixtures stand on the same servers."""
    return pair


@pytest.fixture(scope="session")
def deployments(pair: Pair) -> Iterator[Deployments]:
    with Deployments(pair) as deployments:
        yield deployments


@pytest.fixture(scope="session")
def federation_databases(deployments: Deployments) -> Deployments:
    return deployments


@pytest.fixture
def deployment(deployments: Deployments, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Two bootstrapped databases at base, as a new user of the repository has them; BeanHealth's chains."""
    with deployments.at_base() as deployment:
        deployment.enter(monkeypatch)
        yield deployment


@pytest.fixture
def federated(deployments: Deployments, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The same at head."""
    with deployments.at_head() as deployment:
        deployment.enter(monkeypatch)
        yield deployment
