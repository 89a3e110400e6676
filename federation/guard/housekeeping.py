"""What both chains keep their books in: made when a step runs, removed by ``federation forget``."""

from __future__ import annotations

from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.databases import ddl
from federation.errors import Refused, Side

SCHEMA = "federation"
VERSION_TABLE = "alembic_version"

# The table is the one that Alembic makes itself, which it does in --sql but here only when a step runs.
_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS federation.alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""

_SCHEMA = "CREATE SCHEMA IF NOT EXISTS federation"

_HISTORY = """
CREATE TABLE IF NOT EXISTS federation.history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_release text NOT NULL,
    to_release text NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    role text NOT NULL,
    client text,
    file_sha256 text
)"""


# In --sql from base Alembic writes CREATE TABLE itself, also where a downgrade to base has left the table. Empty, it
# makes way; with a row in it the script is not for this database, and that CREATE TABLE stops it.
_MAKE_WAY = """
DO $federation$
BEGIN
    IF to_regclass('federation.alembic_version') IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM federation.alembic_version) THEN
            DROP TABLE federation.alembic_version;
        END IF;
    END IF;
END $federation$"""


def prepare(context: MigrationContext, *, from_base: bool) -> None:
    """Make schema ``federation``, version table and history where they are missing, in one transaction.

    ``from_base``: the first step starts there. In ``--sql`` it is then Alembic that writes the version table.
    """
    if context.as_sql:
        for statement in (_SCHEMA, _HISTORY, *([_MAKE_WAY] if from_base else [])):
            context.execute(ddl(sql.SQL(statement)))
        return
    assert context.connection is not None  # noqa: S101  # online there is one
    context.connection.rollback()  # Alembic has read the version table, and nothing else
    with context.connection.begin():
        for statement in (_SCHEMA, _VERSION_TABLE, _HISTORY):
            context.connection.exec_driver_sql(statement)


def current_release(connection: Connection) -> str | None:
    """The release of this database, or None at base; writes nothing, and needs no schema to be there.

    Raises Refused when the version table holds several rows: a chain with branches is no federation.
    """
    exists = connection.exec_driver_sql("SELECT to_regclass('federation.alembic_version') IS NOT NULL").scalar_one()
    rows = (
        connection.exec_driver_sql("SELECT version_num FROM federation.alembic_version ORDER BY 1").scalars().all()
        if exists
        else []
    )
    connection.rollback()
    if len(rows) > 1:
        raise Refused(f"federation.alembic_version holds {len(rows)} revisions", hint="merge the chain's branches")
    return rows[0] if rows else None


def forget(connection: Connection, side: Side) -> None:
    """Drop schema ``federation`` of a database that is at base.

    Raises Refused when the database holds a release, or the schema something that the toolkit did not make.
    """
    release = current_release(connection)
    if release is not None:
        raise Refused(f"the database is at {release}", side=side, hint="run `federation downgrade base` first")
    with connection.begin():
        if not connection.exec_driver_sql("SELECT to_regnamespace('federation') IS NOT NULL").scalar_one():
            return
        for table in (VERSION_TABLE, "history"):
            name = sql.Identifier(SCHEMA, table).as_string(None)
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        connection.exec_driver_sql("DROP SCHEMA federation")
