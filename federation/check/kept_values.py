"""What the cloud's pg_statistic holds of the hospital's values: nothing, or the site's id where that is wanted.

A statistics target of 0 keeps ANALYZE from bringing more, and leaves what an earlier one has brought.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import sqlalchemy as sa

from federation.check.row_counts import SMALL
from federation.config import Config
from federation.databases import connect
from federation.drift.finding import Finding

_KEPT = sa.text(
    """
    SELECT s.tablename::text, s.attname::text FROM pg_catalog.pg_stats AS s
    WHERE s.schemaname = :schema AND NOT (
        s.attname = ANY (:allowed) AND s.n_distinct IN (1, -1) AND s.histogram_bounds IS NULL
        AND coalesce(s.most_common_vals::text::text[] <@ ARRAY[:site], true))
    ORDER BY 1, 2
    """
)
"""pg_stats shows a foreign table's owner everything. Of a table with one row (-1: all differ) it keeps no value."""


_UNKNOWN = sa.text(
    """
    SELECT c.relname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = to_regnamespace(quote_ident(:schema)) AND c.relkind = 'f' AND c.reltuples > :small
        AND a.attname = :column AND NOT EXISTS (SELECT FROM pg_catalog.pg_stats AS s
            WHERE s.schemaname = :schema AND s.tablename = c.relname AND s.attname = a.attname)
    ORDER BY 1
    """
)


def kept(connection: sa.Connection, config: Config) -> dict[str, list[str]]:
    """The columns, by foreign table, of which the cloud keeps values that it should not have."""
    tables = config.tables
    allowed = [tables.site_column] if tables.site_statistics else []
    of_site = {"schema": tables.link_schema, "allowed": allowed, "site": str(config.site_id)}
    found = defaultdict(list)
    for table, column in connection.execute(_KEPT, of_site):
        found[table].append(column)
    return found


def compare(config: Config) -> Iterator[Finding]:
    """Foreign tables whose values are in the cloud's statistics, or whose site is wanted there and is not."""
    tables = config.tables
    with connect(config, "cloud") as connection:
        found = kept(connection, config)
        of_site = {"schema": tables.link_schema, "column": tables.site_column, "small": SMALL}
        unknown = connection.scalars(_UNKNOWN, of_site).all() if tables.site_statistics else []
    for table, columns in found.items():
        yield Finding(
            "statistics",
            f"{tables.link_schema}.{table}",
            f"pg_statistic holds values of {', '.join(columns)}",
            "pg_clear_attribute_stats (18 and later) takes them away, or a new import: alembic -n cloud downgrade base "
            "and federation upgrade; the hospital keeps its rows, the app is without its views meanwhile",
        )
    for table in unknown:
        yield Finding(
            "statistics",
            f"{tables.link_schema}.{table}",
            f"{tables.site_column} is not known to the planner, which site_statistics wants",
            "federation analyze",
        )
