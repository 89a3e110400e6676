"""The pytest plugin: servers, templates and a pair of databases for each test. docs/test.md shows it.

It is loaded by every pytest of the environment that it is installed in, so what it needs is imported where it is
needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

if TYPE_CHECKING:
    from pytest_postgresql.executors import NoopExecutor

    from federation.config import Config
    from federation.errors import Side
    from federation.servers import Binaries
    from federation.servers.pair import RunningPair
    from federation.testing.databases import Databases
    from federation.testing.pair import FederationPair

_SETTINGS = {
    "federation_config": "the federation.toml whose chains are tested (default: the one in rootdir, or here)",
    "federation_pg": "the servers' version, as in 15, or all that are found here (default: the preferred one)",
    "federation_local_server": "URL of the superuser of a server that runs, for the hospital's databases",
    "federation_cloud_server": "URL of the superuser of a server that runs, for the cloud's databases",
    "federation_link": "HOST:PORT under which the cloud's server finds the hospital's, if they are given",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Each setting as an option, in the ini file, or as a variable FEDERATION_TEST_…."""
    group = parser.getgroup("federation")
    for name, text in _SETTINGS.items():
        group.addoption(f"--{name.replace('_', '-')}", dest=name, help=text)
        parser.addini(name, text)
    for side, name in (("local", "hospital's"), ("cloud", "cloud's")):
        text = f"SQL files that the owner runs on the {name} empty database, for what is not in the chains"
        parser.addini(f"federation_{side}_load", text, type="paths")
    parser.addini("federation_shared", "tables that every account may read, for the leak probe", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "federation(release='head', local=None, pg=None): what federation_pair is for this test: at release, "
        "with the hospital at another one (local); only on servers of that version, as in pg='>=16'",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run for each server, and one of a check for each table or release."""
    version = _setting(metafunc.config, "federation_pg")
    if version is not None and "federation_servers" in metafunc.fixturenames:
        with told():
            found = _binaries(version)
        ids = [binaries.version for binaries in found]
        metafunc.parametrize("federation_servers", found, indirect=True, scope="session", ids=ids)
    if "federation_table" in metafunc.fixturenames:
        with told():
            tables = _toml(metafunc.config).tables.exported
        metafunc.parametrize("federation_table", tables)
    if "federation_release" in metafunc.fixturenames:
        with told():
            _toml(metafunc.config)
        metafunc.parametrize("federation_release", _releases(metafunc.config))


@pytest.fixture(scope="session")
def federation_servers(request: pytest.FixtureRequest) -> Iterator[RunningPair]:
    """Both servers: those started for this session (a worker of pytest-xdist has its own), or those that were given."""
    from federation.errors import PreconditionMissing
    from federation.servers import Pair
    from federation.testing.given import GivenPair

    local, cloud = (_setting(request.config, f"federation_{side}_server") for side in ("local", "cloud"))
    if local and cloud:  # the version is theirs
        link, toml = _setting(request.config, "federation_link"), _toml(request.config)
        with told(), GivenPair(local, cloud, link, toml) as given:
            yield given
    elif local or cloud:
        with told():
            raise PreconditionMissing(
                "only one of the two servers for tests is given",
                hint="give both --federation-local-server and --federation-cloud-server, or neither",
            )
    else:
        with told(), Pair(getattr(request, "param", None), memory=True) as pair:
            yield pair


@pytest.fixture(scope="session")
def federation_databases(request: pytest.FixtureRequest, federation_servers: RunningPair) -> Iterator[Databases]:
    """Templates, and pairs cloned from them, for a test that needs more than one: ``.make_pair("0002")``."""
    from federation.testing.databases import Databases

    label = getattr(federation_servers, "label", "federation")
    load: dict[Side, list[Path]] = {
        side: request.config.getini(f"federation_{side}_load") for side in ("local", "cloud")
    }
    with told(), Databases(federation_servers, _file(request.config), label, load=load) as databases:
        yield databases


@pytest.fixture
def federation_pair(request: pytest.FixtureRequest, federation_databases: Databases) -> Iterator[FederationPair]:
    """This test's own pair of databases, linked and at head, or as the marker ``federation`` says."""
    marker = request.node.get_closest_marker("federation")
    wanted: dict[str, Any] = dict(marker.kwargs) if marker else {}
    if marker and (marker.args or wanted.keys() - {"release", "local", "pg"}):
        pytest.fail(
            f"the marker {marker.name} takes release=, local= and pg= by name, and nothing else: {_shown(marker)}",
            pytrace=False,
        )
    if version := wanted.pop("pg", None):
        _skip_other_versions(federation_databases.servers, version)
    with told(), federation_databases.make_pair(**wanted) as pair:
        yield pair


@pytest.fixture(scope="session")
def federation_local_noproc(federation_databases: Databases) -> NoopExecutor:
    """The hospital's server for pytest-postgresql: ``factories.postgresql("federation_local_noproc")`` clones head."""
    return _noproc(federation_databases, "local")


@pytest.fixture(scope="session")
def federation_cloud_noproc(federation_databases: Databases) -> NoopExecutor:
    """The cloud's server for pytest-postgresql; the clone has no hospital of its own behind it."""
    return _noproc(federation_databases, "cloud")


@pytest.fixture(scope="session")
def federation_toml(request: pytest.FixtureRequest) -> Config:
    """The federation.toml, without any database."""
    with told():
        return _toml(request.config)


@pytest.fixture
def federation_accounts() -> Mapping[str, Mapping[str, object]]:
    """For the checks: two accounts and their claims. A conftest.py may say others; the first has rows everywhere."""
    from federation.servers.pair import SITE_ID

    return {SITE_ID: {}, str(UUID(int=0xACC)): {}}


@pytest.fixture
def federation_rows() -> Mapping[str, Mapping[str, object]]:
    """For the checks: what a row of the first account holds, by table, where the kit does not find out by itself."""
    return {}


@contextmanager
def told() -> Iterator[None]:
    """Fail the test with the sentence of a FederationError, without a traceback."""
    from federation.errors import FederationError

    try:
        yield
    except FederationError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _noproc(databases: Databases, side: str) -> NoopExecutor:
    from pytest_postgresql.executors import NoopExecutor

    server = databases.servers.local if side == "local" else databases.servers.cloud
    with told():
        template = databases.template()["local" if side == "local" else "cloud"]
    return NoopExecutor(
        host=server.host,
        port=server.port,
        user=server.superuser,
        password=server.password,
        options="",
        dbname=template.removesuffix("_tmpl"),  # it clones the database of that name with _tmpl
    )


def _setting(config: pytest.Config, name: str) -> str | None:
    found = config.getoption(name) or os.environ.get(name.upper().replace("_", "_TEST_", 1)) or config.getini(name)
    return str(found) if found else None


def _file(config: pytest.Config) -> Path:
    from federation.errors import PreconditionMissing

    if named := _setting(config, "federation_config"):
        return config.rootpath / named
    found = [folder / "federation.toml" for folder in (config.rootpath, config.invocation_params.dir)]
    for file in found:
        if file.exists():
            return file
    raise PreconditionMissing(f"there is no {found[0]}", hint="name the project's with --federation-config")


def _toml(config: pytest.Config) -> Config:
    from federation.config import Config

    return Config.load(_file(config), {})


def _releases(config: pytest.Config) -> tuple[str, ...]:
    """None where the chains cannot be read: a check of its own says why."""
    from federation.errors import FederationError
    from federation.lockstep import Releases

    try:
        return Releases.load(_toml(config)).ids
    except FederationError:
        return ()


def _binaries(version: str) -> list[Binaries]:
    from federation.errors import PreconditionMissing
    from federation.servers import find_binaries

    found = [binaries for binaries in find_binaries() if version in {"all", binaries.version, str(binaries.major)}]
    if not found:
        raise PreconditionMissing(
            f"--federation-pg={version}: there is no such PostgreSQL server on this machine",
            hint=f"it has {', '.join(binaries.version for binaries in find_binaries()) or 'none'}",
        )
    return found


def _shown(marker: pytest.Mark) -> str:
    given = [*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())]
    return f"{marker.name}({', '.join(given)})"


def _skip_other_versions(servers: RunningPair, wanted: str) -> None:
    """A marker's pg, as in ``>=16``, is about both servers."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        versions = SpecifierSet(wanted)
    except (InvalidSpecifier, TypeError, AttributeError):
        raise pytest.fail.Exception(
            f"the marker's pg={wanted!r} is no version as in pg='>=16' or pg='==15'", pytrace=False
        ) from None
    for server in (servers.local, servers.cloud):
        with server.connect() as connection:
            major = connection.info.server_version // 10_000
        if not versions.contains(str(major)):
            pytest.skip(f"needs PostgreSQL {wanted}, and this is {major}; --federation-pg chooses another")
