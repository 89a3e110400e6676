"""The views over foreign tables, read and written as the app's role."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import DATABASE_ERRORS, ddl
from federation.operations.views import READERS
from federation.verification.failure import as_failed
from federation.verification.policies import Table


@dataclass(frozen=True)
class View:
    """A view over a foreign table: its name, the hospital's table, and what it can be asked as the app's role."""

    schema: str
    name: str
    remote: tuple[str, str]
    own: bool
    """It is the table's own view, of the same name; others may leave rows out."""
    simple: bool
    """Each of its rows is a row of the table."""
    readable: tuple[str, ...]
    columns: tuple[str, ...]
    """Those that can be updated; none where the role may not."""

    @property
    def identifier(self) -> sql.Identifier:
        """Its quoted name."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"view {self.schema}.{self.name}"


# The foreign tables of the link, before the views that read one.
_LINK = """
    WITH RECURSIVE link AS (
        SELECT t.ftrelid AS oid, t.ftoptions FROM pg_foreign_table AS t
        JOIN pg_foreign_server AS s ON s.oid = t.ftserver AND s.srvname = :server),
"""


def reading(query: str) -> sa.TextClause:
    """``query`` with the foreign tables (``link``) and the views that read them (``reads``)."""
    return sa.text(_LINK + READERS + query)


_VIEWS = reading(
    """
    SELECT DISTINCT vn.nspname, v.relname, coalesce(o.schema_name, fn.nspname), coalesce(o.table_name, f.relname),
        v.relname = f.relname, pg_relation_is_updatable(v.oid, false) <> 0,
        ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = v.oid AND a.attnum > 0
            AND has_column_privilege(role.oid, v.oid, a.attnum, 'SELECT')),
        ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = v.oid AND a.attnum > 0
            AND has_column_privilege(role.oid, v.oid, a.attnum, 'UPDATE')
            AND pg_column_is_updatable(v.oid, a.attnum, false)
            AND NOT EXISTS (SELECT FROM pg_attribute AS g WHERE g.attrelid = f.oid AND g.attgenerated <> ''
                AND g.attname = a.attname)
            ORDER BY a.attnum)
    FROM link AS l
    JOIN pg_class AS f ON f.oid = l.oid
    JOIN pg_namespace AS fn ON fn.oid = f.relnamespace
    CROSS JOIN LATERAL (
        SELECT max(option_value) FILTER (WHERE option_name = 'schema_name') AS schema_name,
            max(option_value) FILTER (WHERE option_name = 'table_name') AS table_name
        FROM pg_options_to_table(l.ftoptions)) AS o
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = l.oid
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS w ON w.oid = d.objid
    JOIN pg_class AS v ON v.oid = w.ev_class AND v.relkind = 'v'
    JOIN pg_namespace AS vn ON vn.oid = v.relnamespace
    JOIN pg_roles AS role ON role.rolname = :role
    WHERE has_table_privilege(role.oid, v.oid, 'SELECT')
        AND has_schema_privilege(role.oid, vn.oid, 'USAGE')
    ORDER BY 1, 2
    """
)


def readable_by(config: Config, cloud: Connection, role: str | None) -> list[View]:
    """The views that ``role`` may read."""
    rows = cloud.execute(_VIEWS, {"server": config.link.server, "role": role})
    return [
        View(schema, name, (remote_schema, remote), own, simple, tuple(readable), tuple(columns))
        for schema, name, remote_schema, remote, own, simple, readable, columns in rows
    ]


def shows(cloud: Connection, view: View, role: str) -> bool:
    """Whether ``view`` shows any row."""
    try:
        shown = cloud.execute(ddl(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(view.identifier))).scalar_one()
    except DATABASE_ERRORS as error:
        raise as_failed(error, "cloud", f"{view} cannot be read as {role}") from error
    return bool(shown)


def write(cloud: Connection, view: View, role: str, table: Table) -> bool:
    """Write one row back as it is, if there is one, found by its key without the key leaving the servers.

    False where a policy says that this row is not to be written: an answer of the hospital's, and the transaction is
    over.
    """
    if not table.key or not set(table.key) <= set(view.readable) or not view.columns:
        return True
    column = next((name for name in view.columns if name not in table.key), view.columns[0])
    order = sql.SQL(", ").join(map(sql.Identifier, table.key))
    one = sql.SQL(" AND ").join(
        sql.SQL("{0} = (SELECT {0} FROM {1} ORDER BY {2} LIMIT 1)").format(sql.Identifier(name), view.identifier, order)
        for name in table.key
    )
    statement = sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
        view.identifier, sql.Identifier(column), sql.Identifier(column), one
    )
    try:
        cloud.execute(ddl(statement))
    except DATABASE_ERRORS as error:
        if _is_refused(error, view.remote[1]):
            return False
        raise as_failed(error, "cloud", f"{view} cannot be written as {role}") from error
    return True


def _is_refused(error: BaseException, table: str) -> bool:
    """Whether it is a policy of ``table`` itself that refuses the row, not one of a table that its triggers write to.

    Both have the SQLSTATE of a missing privilege, and over the link no table's name of their own.
    """
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    said = (original.diag.message_primary or "") if isinstance(original, psycopg.Error) else ""
    return "violates row-level security policy" in said and said.endswith(f'for table "{table}"')
