"""What both chains keep their books in: made when a step runs, removed by ``federation forget``."""

from __future__ import annotations

from functools import cache
from importlib import resources

from alembic.runtime.migration import MigrationContext, MigrationStep
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import asked, ddl
from federation.errors import Refused, Side
from federation.guard.offline import require_release

SCHEMA = "federation"
VERSION_TABLE = "alembic_version"

_TABLES = (VERSION_TABLE, "history", "guard", "pair", "storage", "run")
_FUNCTIONS = ("guard_version", "settle")

_BOOKS = "alembic-federation books 4"
"""Comment of schema ``federation`` where the books are as this version of the toolkit makes them."""

# In --sql from base Alembic writes CREATE TABLE itself, also where a downgrade to base has left the table. An empty
# table is dropped, so that CREATE TABLE succeeds. If it has a row, the script has stopped already, or stops there.
_MAKE_WAY = """
DO $federation$
BEGIN
    IF NOT EXISTS (SELECT FROM federation.alembic_version) THEN
        DROP TABLE federation.alembic_version;
    END IF;
END $federation$"""

# Deferred until the step's history row is there, which says what the guard asks.
_TRIGGER = """
DROP TRIGGER IF EXISTS guard_version ON federation.alembic_version;
CREATE CONSTRAINT TRIGGER guard_version AFTER INSERT OR UPDATE OR DELETE ON federation.alembic_version
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION federation.guard_version();
COMMENT ON TABLE federation.alembic_version IS 'The release of this database; no row is base.';
COMMENT ON COLUMN federation.alembic_version.version_num IS 'The release''s id.'"""


def prepare(context: MigrationContext, config: Config, side: Side, first: MigrationStep) -> None:
    """Make schema ``federation``, version table, history and guard where they are missing, in one transaction.

    Where the ``first`` step starts from base, in ``--sql`` it is Alembic that writes the version table, and the
    trigger is made after it, by `set_trigger`. A script begins with what `require_own` asks, and with the release.
    """
    if context.as_sql:
        context.impl.static_output("\\set ON_ERROR_STOP on")
        context.execute(ddl(sql.SQL("SET client_min_messages = warning")))  # "already exists, skipping" is no news
        context.execute(ddl(_own(config, side)))
        require_release(context, first)
        context.execute(ddl(_books(config, side)))
        context.execute(ddl(sql.SQL(_TRIGGER if first.from_revisions_no_deps else _MAKE_WAY)))
        return
    assert context.connection is not None  # noqa: S101  # online there is one
    connection = context.connection
    connection.rollback()  # Alembic has read the version table, and nothing else
    with connection.begin():
        found = connection.exec_driver_sql(
            "SELECT obj_description(to_regnamespace('federation'), 'pg_namespace')"
        ).scalar_one()
        if found != _BOOKS:
            for made in (_books(config, side), sql.SQL(_TRIGGER), _COMMENT):
                connection.execute(ddl(made))


def restore_books(connection: Connection, config: Config, side: Side) -> None:
    """Make what is missing of the books and grant what they grant, in the caller's transaction."""
    connection.execute(ddl(_books(config, side)))


def require_own(connection: Connection, config: Config, side: Side) -> None:
    """Raise Refused where the books are the other side's, another site's, or without the guard's row. Reads only."""
    with asked(connection, side):
        connection.execute(ddl(_own(config, side)))


def set_trigger(context: MigrationContext) -> None:
    """Put the guard on the version table that Alembic has just written, in ``--sql`` from base."""
    context.execute(ddl(sql.SQL(_TRIGGER)))
    context.execute(ddl(_revoke(VERSION_TABLE)))


_COMMENT = sql.SQL("COMMENT ON SCHEMA federation IS {}").format(sql.Literal(_BOOKS))


def _own(config: Config, side: Side) -> sql.Composable:
    """What raises unless the database is of this side and site, or has no books yet."""
    return sql.SQL(_text(f"own_{side}")).format(site=sql.Literal(config.site()))


def _books(config: Config, side: Side) -> sql.Composable:
    """All but the trigger, safe to run again."""
    books = sql.SQL(_text("books"))
    revoke = _revoke(*_TABLES, "history_id_seq", *_FUNCTIONS)
    if side == "cloud":
        return sql.Composed([books, sql.SQL(_text("cloud")), revoke])
    guard = sql.SQL(_text("local")).format(site=sql.Literal(config.site()))
    grants = sql.SQL(_text("local_grants")).format(service=sql.Identifier(config.link.service_user))
    return sql.Composed([books, guard, revoke, grants])


def _revoke(*names: str) -> sql.Composable:
    """What leaves nobody but the owner a privilege on these tables, sequences and functions of the books."""
    return sql.SQL(_text("revoke")).format(names=sql.Literal(list(names)))


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def current_release(connection: Connection, side: Side) -> str | None:
    """The release of the database of ``side``, or None at base; writes nothing, and needs no schema to be there.

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
        raise Refused(
            f"federation.alembic_version holds {', '.join(rows)}",
            side=side,
            hint="a chain has one release: DELETE the row that is not it",
        )
    return rows[0] if rows else None


def forget(connection: Connection, side: Side) -> None:
    """Drop schema ``federation`` of a database that is at base.

    Raises Refused when the database holds a release, or the schema something that the toolkit did not make.
    """
    release = current_release(connection, side)
    if release is not None:
        raise Refused(f"the database is at {release}", side=side, hint="run `federation downgrade base` first")
    with connection.begin():
        if not connection.exec_driver_sql("SELECT to_regnamespace('federation') IS NOT NULL").scalar_one():
            return
        for table in _TABLES:
            name = sql.Identifier(SCHEMA, table).as_string(None)
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        for function in _FUNCTIONS:
            name = sql.Identifier(SCHEMA, function).as_string(None)
            connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}()")
        connection.exec_driver_sql("DROP SCHEMA federation")
