"""Nothing is lost: undoing a half that this run has done stops where it would drop a value.

The undoing is tried inside a savepoint, the catalog says which columns and tables went, the savepoint is rolled back,
and those are locked and looked at before the undoing runs in earnest, all in the step's own transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.databases import ddl
from federation.errors import Refused
from federation.guard.leaving import around_leaving
from federation.operations.run import run_of

# Tables and their columns by number, since an undoing may give them another name; column 0 is the table itself. What
# a generated column holds is in the others.
_COLUMNS = sa.text(
    """
    SELECT c.oid, coalesce(a.attnum, 0), n.nspname, c.relname, a.attname
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT attnum, attname FROM pg_catalog.pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        UNION ALL SELECT NULL, NULL) AS a
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('federation', 'federation_private', 'pg_catalog', 'information_schema')
    """
)


def without_loss(migration: Callable[..., Any], context: MigrationContext) -> Callable[..., Any]:
    """``migration`` as it is where it drops nothing that holds a value; Refused, with nothing done, where it would."""

    def tried_first(**arguments: Any) -> None:
        connection = context.connection
        assert connection is not None  # noqa: S101  # undoing is the runner's, which is online
        before = _columns(connection)
        with connection.begin_nested() as trial, _no_leaving(context):
            migration(**arguments)
            left = _columns(connection)
            trial.rollback()
        gone = {number: before[number] for number in before.keys() - left.keys()}
        _refuse_loss(connection, gone)
        # An index that is built concurrently leaves the transaction, and with it the locks.
        with around_leaving(context, after=lambda: _refuse_loss(connection, gone)):
            migration(**arguments)

    return tried_first


Number = tuple[int, int]
"""A table's oid and a column's number; 0 is the table itself."""

Column = tuple[str, str, str | None]
"""Schema, table, column; without a column the table itself."""


def _columns(connection: Connection) -> dict[Number, Column]:
    return {
        (table, number): (schema, name, column) for table, number, schema, name, column in connection.execute(_COLUMNS)
    }


def _holding(connection: Connection, gone: dict[Number, Column]) -> Iterator[str]:
    for (number, _), (schema, table, column) in gone.items():
        if column is not None and (number, 0) in gone:
            continue
        name = sql.Identifier(schema, table)
        connection.execute(ddl(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name)))
        condition = sql.SQL("true") if column is None else sql.SQL("{} IS NOT NULL").format(sql.Identifier(column))
        query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(name, condition)
        with connection.begin_nested() as look:  # a row that a policy hides from the owner is a row
            connection.execute(ddl(sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(name)))
            connection.exec_driver_sql("SET LOCAL row_security = off")
            held = connection.execute(ddl(query)).scalar_one()
            look.rollback()
        if held:
            yield f"table {table}" if column is None else f"column {table}.{column}"


def _refuse_loss(connection: Connection, gone: dict[Number, Column]) -> None:
    """Lock what the undoing drops, and raise Refused where it holds a value."""
    held = sorted(_holding(connection, gone))
    if held:
        raise Refused(
            f"undoing it would drop {', '.join(held)}, which holds values",
            hint="nothing of it was undone; finish the release, or drop them knowingly with `federation downgrade`",
        )


@contextmanager
def _no_leaving(context: MigrationContext) -> Iterator[None]:
    """The savepoint would not survive ``autocommit_block()``: what leaves the transaction cannot be tried.

    The operations on indexes, which lose no value, ask the run and do nothing in a trial.
    """

    def refuse() -> Any:
        raise Refused(
            "undoing it leaves the transaction (autocommit_block), so it cannot be told what it would drop",
            hint="nothing of it was undone; use op.create_index_concurrently, or finish the release",
        )

    original = context.autocommit_block
    context.autocommit_block = refuse  # type: ignore[method-assign]
    run = run_of(context)
    run.trial = True
    try:
        yield
    finally:
        context.autocommit_block = original  # type: ignore[method-assign]
        run.trial = False
