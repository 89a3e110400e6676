"""What a script of ``--sql`` finds out for itself, since no session has read the version table for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationStep
from psycopg import sql

from federation.databases import ddl

_AT = sql.SQL(
    """
DO $federation$
DECLARE
    release text := 'base';
BEGIN
    IF to_regclass('federation.alembic_version') IS NOT NULL THEN
        SELECT coalesce(string_agg(v.version_num, ', ' ORDER BY v.version_num), 'base') INTO release
        FROM federation.alembic_version AS v;
    END IF;
    IF release <> {source} THEN
        RAISE EXCEPTION 'the script takes % to %, and this database is at %', {source}, {target}, release
            USING ERRCODE = 'ZF008', HINT = 'write it anew, from the release that the database is at';
    END IF;
END $federation$"""
)

# Whoever else is in the same step has committed it before, or waits.
_ALONE = sql.SQL("LOCK TABLE federation.alembic_version IN SHARE ROW EXCLUSIVE MODE")


def require_release(context: MigrationContext, step: MigrationStep) -> None:
    """Stop the script unless the database is where ``step`` starts."""
    source, target = (", ".join(ids) or "base" for ids in (step.from_revisions_no_deps, step.to_revisions_no_deps))
    context.execute(ddl(_AT.format(source=sql.Literal(source), target=sql.Literal(target))))


def from_its_release(
    migration: Callable[..., Any], context: MigrationContext, step: MigrationStep
) -> Callable[..., Any]:
    """``migration`` in a script that changes nothing unless the database is where ``step`` starts.

    It is asked before the first statement, and again before the version row, where it is sure: another session may
    have taken the step in the meantime. Online Alembic does that by the number of rows that it has changed.
    """

    @wraps(migration)  # Alembic prints its name
    def checked(**arguments: Any) -> None:
        require_release(context, step)
        migration(**arguments)
        context.execute(ddl(_ALONE))
        require_release(context, step)

    return checked
