"""How many values a step would drop: counted in the table as it is before the run, without waiting for a lock."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.databases import DATABASE_ERRORS, ddl
from federation.preview.changes import Stored


@dataclass(frozen=True)
class Loss:
    """A table or column that holds values and is dropped or emptied; ``values`` is None where nobody could count."""

    table: tuple[str, str]
    column: str | None
    values: int | None

    @property
    def name(self) -> str:
        """The table or column, as people write it."""
        schema, table = self.table
        return ".".join([*([] if schema == "public" else [schema]), table, *([self.column] if self.column else [])])

    def __str__(self) -> str:
        unit = "value" if self.column else "row"
        if self.values is None:
            return f"{self.name}, whose {unit}s could not be counted"
        return f"{self.name}, {self.values:,} {unit}{'' if self.values == 1 else 's'}"

    def to_dict(self) -> dict[str, object]:
        """Return the loss for JSON."""
        return {"table": ".".join(self.table), "column": self.column, "values": self.values}


_STORES = sa.text(
    """
    SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :table AND c.relkind IN ('r', 'p')
        AND n.nspname <> 'federation_private' AND (CAST(:column AS text) IS NULL
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attname = :column AND NOT a.attisdropped AND a.attgenerated = ''))
    """
)


def losses(session: Connection, emptied: tuple[Stored, ...]) -> tuple[Loss, ...]:
    """Count the values of the tables and columns that a plan drops; those that hold none are left out. Reads only."""
    found = []
    tables = {table for table, column in emptied if column is None}
    for (schema, table), column in dict.fromkeys(emptied):
        if column is not None and (schema, table) in tables:
            continue
        if session.execute(_STORES, {"schema": schema, "table": table, "column": column}).first() is not None:
            values = _count(session, schema, table, column)
            if values != 0:
                found.append(Loss((schema, table), column, values))
    session.rollback()
    return tuple(found)


def _count(session: Connection, schema: str, table: str, column: str | None) -> int | None:
    """Count rows that a policy hides, too; None where the table is locked or the owner may not see all of it."""
    name = sql.Identifier(schema, table)
    counted = sql.SQL("*") if column is None else sql.Identifier(column)
    look = session.begin_nested()
    try:
        session.exec_driver_sql("SET LOCAL row_security = off")
        session.execute(ddl(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT").format(name)))
        return int(session.execute(ddl(sql.SQL("SELECT count({}) FROM {}").format(counted, name))).scalar_one())
    except DATABASE_ERRORS:
        return None
    finally:
        look.rollback()
