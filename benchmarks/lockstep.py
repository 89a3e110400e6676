"""What lockstep costs: `federation upgrade head` beside two alembic commands, beside psql, beside bare imports, and
beside itself without guard and verification; then chains of a hundred small releases.

    make bench        (or: python benchmarks/lockstep.py [--rounds N] [--pg-bin DIR] [--json])

Each contender is a process of its own that takes a fresh pair of bootstrapped databases from base to head; making the
databases is not measured. A round runs every contender once, and each round begins with another one. A round that is
not counted comes first: it fills the caches. Exit code 0 whether or not the targets are met, 1 if a contender fails.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import click
import many_releases
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from federation.administration import bootstrap
from federation.config import Config
from federation.databases import SIDES, connect
from federation.errors import FederationError, Side
from federation.guard import current_release
from federation.lockstep import Releases
from federation.servers import Pair

ROOT = Path(__file__).resolve().parent.parent

SCHEMA_VERSION = 1
"""Version of the JSON object."""

MOST_OVER_PSQL = 1.3
"""Seconds that ``federation upgrade head`` may take longer than psql."""

MANY = 100
"""Releases of the long chains."""

RELEASES_A_SECOND = 8.0
"""How many of them are to be done in a second, both sides, guard and verification included."""

# The runner without what makes it safe, for comparison only: no release is verified, the trigger lets all pass, and the
# hospital is told nothing.
_UNGUARDED = """
from federation import guard
from federation.cli import main
from federation.guard import housekeeping
from federation import verification
from federation.lockstep import preflight

verification.verify = lambda *_: None
guard.settle = preflight.require_link = lambda *_: None
housekeeping._TRIGGER += (
    "; CREATE OR REPLACE FUNCTION federation.guard_version() RETURNS trigger "
    "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
)
main()
"""

_PYTHON = (sys.executable, "-m")
_IMPORTS = "import federation.cli.upgrade, federation.environments.runtime, alembic.command"


class Failed(Exception):
    """A contender did not do its work."""


@dataclass
class Contender:
    """What is measured: its commands, one after the other, each with variables of its own."""

    name: str
    commands: Sequence[tuple[Sequence[str | Path], Mapping[str, str]]]
    migrates: bool = True
    root: Path = ROOT
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def run(self, environ: Mapping[str, str]) -> tuple[float, str]:
        """Seconds, and what the last command wrote to standard output. Raises Failed."""
        started, output = time.perf_counter(), ""
        for command, variables in self.commands:
            output = _run(command, {**environ, **variables}, self.root)
        return time.perf_counter() - started, output

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "median": round(self.median, 3),
            "min": round(min(self.seconds), 3),
            "max": round(max(self.seconds), 3),
            "seconds": [round(seconds, 3) for seconds in self.seconds],
        }


class Databases:
    """The hospital's and the app's database on a running pair, made anew for every run under the same two names."""

    names = ("hospital", "app")
    templates = ("hospital_template", "app_template")

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        pair.cloud.create_database(self.templates[1])
        pair.prepare_cloud_database(self.templates[1])
        template = Config.load(ROOT / "federation.toml", pair.environment(*self.templates))
        for side in SIDES:
            bootstrap.apply(template, side)
        self.config = Config.load(ROOT / "federation.toml", pair.environment(*self.names))
        self.head = Releases.load(self.config).ids[-1]

    @cached_property
    def environ(self) -> dict[str, str]:
        """This process's variables, without those that lead elsewhere or keep Python from caching what it compiles."""
        out = "FEDERATION_", "PG", "PYTHONDONTWRITEBYTECODE"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(out)}
        return kept | self.pair.environment(*self.names)

    def psql(self, side: Side) -> dict[str, str]:
        """The variables by which psql logs in as the owner; on a command line everybody could read the password."""
        url = make_url(self.environ[f"FEDERATION_{side.upper()}_URL"])
        return {
            "PGHOST": str(url.host),
            "PGPORT": str(url.port),
            "PGUSER": str(url.username),
            "PGPASSWORD": str(url.password),
            "PGDATABASE": str(url.database),
        }

    def renew(self) -> None:
        """Both databases as bootstrap leaves them."""
        for server, owner, name, template in zip(
            (self.pair.local, self.pair.cloud),
            ("hospital_owner", "postgres"),
            self.names,
            self.templates,
            strict=True,
        ):
            server.drop_database(name)
            server.create_database(name, owner, template)
        bootstrap.apply(self.config, "local")  # a clone has none of the template's privileges on the database itself

    def require_head(self, contender: Contender) -> None:
        """Raise Failed unless both databases are at the newest release."""
        for side in SIDES:
            with connect(self.config, side) as connection:
                release = current_release(connection, side)
            if release != self.head:
                raise Failed(f"{contender.name}: {side} is at {release or 'base'}, not at {self.head}")


