"""Deployments for tests: the kit's pairs of databases, and the ways in that users have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from prepared import prepared

from federation.errors import Side
from federation.servers import Pair
from federation.testing.databases import Databases, Names
from federation.testing.pair import FederationPair

ROOT = Path(__file__).parent.parent
ALL = os.environ.get("FEDERATION_TESTS") == "all"
"""Every test on every version, and more examples; otherwise tests that do not ask a server about itself take turns."""
OTHER = "00000000-0000-0000-0000-000000000002"


class Deployment(FederationPair):
    """One pair of databases on servers of ours. ``root`` is the folder with alembic.ini and federation.toml."""

    @property
    def pair(self) -> Pair:
        return cast(Pair, self.servers)

    @property
    def root(self) -> Path:
        return self.file.parent

    @root.setter
    def root(self, folder: Path) -> None:
        self.file = folder / "federation.toml"

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in the folder with the variables set, as a user does."""
        for name in list(os.environ):
            if name.startswith("FEDERATION_"):
                monkeypatch.delenv(name)
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.root)

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A command of the installed distribution (``federation …``, ``alembic …``) as a process of its own."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FEDERATION_")}
        if not any(name.startswith("PYTHON") for name in environ):
            return prepared().run(command, self.root, clean | self.environ | environ)
        return subprocess.run(  # what is for Python's own start must be there then
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=clean | self.environ | environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def federation(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run("federation", *arguments, **environ)

    def alembic(self, side: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run("alembic", "-n", side, *arguments, **environ)

    def look(self, side: Side, query: bytes | str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What the superuser reads, in a session that stays open: looking is what most tests do most."""
        session = self._lookers.get(side)
        if session is None or session.closed:
            session = self._lookers[side] = self.superuser(side)
        cursor = session.execute(query, parameters or None)  # type: ignore[arg-type]
        return [] if cursor.description is None else cursor.fetchall()  # no column is an answer, too

    @cached_property
    def _lookers(self) -> dict[Side, psycopg.Connection[Any]]:
        return {}

    def dump(self, side: str) -> str:
        """The schema, but for the toolkit's own books."""
        binaries = (self.pair.local if side == "local" else self.pair.cloud).binaries
        url = self.superuser_url(side)
        result = subprocess.run(
            [
                str(binaries.program("pg_dump")),
                "--schema-only",
                "--restrict-key=x",
                "--exclude-schema=federation",
                url,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout

    def pg_restore(self, side: str, file: Path, option: str) -> None:
        """A dump of ours. Its user mappings hold passwords, and other tests look for them in the servers' logs."""
        quiet = "-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic"
        subprocess.run(
            [
                str((self.pair.local if side == "local" else self.pair.cloud).binaries.program("pg_restore")),
                option,
                f"--dbname={self.superuser_url(side)}",
                file,
            ],
            env=os.environ | {"PGOPTIONS": quiet},
            check=True,
            capture_output=True,
        )

    def superuser_url(self, side: str) -> str:
        if side == "local":
            return self.pair.local.url(dbname=self.local_dbname)
        return self.pair.cloud.url(dbname=self.cloud_dbname)


class Deployments(Databases):
    """The kit's databases of BeanHealth's chains, as Deployments."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair, ROOT / "federation.toml")

    @property
    def pair(self) -> Pair:
        return cast(Pair, self.servers)

    def pair_of(self, names: Names) -> Deployment:
        return Deployment(self.servers, names["local"], names["cloud"], self.file)

    @contextmanager
    def at_base(self, root: Path = ROOT) -> Iterator[Deployment]:
        """Two bootstrapped databases; ``root`` is the folder whose chains are run on them."""
        with self.make_pair("base") as deployment:
            deployment.root = root
            yield deployment

    @contextmanager
    def at_head(self) -> Iterator[Deployment]:
        with self.make_pair() as deployment:
            yield deployment


def copy_root(target: Path) -> Path:
    """The repository's alembic.ini, federation.toml and versions, to be changed by a test."""
    for name in ("alembic.ini", "federation.toml"):
        shutil.copy(ROOT / name, target / name)
    shutil.copytree(ROOT / "versions", target / "versions", ignore=shutil.ignore_patterns("__pycache__"))
    return target
