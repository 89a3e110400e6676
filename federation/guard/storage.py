"""In which file each exported table's rows are: a rewrite begins another one, and the link's snapshots do not see it.

Each step of the hospital notes the files that it leaves, in its own transaction. So CLUSTER, VACUUM FULL and TRUNCATE
that nobody announced are seen afterwards: requests that waited for them have been shown no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import asked, ddl

# An exported table may have partitions, and rows are in those.
FILES = """
    WITH RECURSIVE stored AS (
        SELECT c.relname AS exported, c.oid FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = to_regnamespace({schema}) AND c.relname = ANY ({tables}::name[])
            AND c.relkind IN ('r', 'p')
        UNION SELECT s.exported, i.inhrelid FROM stored AS s JOIN pg_catalog.pg_inherits AS i ON i.inhparent = s.oid)
    SELECT s.exported, string_agg(c.relfilenode::text, ' ' ORDER BY c.relname) AS files
    FROM stored AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.oid AND c.relkind = 'r' GROUP BY s.exported"""

_NOTE = sql.SQL(
    """
DO $federation$
BEGIN
    DELETE FROM federation.storage;
    INSERT INTO federation.storage (exported, files) {files};
END $federation$"""
)


def named(query: str, config: Config) -> sql.Composed:
    """``query``, which holds `FILES`, for the exported tables of this deployment."""
    return sql.SQL(query).format(
        schema=sql.Literal(config.tables.schema_), tables=sql.Literal(list(config.tables.exported))
    )


def files(connection: Connection, config: Config) -> dict[str, str]:
    """The files of each exported table, in the present transaction."""
    return {name: found for name, found in connection.execute(ddl(named(FILES, config))).all()}  # noqa: C416


def note(config: Config) -> sql.Composed:
    """A statement that notes the files as they are."""
    return _NOTE.format(files=named(FILES, config))


def rewritten(local: Connection, config: Config) -> Iterator[tuple[str, datetime]]:
    """The exported tables that were rewritten since a step noted their files, and when it did. Reads only."""
    with asked(local, "local"):
        if not local.exec_driver_sql("SELECT to_regclass('federation.storage') IS NOT NULL").scalar_one():
            return
        now = files(local, config)
        noted = local.exec_driver_sql("SELECT exported, files, noted_at FROM federation.storage ORDER BY 1").all()
    for name, before, noted_at in noted:
        if name in now and now[name] != before:
            yield name, noted_at
