"""CREATE and DROP INDEX CONCURRENTLY as Alembic operations that can be run again after a kill at any moment.

Neither can be part of a transaction, so neither commits together with its step's version row.

An index is built before the rest of its step, which must have written nothing by then: a build that follows a write is
refused. What a killed run leaves is an invalid index, which the next run drops and builds again, or a valid one, which
it keeps if it is the one declared.

An index is dropped after its step's COMMIT. Within the step it is renamed, which locks out nobody and is undone with
the step; what a killed run leaves under the new name the next run drops.

https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
https://www.postgresql.org/docs/current/sql-alterindex.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.databases import ddl
from federation.errors import Refused
from federation.operations.locks import NOTHING, SHARE_UPDATE_EXCLUSIVE, Locks
from federation.operations.rendering import call, given
from federation.operations.run import run_of
from federation.operations.statements import execute, write

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.runtime.migration import MigrationContext


@Operations.register_operation("create_index_concurrently")
@dataclass(eq=False)
class CreateIndexConcurrentlyOp(MigrateOperation):
    """Build an index while the app goes on writing."""

    name: str
    table: str
    columns: tuple[str, ...]
    schema: str = "public"
    unique: bool = False
    where: str | None = None
    using: str | None = None

    @classmethod
    def create_index_concurrently(
        cls,
        operations: Operations,
        name: str,
        table: str,
        columns: Sequence[str],
        *,
        schema: str = "public",
        unique: bool = False,
        where: str | None = None,
        using: str | None = None,
    ) -> None:
        """Create an index of ``columns`` (names) without locking out writes; ``where`` is an SQL expression.

        It comes before anything else that its step writes, and only in the local chain: foreign tables have no
        indexes. The database raises ZF008 (exit code 8) when the step has written already, or when something else of
        that name is there; an invalid index left by a killed run is dropped and built again. It waits for
        transactions older than itself, up to ``lock_timeout``, and can then be run again.

            op.create_index_concurrently("hospital_patients_name_idx", "hospital_patients", ["name"])

        https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
        """
        operations.invoke(cls(name, table, tuple(columns), schema, unique, where, using))

    def reverse(self) -> DropIndexConcurrentlyOp:
        return DropIndexConcurrentlyOp(
            self.name, self.table, self.columns, self.schema, self.unique, self.where, self.using
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_index_concurrently", self.schema, self.table, self.name)


@Operations.register_operation("drop_index_concurrently")
@dataclass(eq=False)
class DropIndexConcurrentlyOp(MigrateOperation):
    """Drop an index while the app goes on reading and writing. Says what the index was, so that it can be reversed."""

    name: str
    table: str
    columns: tuple[str, ...]
    schema: str = "public"
    unique: bool = False
    where: str | None = None
    using: str | None = None

    @classmethod
    def drop_index_concurrently(
        cls,
        operations: Operations,
        name: str,
        table: str,
        columns: Sequence[str],
        *,
        schema: str = "public",
        unique: bool = False,
        where: str | None = None,
        using: str | None = None,
    ) -> None:
        """Drop an index without locking out anyone; the arguments are those that created it, for reversing.

        Only in the local chain. Within its step the index gets another name; it is dropped after the COMMIT, or by the
        next run when that fails, and until then a unique one refuses duplicates. An index that is gone already is no
        error. The database raises ZF008 (exit code 8) when something else of that name is there, a constraint stands
        on the index, or its table is partitioned.

            op.drop_index_concurrently("hospital_patients_name_idx", "hospital_patients", ["name"])

        https://www.postgresql.org/docs/current/sql-dropindex.html
        """
        operations.invoke(cls(name, table, tuple(columns), schema, unique, where, using))

    def reverse(self) -> CreateIndexConcurrentlyOp:
        return CreateIndexConcurrentlyOp(
            self.name, self.table, self.columns, self.schema, self.unique, self.where, self.using
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_index_concurrently", self.schema, self.table, self.name)


# A transaction has an id as soon as it has written anything, temporary tables included.
_FIRST = sql.SQL(
    """
