"""The CHECK that a local table holds this site's rows alone, which holds whatever the cloud sends."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic.operations import MigrateOperation

from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.bindings import CreateSiteCheckOp

_CHECKS = sa.text(
    """
    SELECT c.relname::text, k.convalidated, pg_get_constraintdef(k.oid)
    FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
    WHERE c.relnamespace = to_regnamespace(quote_ident(:schema)) AND k.contype = 'c'
        AND k.conname = CAST(c.relname || '_site_check' AS name)
        AND k.conkey = ARRAY(SELECT a.attnum FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attname = :column)
    """
)


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Create the CHECK of tables with a site column that lack it, or that have one of another site."""
    config = survey.config
    column, schema = config.tables.site_column, config.tables.schema_
    if column is None:
        return
    found = {
        table: (validated, definition)
        for table, validated, definition in survey.connection.execute(_CHECKS, {"schema": schema, "column": column})
    }
    for table in survey.declared.tables:
        if column not in table.columns:
            continue
        if table.name not in found:
            yield CreateSiteCheckOp(table.name, column, schema)
            continue
        validated, definition = found[table.name]
        hint = f"ALTER TABLE {schema}.{table.name} DROP CONSTRAINT {table.name}_site_check, then a release that has it"
        if f"= '{config.site_id}'" not in definition:
            yield Finding("site check", f"{table.name}_site_check", f"is {definition}", hint)
        elif not validated:
            validate = f"ALTER TABLE {schema}.{table.name} VALIDATE CONSTRAINT {table.name}_site_check"
            yield Finding("site check", f"{table.name}_site_check", "does not hold for the rows of before", validate)
