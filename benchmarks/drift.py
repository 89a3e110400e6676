"""What a check costs: 300 tables compared on both sides, beside connecting alone, beside Alembic's check of one side.

    make bench        (or: python benchmarks/drift.py [--tables N] [--rounds N] [--pg-bin DIR] [--json])

All in one process on a pair of servers of its own, whose databases are as declared; starting Python is not measured. A
round runs every contender once, and each round begins with another one; a first one, not counted, fills the caches.
Statements are counted on a federation of a tenth of the tables too: what is not sent for each table is the same number
there. Exit code 0 whether or not the target is met, 1 if a check finds anything.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from rich.console import Console
from rich.table import Table

from federation.administration import bootstrap
from federation.check import check
from federation.config import Config
from federation.databases import SIDES, connect
from federation.environments import alembic_config
from federation.environments.runtime import _metadata
from federation.errors import FederationError
from federation.lockstep import upgrade
from federation.servers import Pair

SCHEMA_VERSION = 1
"""Version of the JSON object."""

MOST = 3.0
"""Seconds that comparing both sides may take on top of connecting."""

INI = """
[DEFAULT]
path_separator = os
prepend_sys_path = %(here)s
[local]
script_location = federation:environments/local
version_locations = %(here)s/versions/local
[cloud]
script_location = federation:environments/cloud
version_locations = %(here)s/versions/cloud
"""

TOML = """
[link]
server_options = {{ fetch_size = "1000" }}
[tables]
exported = {names}
metadata = "drift_benchmark_{count}:metadata"
predicate = "site = (SELECT federation.bind_claims())"
[tables.view_grants]
authenticated = ["SELECT", "INSERT"]
service_role = ["SELECT"]
[tables.link_grants]
"@link" = ["SELECT", "INSERT"]
"@service" = ["SELECT"]
[[tables.policies]]
name = "own"
using = "(SELECT auth.uid()) = site"
"""

MODELS = """
import sqlalchemy as sa

metadata = sa.MetaData()
for n in range({count}):
    sa.Table(
        f"t{{n:03d}}",
        metadata,
        sa.Column("id", sa.Uuid, server_default=sa.text("gen_random_uuid()"), primary_key=True),
        sa.Column("site", sa.Uuid, nullable=False, index=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.String(50), server_default="new"),
        sa.Column("amount", sa.Numeric(10, 2)),
        sa.Column("day", sa.Date),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
        sa.Column("note", sa.Text),
    )
"""

RELEASE = """
from alembic import op
from drift_benchmark_{count} import metadata
from federation.operations import LINK, SERVICE
from federation.operations.views import RLSView

revision, down_revision = "0001", None
DML = ("SELECT", "INSERT")


def upgrade():
    {body}
"""

LOCAL = """op.create_local_binding("v1")
    metadata.create_all(op.get_bind())
    for table in metadata.tables:
        op.enable_row_level_security(table)
        op.create_policy("own", table, using="(SELECT auth.uid()) = site")
        op.grant(DML, table, to=(LINK,))
        op.grant(("SELECT",), table, to=(SERVICE,))
"""

CLOUD = """op.execute("CREATE SCHEMA federation_link")
    op.create_foreign_server("hospital", fetch_size="1000")
    for role, login in (("public", LINK), ("current_user", SERVICE), ("service_role", SERVICE)):
        op.create_user_mapping(role, "hospital", login)
    op.create_cloud_binding("v1", server="hospital", callers=("authenticated", "service_role"))
    columns = {name: tuple(table.columns) for name, table in metadata.tables.items()}
    op.import_foreign_schema("public", server="hospital", into="federation_link", tables=columns)
    for name in columns:
        op.bind_before_write(name, schema="federation_link")
        op.create_rls_view(
            RLSView(
                name,
                tuple(column.name for column in columns[name]),
                "site = (SELECT federation.bind_claims())",
                defaults={"id": "gen_random_uuid()", "status": "'new'", "created_at": "now()"},
                grants={"authenticated": DML, "service_role": ("SELECT",)},
            )
        )
