"""A step that rewrites an exported table does not commit while a request of the app can wait for that table.

The link's snapshot is older than its locks (REPEATABLE READ). A request that waits at the hospital during a rewrite
sees none of the table's rows afterwards: an empty list, an UPDATE of no row, and no error. So the runner keeps the app
out of the link, in the cloud, until such a step is committed. Plain Alembic at the hospital cannot, and is refused.

What tells is the file in which the table's rows are: a rewrite begins another one.

https://www.postgresql.org/docs/current/mvcc-caveats.html
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from alembic.runtime.migration import MigrationContext
from psycopg import sql

from federation.config import Config
from federation.databases import ddl
from federation.errors import Refused
from federation.guard import storage
from federation.guard.leaving import around_leaving
from federation.operations.run import Run

_STEPWISE = "add the column without a default, fill it in batches, then set its default and NOT NULL (docs/releases.md)"


class Rewritten(Refused):
    """A step has rewritten ``tables`` while the app could wait for them. It is not committed."""

    def __init__(self, tables: tuple[str, ...]) -> None:
        self.tables = tables
        super().__init__(
            f"the step rewrites {', '.join(tables)}, and requests that wait meanwhile would see no rows",
            side="local",
            hint="nothing of it was done; run it by `federation upgrade`, which keeps the app waiting meanwhile; or "
            f"without a rewrite: {_STEPWISE}; -x override=REASON lets it pass",
        )


class TooLong(Refused):
    """A rewrite took longer than the app may be kept waiting. It is undone."""

    def __init__(self, timeout: str, tables: tuple[str, ...]) -> None:
        super().__init__(
            f"rewriting {', '.join(tables)} takes longer than rewrite_timeout ({timeout}), while the app waits",
            side="local",
            hint=f"do it without a rewrite: {_STEPWISE}; or raise rewrite_timeout in federation.toml, [database]",
        )


def without_rewrite(
    migration: Callable[..., Any],
    context: MigrationContext,
    run: Run,
) -> Callable[..., Any]:
    """``migration`` of the hospital, which raises Rewritten before it commits a rewrite of an exported table.

    The runner then repeats the step with the app kept out. Plain Alembic's step is refused while the cloud has a link;
    one that is overridden has the refusal in its history.
    """

    def look(before: dict[str, str]) -> None:
        connection = context.connection
        assert connection is not None  # noqa: S101  # online there is one
        changed = tuple(
            name for name, file in storage.files(connection, run.config).items() if before.get(name, file) != file
        )
        if not changed:
            return
        refusal = Rewritten(changed)
        if run.kept_out is not None:
            run.kept_out()
        elif run.connection is not None:
            raise refusal
        elif connection.exec_driver_sql("SELECT cloud_release FROM federation.guard").scalar_one_or_none():
            if run.override is None:
                raise refusal
            run.refusal = refusal.message

    @wraps(migration)  # Alembic prints its name
    def watched(**arguments: Any) -> None:
        assert context.connection is not None  # noqa: S101  # online there is one
        before = storage.files(context.connection, run.config)
        with around_leaving(context, before=lambda: look(before)):
            migration(**arguments)
        look(before)

    return watched


_REMEMBER = """
DO $federation$
BEGIN
    PERFORM set_config('federation.files', coalesce((SELECT jsonb_object_agg(f.exported, f.files)::text FROM (FILES
    ) AS f), '{{}}'), false);
END $federation$""".replace("FILES", storage.FILES)
_COMPARE = """
DO $federation$
DECLARE
    rewritten text;
BEGIN
    SELECT string_agg(f.exported, ', ' ORDER BY f.exported) INTO rewritten FROM (FILES
    ) AS f WHERE current_setting('federation.files')::jsonb ->> f.exported <> f.files;
    IF rewritten IS NOT NULL AND (SELECT g.cloud_release <> '' FROM federation.guard AS g) THEN
        RAISE EXCEPTION 'the step rewrites %, and requests that wait meanwhile would see no rows', rewritten
            USING ERRCODE = 'ZF008', HINT = HELP;
    END IF;
END $federation$""".replace("FILES", storage.FILES)


def without_rewrite_offline(
    migration: Callable[..., Any], context: MigrationContext, config: Config
) -> Callable[..., Any]:
    """The same in ``--sql``, unless the script is written with an override."""
    remember = storage.named(_REMEMBER, config)
    hint = sql.Literal(Rewritten(("it",)).hint).as_string(None)
    compare = storage.named(_COMPARE.replace("HELP", hint), config)

    @wraps(migration)  # Alembic prints its name
    def watched(**arguments: Any) -> None:
        context.execute(ddl(remember))
        with around_leaving(context, before=lambda: context.execute(ddl(compare))):
            migration(**arguments)
        context.execute(ddl(compare))

    return watched