DO $federation$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'index % is built concurrently after its step has written something', {name}
            USING ERRCODE = 'ZF008', HINT = 'move it to the beginning of its step, or into a release of its own';
    END IF;
END $federation$
"""
)

# A partitioned index is invalid in another sense, and is not made concurrently.
_DROP_INVALID = sql.SQL(
    """
SELECT format('DROP INDEX CONCURRENTLY %I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {name} AND NOT i.indisvalid AND i.indrelid = {table}::regclass
"""
)

# What the server makes of the declaration is read from an index of an empty table of the same columns: an expression is
# not spelled there as it was declared. Only the text from USING on is compared, since the names before it differ.
_SAME_OR_NONE = sql.SQL(
    """
DO $federation$
DECLARE
    found CONSTANT regclass := to_regclass(format('%I.%I', {schema}, {name}));
    same boolean;
BEGIN
    IF found IS NULL THEN
        RETURN;
    END IF;
    EXECUTE {empty_table};
    EXECUTE {index_of_it};
    SELECT count(*) = 2 AND 1 = count(DISTINCT (i.indisunique, substr(pg_get_indexdef(i.indexrelid),
        CASE WHEN i.indexrelid = found THEN length(format('CREATE %sINDEX %I ON %I.%I ',
            CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, n.nspname, t.relname)) + 1
        ELSE strpos(pg_get_indexdef(i.indexrelid), ' USING ') + 1 END)))
    INTO same
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
    WHERE i.indrelid = 'pg_temp.federation_index'::regclass
        OR (i.indexrelid = found AND i.indrelid = {table}::regclass AND i.indisvalid);
    DROP TABLE pg_temp.federation_index;
    IF NOT same THEN
        RAISE EXCEPTION '% is there and is not the index of % that the release declares', found, {table}
            USING ERRCODE = 'ZF008', HINT = 'move it away (ALTER … RENAME TO …), then run the command again';
    END IF;
END $federation$
"""
)


# Dropped indexes go by their oid, so that one which could not be dropped yet is in nobody's way.
_SET_ASIDE = sql.SQL(
    """
DO $federation$
DECLARE
    found CONSTANT regclass := to_regclass(format('%I.%I', {schema}, {name}));
BEGIN
    IF found IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indexrelid = found AND c.relkind = 'i' AND NOT c.relispartition AND i.indrelid = {table}::regclass
    ) OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conindid = found) THEN
        RAISE EXCEPTION '% is no index of % that can be dropped concurrently', found, {table}
            USING ERRCODE = 'ZF008', HINT = 'use op.drop_constraint, or op.drop_index';
    END IF;
    EXECUTE format('ALTER INDEX %s RENAME TO %I', found, 'federation_dropped_' || found::oid);
END $federation$
"""
)


def _text(statement: sql.Composable) -> sql.Literal:
    return sql.Literal(statement.as_string(None))


def _create_index(op: CreateIndexConcurrentlyOp, head: sql.Composable, table: sql.Identifier) -> sql.Composed:
    return sql.SQL("CREATE {unique}INDEX {head} ON {table}{using} ({columns}){where}").format(
        unique=sql.SQL("UNIQUE " if op.unique else ""),
        head=head,
        table=table,
        using=sql.SQL(" USING {}").format(sql.Identifier(op.using)) if op.using else sql.SQL(""),
        columns=sql.SQL(", ").join(map(sql.Identifier, op.columns)),
        where=sql.SQL(" WHERE ({})").format(sql.SQL(op.where)) if op.where else sql.SQL(""),
    )


def _require_local(operations: Operations, name: str) -> None:
    """Raise Refused in the cloud's chain, where nothing drops what is set aside."""
    if run_of(operations.migration_context).side == "cloud":
        raise Refused(
            f"index {name} is built or dropped concurrently, which only the local chain can do",
            side="cloud",
            hint="use op.create_index, op.drop_index",
        )


