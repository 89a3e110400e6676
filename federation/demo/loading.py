"""Rows go into the hospital's tables, as the owner of its database loads them: with COPY."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import psycopg
from psycopg import sql

from federation.config import Config
from federation.databases import SIDES
from federation.demo.material import Table
from federation.errors import Side, VerificationFailed, from_database

BATCH = 1000
"""Rows between two movements of the progress bar."""

FOREIGN_SCHEMA = "federation_link"
"""Where the cloud's foreign tables are."""


def load(config: Config, table: Table, advance: Callable[[int], None]) -> None:
    """Fill ``table`` in one transaction; ``advance`` is told the rows of each batch."""
    command = sql.SQL("COPY {}.{} ({}) FROM STDIN").format(
        sql.Identifier(config.tables.schema_),
        sql.Identifier(table.name),
        sql.SQL(", ").join(map(sql.Identifier, table.columns)),
    )
    try:
        with psycopg.connect(_url(config, "local")) as connection, connection.cursor().copy(command) as copy:
            rows = iter(table.rows)
            while batch := list(itertools.islice(rows, BATCH)):
                for row in batch:
                    copy.write_row(row)
                advance(len(batch))
    except psycopg.Error as error:
        raise from_database(error, side="local") from error


def analyze(config: Config) -> None:
    """Let both planners know. In the cloud only the number of rows arrives: its columns have statistics target 0."""
    schemas: dict[Side, str] = {"local": config.tables.schema_, "cloud": FOREIGN_SCHEMA}
    for side in SIDES:
        tables = [sql.Identifier(schemas[side], table) for table in config.tables.exported]
        try:
            with psycopg.connect(_url(config, side), autocommit=True) as connection:
                connection.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(tables)))
        except psycopg.Error as error:
            raise from_database(error, side=side) from error


def require_nothing_kept(config: Config) -> None:
    """Raise VerificationFailed if the cloud holds a table of an exported name, or values of one in its statistics."""
    query = (
        "SELECT (SELECT count(*) FROM pg_class WHERE relname = ANY (%(names)s) AND relkind IN ('r', 'p', 'm')),"
        " (SELECT count(*) FROM pg_stats WHERE tablename = ANY (%(names)s))"
    )
    try:
        with psycopg.connect(_url(config, "cloud")) as connection:
            found = connection.execute(query, {"names": list(config.tables.exported)}).fetchone()
    except psycopg.Error as error:
        raise from_database(error, side="cloud") from error
    if found != (0, 0):
        raise VerificationFailed(f"(tables, columns with statistics) of exported names: {found}", side="cloud")


def _url(config: Config, side: Side) -> str:
    """As libpq reads it."""
    return config.url(side).set(drivername="postgresql").render_as_string(hide_password=False)