@dataclass
class Result:
    """Every contender's seconds, and of federation's those that its steps took."""

    version: str
    federation: Contender
    unguarded: Contender
    alembic: Contender
    psql: Contender
    imports: Contender
    many: Contender
    steps: list[float] = field(default_factory=list)

    @classmethod
    def prepare(cls, databases: Databases, folder: Path) -> Self:
        """Nothing measured yet. The SQL scripts are made here, in ``folder``."""
        binaries = databases.pair.local.binaries
        alembic = {side: (*_PYTHON, "alembic", "-n", side, "upgrade", "head") for side in SIDES}
        scripts = {side: folder / f"{side}.sql" for side in SIDES}
        for side, script in scripts.items():
            script.write_text(_run((*alembic[side], "--sql"), databases.environ), encoding="utf-8")
        psql = (binaries.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f")
        return cls(
            binaries.version,
            Contender("federation upgrade head", [((*_PYTHON, "federation", "upgrade", "head", "--json"), {})]),
            Contender(
                "the same, no guard, no verification",
                [((sys.executable, "-c", _UNGUARDED, "upgrade", "head", "--json"), {})],
            ),
            Contender("alembic -n local, then -n cloud", [(alembic[side], {}) for side in SIDES]),
            Contender("the same SQL in psql", [((*psql, scripts[side]), databases.psql(side)) for side in SIDES]),
            Contender("bare imports", [((sys.executable, "-c", _IMPORTS), {})], migrates=False),
            Contender(
                f"{MANY} small releases",
                [((*_PYTHON, "federation", "upgrade", "head", "--json"), {})],
                root=many_releases.write(folder / "many", MANY),
            ),
        )

    @property
    def contenders(self) -> list[Contender]:
        return [self.federation, self.unguarded, self.alembic, self.psql, self.imports]

    @property
    def targets(self) -> list[tuple[str, float, float, bool]]:
        """What is aimed at, the median in seconds, its limit, and whether it is kept."""
        median, alembic, psql = self.federation.median, self.alembic.median, self.psql.median + MOST_OVER_PSQL
        return [
            ("less than the two alembic commands", median, alembic, median < alembic),
            (f"at most psql plus {MOST_OVER_PSQL:g} s", median, psql, median <= psql),
        ]

    @property
    def releases_a_second(self) -> float:
        """Of the long chains, the command's start included."""
        return MANY / self.many.median

    @property
    def parts(self) -> dict[str, float]:
        """Where federation's median goes. The rest is configuration, both chains' files, sessions and preflight."""
        steps = statistics.median(self.steps)
        imports = self.imports.median
        return {
            "imports": imports,
            "chains, sessions, preflight": self.federation.median - imports - steps,
            "steps": steps,
        }

    def to_dict(self) -> dict[str, object]:
        return {
            "schema_version": SCHEMA_VERSION,
            "postgresql": self.version,
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "rounds": len(self.steps),
            "contenders": [contender.to_dict() for contender in self.contenders],
            "many_releases": self.many.to_dict()
            | {
                "releases_a_second": round(self.releases_a_second, 1),
                "target": RELEASES_A_SECOND,
                "met": self.releases_a_second >= RELEASES_A_SECOND,
            },
            "federation": {name: round(seconds, 3) for name, seconds in self.parts.items()},
            "targets": [
                {"target": name, "median": round(median, 3), "limit": round(limit, 3), "met": met}
                for name, median, limit, met in self.targets
            ],
        }


def measure(rounds: int, console: Console) -> Result:
    """Run all of it. Raises Failed, or a FederationError when the servers do not start."""
    with Pair() as pair, tempfile.TemporaryDirectory() as folder:
        databases = Databases(pair)
        result = Result.prepare(databases, Path(folder))
        for n in range(rounds + 1):
            console.print(f"round {n} of {rounds}" if n else "a first round, not counted", style="dim")
            first = n % len(result.contenders)
            for contender in result.contenders[first:] + result.contenders[:first]:
                if contender.migrates:
                    databases.renew()
                seconds, output = contender.run(databases.environ)
                if contender.migrates:
                    databases.require_head(contender)
                if n:
                    contender.seconds.append(seconds)
                    if contender is result.federation:
                        result.steps.append(sum(step["seconds"] for step in json.loads(output)["steps"]))
        for n in range(min(rounds, 3)):
            console.print(f"{MANY} releases, round {n + 1}", style="dim")
            databases.renew()
            result.many.seconds.append(result.many.run(databases.environ)[0])
        return result


def show(result: Result, console: Console) -> None:
    """A table, the parts of federation's median, the targets."""
    table = Table(title=f"base to head, seconds, {len(result.steps)} rounds", title_justify="left")
    table.add_column("")
    for name in ("median", "min", "max", "to psql"):
        table.add_column(name, justify="right")
    for contender in result.contenders:
        over = "" if contender is result.psql else f"{contender.median - result.psql.median:+.2f}"
        figures = (contender.median, min(contender.seconds), max(contender.seconds))
        table.add_row(contender.name, *(f"{figure:.2f}" for figure in figures), over)
    console.print(f"PostgreSQL {result.version}, Python {platform.python_version()}, {os.cpu_count()} processors")
    console.print(table)
    console.print("federation: " + " + ".join(f"{name} {seconds:.2f}" for name, seconds in result.parts.items()))
    for name, median, limit, met in result.targets:
        verdict = "[green]met[/]" if met else "[yellow]missed[/]"
        console.print(f"{name}: {median:.2f} of {limit:.2f}, {verdict}")
    met = result.releases_a_second >= RELEASES_A_SECOND
    verdict = "[green]met[/]" if met else "[yellow]missed[/]"
    speed = f"{result.many.median:.1f} s, {result.releases_a_second:.1f} releases a second"
    console.print(f"{result.many.name}: {speed}, at least {RELEASES_A_SECOND:g} wanted, {verdict}")


def _run(command: Sequence[str | Path], environ: Mapping[str, str], root: Path = ROOT) -> str:
    """Standard output of ``command``, run in ``root``. Raises Failed with its standard error."""
    done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="How many are counted.")
@click.option("--pg-bin", type=click.Path(exists=True, file_okay=False), help="As FEDERATION_PG_BIN.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(rounds: int, pg_bin: str | None, *, as_json: bool) -> None:
    if pg_bin is not None:
        os.environ["FEDERATION_PG_BIN"] = pg_bin
    progress = Console(stderr=True, highlight=False)
    try:
        result = measure(rounds, progress)
    except (Failed, FederationError) as error:
        progress.print(str(error), style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    if as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        show(result, Console(highlight=False))


if __name__ == "__main__":
    main()