@Operations.implementation_for(CreateIndexConcurrentlyOp)
def _create(operations: Operations, op: CreateIndexConcurrentlyOp) -> None:
    _require_local(operations, op.name)
    table, beside = sql.Identifier(op.schema, op.table), sql.Identifier("pg_temp", "federation_index")
    names = {"schema": sql.Literal(op.schema), "name": sql.Literal(op.name), "table": _text(table)}
    create = _create_index(op, sql.SQL("CONCURRENTLY IF NOT EXISTS {}").format(sql.Identifier(op.name)), table)
    empty_table = sql.SQL("CREATE TEMPORARY TABLE federation_index (LIKE {}) ON COMMIT DROP").format(table)
    index_of_it = _create_index(op, sql.SQL("federation_wanted"), beside)
    if not _may_leave(operations, op.name):
        return
    with _autocommit_block(operations.migration_context):
        looked_at = Locks((((op.schema, op.table), SHARE_UPDATE_EXCLUSIVE),))
        _execute_each(operations, _DROP_INVALID.format(**names), looked_at)
        execute(
            operations,
            _SAME_OR_NONE.format(**names, empty_table=_text(empty_table), index_of_it=_text(index_of_it)),
            locks=looked_at,
        )
        execute(operations, create)


@Operations.implementation_for(DropIndexConcurrentlyOp)
def _set_aside(operations: Operations, op: DropIndexConcurrentlyOp) -> None:
    _require_local(operations, op.name)
    names = {"schema": sql.Literal(op.schema), "name": sql.Literal(op.name)}
    locks = Locks((((op.schema, op.table), SHARE_UPDATE_EXCLUSIVE),))
    execute(operations, _SET_ASIDE.format(**names, table=_text(sql.Identifier(op.schema, op.table))), locks=locks)
    run_of(operations.migration_context).sets_aside = True


def _may_leave(operations: Operations, name: str) -> bool:
    """Whether to go on, after the step was found to have written nothing.

    The runner tries a step that it undoes in a savepoint, which cannot be left (``trial``: True). What was
    tried has been looked at there, and the transaction has an id since (False).
    """
    trial = run_of(operations.migration_context).trial
    if trial is not False:
        execute(operations, _FIRST.format(name=sql.Literal(name)), locks=NOTHING)
    return not trial


@contextmanager
def _autocommit_block(context: MigrationContext) -> Iterator[None]:
    """Alembic's ``autocommit_block()``, except that a failing COMMIT does not replace an error raised inside.

    On its way out Alembic commits, which fails once more when the session is lost.
    """
    failure: BaseException | None = None
    try:
        with context.autocommit_block():
            try:
                yield
            except BaseException as error:
                failure = error
                raise
    except BaseException as error:
        if failure is not None and failure is not error:
            raise failure from None
        raise


def _execute_each(operations: Operations, query: sql.Composable, locks: Locks) -> None:
    """Send each statement that ``query`` returns, on its own as CONCURRENTLY asks; in ``--sql`` psql does it."""
    context = operations.migration_context
    if context.as_sql:
        write(operations, gexec(query), locks)
        return
    assert context.connection is not None  # noqa: S101  # online there is one
    for statement in context.connection.execute(ddl(query)).scalars().all():
        operations.execute(ddl(sql.SQL(statement)))


def gexec(query: sql.Composable) -> str:
    """For psql, which runs each statement that the query returns."""
    return query.as_string(None).strip() + "\n\\gexec"


@renderers.dispatch_for(CreateIndexConcurrentlyOp)
def _render_create(context: AutogenContext, op: CreateIndexConcurrentlyOp) -> str:
    return _rendered(context, "create_index_concurrently", op)


@renderers.dispatch_for(DropIndexConcurrentlyOp)
def _render_drop(context: AutogenContext, op: DropIndexConcurrentlyOp) -> str:
    return _rendered(context, "drop_index_concurrently", op)


def _rendered(context: AutogenContext, name: str, op: CreateIndexConcurrentlyOp | DropIndexConcurrentlyOp) -> str:
    more = given(unique=op.unique or None, where=op.where, using=op.using)
    return call(context, name, op.name, op.table, list(op.columns), schema=op.schema, **more)
