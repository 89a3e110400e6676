"""The columns of each foreign table are there at the hospital, of the same type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation.verification.failure import failed

_FOREIGN_COLUMNS = sa.text(
    """
    SELECT coalesce(o.schema_name, n.nspname), coalesce(o.table_name, c.relname),
        coalesce((SELECT x.option_value FROM pg_options_to_table(a.attfdwoptions) AS x
                  WHERE x.option_name = 'column_name'), a.attname),
        format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_foreign_table AS t
    JOIN pg_foreign_server AS s ON s.oid = t.ftserver
    JOIN pg_class AS c ON c.oid = t.ftrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    CROSS JOIN LATERAL (
        SELECT max(option_value) FILTER (WHERE option_name = 'schema_name') AS schema_name,
            max(option_value) FILTER (WHERE option_name = 'table_name') AS table_name
        FROM pg_options_to_table(t.ftoptions)) AS o
    WHERE s.srvname = :server AND n.nspname <> 'federation_private'
    ORDER BY c.relname, a.attnum
    """
)
_LOCAL_COLUMNS = sa.text(
    """
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(CAST(:schemas AS name[]), CAST(:tables AS name[])))
    """
)


def read(cloud: Connection, server: str) -> Sequence[Any]:
    """The columns of the foreign tables of ``server``, by the hospital's names: table, column, type, NOT NULL."""
    return cloud.execute(_FOREIGN_COLUMNS, {"server": server}).all()


def require(local: Connection, foreign: Sequence[Any]) -> None:
    """Raise VerificationFailed unless the hospital has each of the columns, of the same type."""
    names = sorted({(schema, table) for schema, table, *_ in foreign})
    there = {
        (schema, table, column): (type_, notnull)
        for schema, table, column, type_, notnull in local.execute(
            _LOCAL_COLUMNS, {"schemas": [schema for schema, _ in names], "tables": [table for _, table in names]}
        )
    }
    for schema, table, column, type_, notnull in foreign:
        found = there.get((schema, table, column))
        if found is None:
            raise failed(f"the foreign table's column {schema}.{table}.{column} is missing", "local")
        if found != (type_, notnull):
            shown, wanted = (f"{kind}{' NOT NULL' if strict else ''}" for kind, strict in (found, (type_, notnull)))
            raise failed(f"column {schema}.{table}.{column} is {shown}, and {wanted} in the cloud", "local")
