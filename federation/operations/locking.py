"""Locks in the order in which the app takes them: views before what they read, parents before children.

A request of the app locks a view and then its foreign table; a DELETE locks a table and then those that refer to it.
A step that locks the other way round can wait for a request that waits for the step: a deadlock, of which the app is
the victim after ``deadlock_timeout``. The right order does not help where requests lock two views in either order. So
the locks of a step are taken together, in less time than ``deadlock_timeout``, or the step gives up and lets go.

https://www.postgresql.org/docs/current/sql-lock.html
https://www.postgresql.org/docs/current/runtime-config-locks.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.operations.locks import ACCESS_EXCLUSIVE, Locks
from federation.operations.rendering import call, given
from federation.operations.statements import execute

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


@Operations.register_operation("lock_tables")
@dataclass(eq=False)
class LockTablesOp(MigrateOperation):
    """Take the locks of a step at its beginning, in the order given."""

    tables: tuple[str, ...]
    schema: str = "public"

    @classmethod
    def lock_tables(cls, operations: Operations, *tables: str, schema: str = "public") -> None:
        """Lock tables or views in ACCESS EXCLUSIVE mode, parents before children, within ``lock_timeout`` altogether.

        The first statement of a step that changes several tables. The database raises 55P03 (exit code 5) when it does
        not get all of them in time.

            op.lock_tables("hospital_patients", "hospital_queues")

        https://www.postgresql.org/docs/current/sql-lock.html
        """
        operations.invoke(cls(tables, schema))

    def reverse(self) -> LockTablesOp:
        return self

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("lock_tables", self.schema, self.tables)


def lock(relation: tuple[str, str], mode: str = ACCESS_EXCLUSIVE) -> sql.Composed:
    """LOCK TABLE for ``relation`` (schema and name)."""
    return sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(*relation), sql.SQL(mode))


def in_order(locking: Sequence[sql.Composable]) -> sql.Composed:
    """A block that runs statements which lock one relation each, within ``lock_timeout`` altogether."""
    statements = (sql.Literal(statement.as_string(None)) for statement in locking)
    return _IN_ORDER.format(statements=sql.SQL(", ").join(statements))


_IN_ORDER = sql.SQL(
    """
DO $federation$
DECLARE
    patience CONSTANT text := current_setting('lock_timeout');
    -- Less than the app's backends wait before they look for a deadlock, of which they would be the victims.
    turn CONSTANT double precision := (
        SELECT least(max(s.setting::float) FILTER (WHERE s.name = 'deadlock_timeout') * 0.75,
            nullif(max(s.setting::float) FILTER (WHERE s.name = 'lock_timeout'), 0))
        FROM pg_catalog.pg_settings AS s WHERE s.name IN ('deadlock_timeout', 'lock_timeout'));
    began CONSTANT timestamptz := clock_timestamp();
    statement text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[{statements}] LOOP
        PERFORM set_config('lock_timeout',
            greatest(1, ceil(turn - extract(epoch FROM clock_timestamp() - began) * 1000)) || 'ms', true);
        EXECUTE statement;
    END LOOP;
    PERFORM set_config('lock_timeout', patience, true);
END $federation$
"""
)


LOCKABLE = """
        JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = v.oid
        JOIN pg_catalog.pg_depend AS l ON l.classid = 'pg_rewrite'::regclass AND l.objid = w.oid
            AND l.refclassid = 'pg_class'::regclass AND l.refobjid <> v.oid
        WHERE v.relkind = 'v' AND pg_has_role(v.relowner, 'USAGE') AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend AS other
            JOIN pg_catalog.pg_class AS c ON c.oid = other.refobjid AND c.relkind <> 'f' AND c.oid <> v.oid
            WHERE other.classid = 'pg_rewrite'::regclass AND other.objid = w.oid
                AND other.refclassid = 'pg_class'::regclass)"""
"""After ``pg_class AS v``: the owner's views that read nothing but foreign tables (``l.refobjid``)."""


def lock_views_over(operations: Operations, schema: str, table: str) -> None:
    """Lock the views over a foreign table, as the app does before it locks the foreign table itself.

    LOCK TABLE locks what a view reads, too. So views that read anything but foreign tables are left alone: their tables
    are somebody else's, and a step does not lock such a view itself.
    """
    name = sql.Literal(sql.Identifier(schema, table).as_string(None))
    execute(operations, _VIEWS_OVER.format(table=name), locks=Locks(views_over=(schema, table)))


_VIEWS_OVER = sql.SQL(
    """
DO $federation$
DECLARE
    reader regclass;
BEGIN
    FOR reader IN
        SELECT DISTINCT v.oid FROM pg_catalog.pg_class AS v LOCKABLE AND l.refobjid = {table}::regclass
        ORDER BY 1
    LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', reader);
    END LOOP;
END $federation$
""".replace(" LOCKABLE", LOCKABLE)
)


@Operations.implementation_for(LockTablesOp)
def _lock(operations: Operations, op: LockTablesOp) -> None:
    if op.tables:
        relations = [(op.schema, table) for table in op.tables]
        locks = Locks(tuple((relation, ACCESS_EXCLUSIVE) for relation in relations))
        execute(operations, in_order([lock(relation) for relation in relations]), locks=locks)


@renderers.dispatch_for(LockTablesOp)
def _render(context: AutogenContext, op: LockTablesOp) -> str:
    return call(context, "lock_tables", *op.tables, **given(schema=op.schema if op.schema != "public" else None))
