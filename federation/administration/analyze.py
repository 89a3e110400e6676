"""``federation analyze``: bring the hospital's row counts, and no value, to the cloud's planner.

Autovacuum does not analyze foreign tables. Without a row count the planner assumes about a thousand rows and fetches
them all; with statistics targets of 0 ANALYZE keeps the count and no sample
(https://www.postgresql.org/docs/current/postgres-fdw.html#POSTGRES-FDW-OPTIONS-COST-ESTIMATION).

With ``site_statistics`` it keeps one value, the site's id, which the cloud has anyway: else an equality with it is
taken for one row in two hundred, and a LIMIT beside another filter is not sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import Connection

from federation.administration.last_seen import remember
from federation.administration.link import LOG_IN
from federation.check import kept_values
from federation.config import Config
from federation.databases import ANALYZE_TIMEOUT, asking, connect, ddl, naming_holders, over_the_link
from federation.errors import PreconditionMissing, Refused


@dataclass(frozen=True)
class Analyzed:
    """A foreign table, the number of rows that the planner now expects, and the seconds that ANALYZE took."""

    table: str
    rows: int
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {"table": self.table, "rows": self.rows, "seconds": round(self.seconds, 3)}


_TABLES = sa.text(
    """
    SELECT n.nspname, c.relname, ARRAY(
        SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(a.attstattarget, -1) <> 0)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'f' AND n.nspname = :schema ORDER BY 2
    """
)
_TARGET = sql.SQL("ALTER FOREIGN TABLE {} ALTER COLUMN {} SET STATISTICS {}")
_HAS_COLUMN = sa.text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(:table) AND attname = :column)"
)
_ROWS = sa.text("SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = to_regclass(:table)")


def analyze(config: Config) -> list[Analyzed]:
    """ANALYZE every foreign table of the link's schema, as the cloud's owner.

    Raises Refused, with nothing analyzed, when a column's statistics target is not 0: its values would come over; with
    nothing of a table kept, when its site column, whose statistics are wanted, holds anything but the site;
    Unreachable when the hospital does not answer.
    """
    with connect(config, "cloud") as connection, naming_holders(config, {"cloud": connection}):
        tables = connection.execute(_TABLES, {"schema": config.tables.link_schema}).all()
        connection.rollback()
        if not tables:
            raise PreconditionMissing(
                f"schema {config.tables.link_schema} holds no foreign table", side="cloud", hint="federation upgrade"
            )
        for schema, table, loose in tables:
            if loose:
                raise Refused(
                    f"ANALYZE would copy values of {schema}.{table} ({', '.join(loose)}) into the cloud",
                    side="cloud",
                    hint="set their statistics targets to 0: federation check names them, "
                    "federation revision --autogenerate writes the release",
                )
        done = []
        for schema, table, _ in tables:
            started = time.perf_counter()
            name = sql.Identifier(schema, table)
            with connection.begin():
                with over_the_link(connection, config):
                    connection.execute(ddl(LOG_IN.format(name)))
                with _site_column_known(connection, config, table):
                    connection.execute(asking(sql.SQL("ANALYZE {}").format(name), ANALYZE_TIMEOUT))
                rows = connection.scalar(_ROWS, {"table": name.as_string(None)})
            done.append(Analyzed(table, int(rows), time.perf_counter() - started))
    remember(config)
    return done


@contextmanager
def _site_column_known(connection: Connection, config: Config, table: str) -> Iterator[None]:
    """Set the statistics target of the table's site column to 1 in the block, if there is one and it is wanted.

    Raises Refused if the column holds another value than the site.
    """
    column = config.tables.site_column if config.tables.site_statistics else None
    name = sql.Identifier(config.tables.link_schema, table)
    if column is None or not connection.scalar(_HAS_COLUMN, {"table": name.as_string(None), "column": column}):
        yield
        return
    connection.execute(ddl(_TARGET.format(name, sql.Identifier(column), sql.Literal(1))))
    yield
    connection.execute(ddl(_TARGET.format(name, sql.Identifier(column), sql.Literal(0))))
    if column in kept_values.kept(connection, config).get(table, []):
        raise Refused(
            f"column {column} of {config.tables.link_schema}.{table} does not hold the site's id alone",
            side="cloud",
            hint="leave site_statistics out of [tables], or see with `federation check` why the hospital has rows of "
            "another site",
        )