"""


class Failed(Exception):
    """A check found what is not there."""


@dataclass
class Contender:
    """What is measured, and how many statements it sends with all the tables and with a tenth of them."""

    name: str
    run: Callable[[Config], object]
    seconds: list[float] = field(default_factory=list)
    statements: tuple[int, int] = (0, 0)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "median": round(self.median, 3),
            "min": round(min(self.seconds), 3),
            "max": round(max(self.seconds), 3),
            "statements": self.statements[0],
            "statements_with_a_tenth": self.statements[1],
        }


def _connect(config: Config) -> None:
    for side in SIDES:
        with connect(config, side):
            pass


def _check(config: Config) -> None:
    if found := check(config):
        raise Failed(f"federation check: {found[:3]}")


def _check_cloud(config: Config) -> None:
    command.check(alembic_config(config, "cloud"))


def _plain_alembic(config: Config) -> None:
    """Alembic as it is without the toolkit: the declared tables against the hospital's."""
    metadata = _metadata(config)
    with connect(config, "local") as connection:
        options = {
            "compare_server_default": True,
            "include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables,
        }
        if found := compare_metadata(MigrationContext.configure(connection, opts=options), metadata):
            raise Failed(f"plain Alembic: {found[:3]}")


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that SQLAlchemy sends meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def federation(pair: Pair, folder: Path, count: int) -> Config:
    """Both databases with ``count`` tables, made by one release."""
    local, cloud = f"hospital_{count}", f"app_{count}"
    (folder / "alembic.ini").write_text(INI)
    (folder / "federation.toml").write_text(
        TOML.format(names=json.dumps([f"t{n:03d}" for n in range(count)]), count=count)
    )
    (folder / f"drift_benchmark_{count}.py").write_text(MODELS.format(count=count))
    for side, body in (("local", LOCAL), ("cloud", CLOUD)):
        versions = folder / "versions" / side
        versions.mkdir(parents=True)
        (versions / "0001_tables.py").write_text(RELEASE.format(count=count, body=body))
    pair.cloud.create_database(cloud)
    pair.prepare_cloud_database(cloud)
    config = Config.load(folder / "federation.toml", pair.environment(local, cloud))
    for side in SIDES:
        bootstrap.apply(config, side)
    upgrade(config)
    return config


@dataclass
class Result:
    version: str
    tables: int
    rounds: int
    connecting: Contender
    plain: Contender
    cloud: Contender
    both: Contender

    @property
    def contenders(self) -> list[Contender]:
        return [self.connecting, self.plain, self.cloud, self.both]

    @property
    def seconds(self) -> float:
        """What is aimed at: the check of both sides on top of connecting."""
        return self.both.median - self.connecting.median

    @property
    def met(self) -> bool:
        return self.seconds <= MOST

    def to_dict(self) -> dict[str, object]:
        return {
            "schema_version": SCHEMA_VERSION,
            "postgresql": self.version,
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "tables": self.tables,
            "rounds": self.rounds,
            "contenders": [contender.to_dict() for contender in self.contenders],
            "target": {"seconds": round(self.seconds, 3), "limit": MOST, "met": self.met},
        }


def measure(tables: int, rounds: int, console: Console) -> Result:
    """Run all of it. Raises Failed, or a FederationError when the servers do not start."""
    with Pair() as pair, tempfile.TemporaryDirectory() as folder:
        result = Result(
            pair.local.binaries.version,
            tables,
            rounds,
            Contender("connecting to both", _connect),
            Contender("plain Alembic, local alone", _plain_alembic),
            Contender("alembic -n cloud check", _check_cloud),
            Contender("federation check", _check),
        )
        configs = []
        for count in (tables, max(tables // 10, 1)):
            root = Path(folder, str(count))
            root.mkdir()
            console.print(f"making {count} tables", style="dim")
            configs.append(federation(pair, root, count))
        for contender in result.contenders:
            numbers = []
            for config in configs:
                with counted() as sent:
                    contender.run(config)
                numbers.append(len(sent))
            contender.statements = (numbers[0], numbers[1])
        for n in range(rounds):
            console.print(f"round {n + 1} of {rounds}", style="dim")
            first = n % len(result.contenders)
            for contender in result.contenders[first:] + result.contenders[:first]:
                started = time.perf_counter()
                contender.run(configs[0])
                contender.seconds.append(time.perf_counter() - started)
        return result


def show(result: Result, console: Console) -> None:
    table = Table(title=f"{result.tables} tables, seconds, {result.rounds} rounds", title_justify="left")
    table.add_column("")
    for name in ("median", "min", "max", "statements", f"with {max(result.tables // 10, 1)} tables"):
        table.add_column(name, justify="right")
    for contender in result.contenders:
        figures = (contender.median, min(contender.seconds), max(contender.seconds))
        table.add_row(contender.name, *(f"{figure:.2f}" for figure in figures), *map(str, contender.statements))
    console.print(f"PostgreSQL {result.version}, Python {platform.python_version()}, {os.cpu_count()} processors")
    console.print(table)
    verdict = "[green]met[/]" if result.met else "[yellow]missed[/]"
    console.print(f"federation check on top of connecting: {result.seconds:.2f} of {MOST:.2f}, {verdict}")


@click.command(help=__doc__)
@click.option("--tables", type=click.IntRange(min=1, max=999), default=300, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--pg-bin", type=click.Path(exists=True, file_okay=False), help="As FEDERATION_PG_BIN.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(tables: int, rounds: int, pg_bin: str | None, *, as_json: bool) -> None:
    if pg_bin is not None:
        os.environ["FEDERATION_PG_BIN"] = pg_bin
    progress = Console(stderr=True, highlight=False)
    try:
        result = measure(tables, rounds, progress)
    except (Failed, FederationError) as error:
        progress.print(str(error), style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    if as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        show(result, Console(highlight=False))


if __name__ == "__main__":
    main()
