"""Deployments for tests: a pair of databases on a running pair of servers, and the ways in that users have."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from federation.administration import bootstrap, link
from federation.config import Config
from federation.lockstep import upgrade
from federation.servers import Pair
from federation.servers.pair import SITE_ID

ROOT = Path(__file__).parent.parent
OTHER = "00000000-0000-0000-0000-000000000002"


@dataclass
class Deployment:
    """One pair of databases. ``root`` is the folder with alembic.ini and federation.toml."""

    pair: Pair
    local_dbname: str
    cloud_dbname: str
    root: Path = ROOT
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return self.pair.environment(self.local_dbname, self.cloud_dbname) | self.extra

    @property
    def config(self) -> Config:
        return Config.load(self.root / "federation.toml", self.environ)

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
        return subprocess.run(
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

    def superuser(self, side: str) -> psycopg.Connection[Any]:
        """The server's superuser, autocommitting."""
        if side == "local":
            return self.pair.local.connect(self.local_dbname)
        return self.pair.cloud.connect(self.cloud_dbname)

    def owner(self, side: str) -> psycopg.Connection[Any]:
        """The database's owner, autocommitting."""
        return psycopg.connect(self.environ[f"FEDERATION_{side.upper()}_URL"], autocommit=True)

    @contextmanager
    def as_user(
        self, sub: str | None = SITE_ID, role: str = "authenticated", *, read_only: bool = False, **claims: object
    ) -> Iterator[psycopg.Cursor[Any]]:
        """One transaction as PostgREST runs it: the authenticator, SET LOCAL ROLE, the claims by set_config."""
        given = {**({"sub": sub} if sub else {}), "role": role, **claims}
        with psycopg.connect(self.pair.authenticator_url(self.cloud_dbname)) as connection:
            connection.read_only = read_only
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [json.dumps(given)])
                yield cursor

    def dump(self, side: str) -> str:
        """The schema, but for the toolkit's own books."""
        binaries = (self.pair.local if side == "local" else self.pair.cloud).binaries
        url = self.superuser_url(side)
        result = subprocess.run(
            [
                str(binaries.bindir / "pg_dump"),
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

    def superuser_url(self, side: str) -> str:
        if side == "local":
            return self.pair.local.url(dbname=self.local_dbname)
        return self.pair.cloud.url(dbname=self.cloud_dbname)


class Deployments:
    """Databases cloned from templates that are made once a pair of servers."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.numbers = itertools.count(1)

    @cached_property
    def base(self) -> tuple[str, str]:
        """Templates as bootstrap leaves them."""
        names = ("base_local", "base_cloud")
        self.pair.cloud.create_database(names[1])
        self.pair.prepare_cloud_database(names[1])
        config = Deployment(self.pair, *names).config
        bootstrap.apply(config, "local")
        bootstrap.apply(config, "cloud")
        return names

    @cached_property
    def head(self) -> tuple[str, str]:
        """Templates at BeanHealth's newest release."""
        with self._clone(self.base, keep=True) as deployment:
            upgrade(deployment.config)
            return deployment.local_dbname, deployment.cloud_dbname

    @contextmanager
    def at_base(self, root: Path = ROOT) -> Iterator[Deployment]:
        with self._clone(self.base) as deployment:
            deployment.root = root
            yield deployment

    @contextmanager
    def at_head(self) -> Iterator[Deployment]:
        with self._clone(self.head) as deployment:
            link.apply(deployment.config)
            yield deployment

    @contextmanager
    def _clone(self, templates: tuple[str, str], *, keep: bool = False) -> Iterator[Deployment]:
        number = next(self.numbers)
        names = (f"local_{number}", f"cloud_{number}")
        self.pair.local.create_database(names[0], owner="hospital_owner", template=templates[0])
        self.pair.cloud.create_database(names[1], owner="postgres", template=templates[1])
        deployment = Deployment(self.pair, *names)
        # A clone has the template's objects, and none of the privileges on the database itself.
        bootstrap.apply(deployment.config, "local")
        try:
            yield deployment
        finally:
            if not keep:
                self.pair.local.drop_database(names[0])
                self.pair.cloud.drop_database(names[1])


def copy_root(target: Path) -> Path:
    """The repository's alembic.ini, federation.toml and versions, to be changed by a test."""
    for name in ("alembic.ini", "federation.toml"):
        shutil.copy(ROOT / name, target / name)
    shutil.copytree(ROOT / "versions", target / "versions", ignore=shutil.ignore_patterns("__pycache__"))
    return target
