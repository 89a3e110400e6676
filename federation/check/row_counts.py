"""Row counts that the cloud's planner reckons with, against the hospital's own estimates."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from federation.config import Config
from federation.databases import SIDES, connect
from federation.drift.finding import Finding

_ROWS = sa.text(
    """
    SELECT c.relname, c.reltuples::bigint FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY (:names)
    """
)

FACTOR = 2
"""How far the counts may be apart before plans suffer."""
SMALL = 1000
"""Rows up to which a wrong count costs nothing: the planner assumes about as many without any."""


def compare(config: Config) -> Iterator[Finding]:
    """Exported tables whose count in the cloud is old; one that the hospital never analyzed is left alone."""
    counts = []
    for side, schema in zip(SIDES, (config.tables.schema_, config.tables.link_schema), strict=True):
        with connect(config, side) as connection:
            found = connection.execute(_ROWS, {"schema": schema, "names": list(config.tables.exported)})
            counts.append({name: int(rows) for name, rows in found})
    there, here = counts
    for name in config.tables.exported:
        rows, known = there.get(name, -1), here.get(name, -1)
        if max(rows, known) > SMALL and rows >= 0 and not rows / FACTOR <= known <= rows * FACTOR:
            yield Finding(
                "row count",
                f"{config.tables.link_schema}.{name}",
                f"is {'unknown' if known < 0 else f'{known:,}'} and {rows:,} at the hospital",
                "federation analyze",
            )
