"""What the kit costs: a session's set-up and a test, beside plain pytest-postgresql with one server.

    make bench        (or: python benchmarks/testkit.py [--tests N] [--rounds N] [--json])

Each contender is a pytest of its own in a project of its own; a round runs every one, after a round that is not
counted. The kit's have two servers, at head of the example's chains; pytest-postgresql's has one server, started
beforehand since its own fixture cannot run as root, and one template with two such tables. A set-up is all until the
first test's body, Python's start included; a test inserts a row and reads it. Seconds are medians. Exit code 0 whether
or not the targets are met, 1 if a contender fails.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from federation.servers import Binaries, Server, find_binaries

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "app-tests"

SCHEMA_VERSION = 1
"""Version of the JSON object."""

MOST_SET_UP, MOST_A_TEST = 4.0, 0.2
"""Seconds."""

PAIR = """
import os
import pytest

@pytest.mark.parametrize("n", range(int(os.environ["TESTS"])))
def test_n(federation_pair, n):
    federation_pair.load({"pets": [{"user_id": "00000000-0000-0000-0000-000000000001", "name": "Mira"}]})
    with federation_pair.as_user() as caller:
        assert caller.execute("SELECT name FROM pets").fetchall() == [("Mira",)]
"""

PLAIN = """
import os
import pytest
from pytest_postgresql import factories

def load(**connection):
    import psycopg
    connection.pop("autocommit")
    with psycopg.connect(**connection) as session:
        session.execute("CREATE TABLE pets (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid, name text)")
        session.execute("CREATE TABLE visits (id uuid PRIMARY KEY, pet_id uuid REFERENCES pets)")

server = factories.postgresql_noproc(load=[load])
postgresql = factories.postgresql("server")

@pytest.mark.parametrize("n", range(int(os.environ["TESTS"])))
def test_n(postgresql, n):
    postgresql.execute("INSERT INTO pets (user_id, name) VALUES ('00000000-0000-0000-0000-000000000001', 'Mira')")
    assert postgresql.execute("SELECT name FROM pets").fetchall() == [("Mira",)]
"""

CLOCK = """
import os, time

def pytest_runtest_protocol(item, nextitem):
    with open(os.environ["CLOCK"], "a") as file:
        file.write(f"{time.time()}\\n")

def pytest_runtest_call(item):
    if not getattr(item.config, "first_call", None):
        item.config.first_call = True
        with open(os.environ["CLOCK"], "a") as file:
            file.write(f"first {time.time()}\\n")
"""


@dataclass
class Contender:
    """What is measured: seconds of each round until the first test's body, and of each test from then on."""

    name: str
    tests: str
    plain: bool = False
    set_ups: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "set_up": round(statistics.median(self.set_ups), 3),
            "a_test": round(statistics.median(self.each), 4),
            "set_ups": [round(seconds, 3) for seconds in self.set_ups],
        }


@contextmanager
def project(contender: Contender) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "project")
        shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        (root / "tests").mkdir()
        (root / "tests" / "test_n.py").write_text(contender.tests)
        (root / "conftest.py").write_text(CLOCK)
        yield root


def run(contender: Contender, root: Path, binaries: Binaries, tests: int, *, counted: bool) -> None:
    """One session of it. CalledProcessError, with what pytest said, if it fails."""
    clock = root / "clock"
    clock.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FEDERATION_", "PG"))}
    environ |= {"CLOCK": str(clock), "TESTS": str(tests)}

    def session(*options: str) -> None:
        began = time.time()
        subprocess.run([*command, *options], cwd=root, env=environ, check=True, capture_output=True)
        lines = clock.read_text().split("\n")[:-1]
        (first,) = (float(line.split()[1]) for line in lines if line.startswith("first"))
        starts = [float(line) for line in lines if not line.startswith("first")]
        if counted:
            contender.set_ups.append(first - began)
            contender.each += [after - before for before, after in itertools.pairwise(starts[1:])]

    if contender.plain:
        with Server(binaries, memory=True) as server:  # as the kit's are
            (root / "pytest.ini").write_text(
                "[pytest]\ntestpaths = tests\n"
                f"postgresql_host = {server.host}\npostgresql_port = {server.port}\n"
                f"postgresql_user = {server.superuser}\npostgresql_password = {server.password}\n"
            )
            session()
    else:
        session(f"--federation-pg={binaries.version}")


@click.command()
@click.option("--tests", default=100, show_default=True, help="Tests a session.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(*, tests: int, rounds: int, as_json: bool) -> None:
    """Measure the kit beside plain pytest-postgresql."""
    console = Console(stderr=True)
    results = []
    for binaries in find_binaries():
        contenders = [
            Contender("the kit: two databases, linked", PAIR),
            Contender("plain pytest-postgresql: one database", PLAIN, plain=True),
        ]
        for n in range(rounds + 1):
            for contender in contenders[n % 2 :] + contenders[: n % 2]:
                with (
                    console.status(f"{binaries.version}, round {n}: {contender.name}"),
                    project(contender) as root,
                ):
                    try:
                        run(contender, root, binaries, tests, counted=n > 0)
                    except subprocess.CalledProcessError as error:
                        console.print(error.stdout.decode()[-3000:])
                        sys.exit(1)
        results.append((binaries, contenders))
    report(results, tests, as_json=as_json)


def report(results: Sequence[tuple[Binaries, Sequence[Contender]]], tests: int, *, as_json: bool) -> None:
    targets = [
        {
            "version": binaries.version,
            "set_up_met": statistics.median(contenders[0].set_ups) <= MOST_SET_UP,
            "a_test_met": statistics.median(contenders[0].each) <= MOST_A_TEST,
        }
        for binaries, contenders in results
    ]
    if as_json:
        found = {
            "schema_version": SCHEMA_VERSION,
            "cpus": os.cpu_count(),
            "tests": tests,
            "versions": [
                {"version": binaries.version, "contenders": [contender.to_dict() for contender in contenders]}
                for binaries, contenders in results
            ],
            "targets": targets,
        }
        click.echo(json.dumps(found, indent=2))
        return
    table = Table(title=f"{tests} tests a session, {os.cpu_count()} processors; medians")
    for heading in ("PostgreSQL", "contender", "set-up", "a test"):
        table.add_column(heading, justify="left" if heading in {"PostgreSQL", "contender"} else "right")
    for binaries, contenders in results:
        for contender in contenders:
            figures = contender.to_dict()
            table.add_row(binaries.version, contender.name, f"{figures['set_up']:.2f} s", f"{figures['a_test']:.3f} s")
    console = Console()
    console.print(table)
    for target in targets:
        words = {True: "met", False: "missed"}
        console.print(
            f"PostgreSQL {target['version']}: set-up within {MOST_SET_UP:g} s {words[bool(target['set_up_met'])]}, "
            f"a test within {MOST_A_TEST:g} s {words[bool(target['a_test_met'])]}"
        )


if __name__ == "__main__":
    main()
