"""Materialized views over the hospital's tables: each keeps rows in the cloud that must stay at the hospital."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from federation.drift.finding import Finding
from federation.drift.survey import Survey

# A view depends on what it reads through its rewrite rule; views of views are followed.
_COPIES = sa.text(
    """
    WITH RECURSIVE reader (oid) AS (
        SELECT ftrelid FROM pg_catalog.pg_foreign_table AS f
        JOIN pg_catalog.pg_class AS c ON c.oid = f.ftrelid
        WHERE c.relnamespace = to_regnamespace(quote_ident(:schema))
        UNION
        SELECT r.ev_class FROM reader
        JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reader.oid
            AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
    )
    SELECT format('%I.%I', n.nspname, c.relname) FROM reader
    JOIN pg_catalog.pg_class AS c ON c.oid = reader.oid AND c.relkind = 'm'
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    ORDER BY 1
    """
)


def compare(survey: Survey) -> Iterator[Finding]:
    """Those that read a foreign table of the link, or a view of one."""
    for name in survey.connection.execute(_COPIES, {"schema": survey.config.tables.link_schema}).scalars().all():
        drop = f"DROP MATERIALIZED VIEW {name}"
        yield Finding("materialized view", name, "keeps the hospital's rows in the cloud", drop)
