"""Materialized views over the hospital's tables: each keeps rows in the cloud that must stay at the hospital."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.views import READERS

_COPIES = sa.text(
    f"""
    WITH RECURSIVE link AS (
        SELECT f.ftrelid AS oid FROM pg_catalog.pg_foreign_table AS f
        JOIN pg_catalog.pg_class AS c ON c.oid = f.ftrelid
        WHERE c.relnamespace = to_regnamespace(quote_ident(:schema))),
    {READERS}
    SELECT format('%I.%I', n.nspname, c.relname) FROM reads AS r
    JOIN pg_catalog.pg_class AS c ON c.oid = r.oid AND c.relkind = 'm'
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    ORDER BY 1
    """  # noqa: S608
)


def compare(survey: Survey) -> Iterator[Finding]:
    """Report materialized views that read a foreign table of the link, or a view of one."""
    for name in survey.connection.execute(_COPIES, {"schema": survey.config.tables.link_schema}).scalars().all():
        drop = f"DROP MATERIALIZED VIEW {name}"
        yield Finding("materialized view", name, "keeps the hospital's rows in the cloud", drop)
