"""What a release promises, asked of the two databases once it is whole. Changes nothing: the write is rolled back.

The columns of each foreign table are there at the hospital, of the same type. Whoever reads a view reaches the hospital
as the judged link role, not as the view's owner, and roles that are denied have no privilege. Each view is read as the
app's role, by the site's own account and by a caller that the hospital does not list, and shows rows where the
hospital's own policies admit some: their expressions, evaluated there by the tables' owner, are what is compared with.
The app's role then writes a row back as it was. No value leaves either server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import DATABASE_ERRORS, ddl, over_the_link
from federation.errors import LockHeld, Side, Unreachable, VerificationFailed, from_database
from federation.operations.bindings import NOBODY
from federation.operations.views import READERS

_HINT = "`federation check` compares both sides"


_LOOKS = 3
"""The app goes on writing between the two databases' answers: only what differs this often differs."""


@dataclass(frozen=True)
class _View:
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
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"view {self.schema}.{self.name}"


@dataclass(frozen=True)
class _Table:
    """The hospital's table: its key, and the rows that its policies admit, in SQL."""

    key: tuple[str, ...]
    admits: str
    certain: bool
    """The owner finds the same rows with it as the link role."""


_Tables: TypeAlias = dict[tuple[str, str], _Table]
"""By schema and name."""


def verify(config: Config, sessions: dict[Side, Connection]) -> None:
    """Raise VerificationFailed, naming the object, unless both databases keep what the release promises.

    Unreachable and LockHeld stay what they are.
    """
    local, cloud = sessions["local"], sessions["cloud"]
    role = next(iter(config.roles.callers), None)
    with _at_rest(cloud, "cloud"):
        cloud.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        foreign = cloud.execute(_FOREIGN_COLUMNS, {"server": config.link.server}).all()
        _refuse_ways_past(config, cloud)
        views = _views(config, cloud, role)
    with _at_rest(local, "local"):
        local.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        _columns(local, foreign)
    if role is None or not views:
        return
    known: dict[str, _Tables] = {}
    with over_the_link(cloud, config):
        for sub in (config.site(), NOBODY):
            different = None
            for _ in range(_LOOKS):
                different = _look(config, sessions, role, sub, views, known)
                if different is None:
                    break
            if different is not None:
                raise different


def _look(
    config: Config,
    sessions: dict[Side, Connection],
    role: str,
    sub: UUID,
    views: list[_View],
    known: dict[str, _Tables],
) -> VerificationFailed | None:
    """What ``sub`` is shown against the policies, or not shown. Raises where a view cannot be asked.

    ``known``: the hospital's tables, by the role that their policies are for.
    """
    local, cloud = sessions["local"], sessions["cloud"]
    with _at_rest(local, "local"):
        local.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        there = _role(config, local, sub)
        if there not in known:
            known[there] = _tables(local, there, [view.remote for view in views])
        tables = known[there]
        admitted = _admitted(local, sub, tables)
    with _at_rest(cloud, "cloud"):
        _become(cloud, role, sub)
        for view in views:
            table, shown = tables[view.remote], _shows(cloud, view, role)
            if table.certain and view.simple and shown and not admitted[view.remote]:
                return _failed(f"{view} shows rows that the hospital's policies refuse", "cloud")
            # Whom the hospital does not list the view may refuse by itself.
            if table.certain and view.own and sub != NOBODY and admitted[view.remote] and not shown:
                return _failed(f"{view} shows none of the rows that the hospital's policies admit", "cloud")
            if view.own and sub != NOBODY and _is_to_write(config, role) and not _write(cloud, view, role, table):
                cloud.rollback()
                _become(cloud, role, sub)
    return None


def _become(cloud: Connection, role: str, sub: UUID) -> None:
    """Begin a transaction as PostgREST begins a request."""
    cloud.execute(ddl(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))))
    claims = json.dumps({"sub": str(sub), "role": role})
    cloud.execute(sa.text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": claims})


def _is_to_write(config: Config, role: str) -> bool:
    """Whether the hospital is to let callers update: unless the deployment declares less, what the view grants."""
    grants = config.tables.link_grants
    return grants is None or "UPDATE" in {*grants.get("@link", ()), *grants.get(role, ())}


@contextmanager
def _at_rest(connection: Connection, side: Side) -> Iterator[None]:
    """A transaction that leaves nothing; what the database raises is an error of ours."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise from_database(error, side=side) from error
    finally:
        connection.rollback()


def _failed(message: str, side: Side) -> VerificationFailed:
    return VerificationFailed(message, side=side, hint=_HINT)


_FOREIGN_COLUMNS = sa.text(
    """
    SELECT coalesce(o.schema_name, n.nspname), coalesce(o.table_name, c.relname),
        coalesce((SELECT x.option_value FROM pg_options_to_table(a.attfdwoptions) AS x
                  WHERE x.option_name = 'column_name'), a.attname),
        format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_foreign_table AS t
    JOIN pg_foreign_server AS s ON s.oid = t.ftserver
    JOIN pg_class AS c ON c.oid = t.ftrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    CROSS JOIN LATERAL (
        SELECT max(option_value) FILTER (WHERE option_name = 'schema_name') AS schema_name,
            max(option_value) FILTER (WHERE option_name = 'table_name') AS table_name
        FROM pg_options_to_table(t.ftoptions)) AS o
    WHERE s.srvname = :server AND n.nspname <> 'federation_private'
    ORDER BY c.relname, a.attnum
    """
)
_LOCAL_COLUMNS = sa.text(
    """
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(CAST(:schemas AS name[]), CAST(:tables AS name[])))
    """
)


def _columns(local: Connection, foreign: Sequence[Any]) -> None:
    names = sorted({(schema, table) for schema, table, *_ in foreign})
    there = {
        (schema, table, column): (type_, notnull)
        for schema, table, column, type_, notnull in local.execute(
            _LOCAL_COLUMNS, {"schemas": [schema for schema, _ in names], "tables": [table for _, table in names]}
        )
    }
    for schema, table, column, type_, notnull in foreign:
        found = there.get((schema, table, column))
        if found is None:
            raise _failed(f"the foreign table's column {schema}.{table}.{column} is missing", "local")
        if found != (type_, notnull):
            shown, wanted = (f"{kind}{' NOT NULL' if strict else ''}" for kind, strict in (found, (type_, notnull)))
            raise _failed(f"column {schema}.{table}.{column} is {shown}, and {wanted} in the cloud", "local")


# The foreign tables of the link, before the views that read one.
_LINK = """
    WITH RECURSIVE link AS (
        SELECT t.ftrelid AS oid, t.ftoptions FROM pg_foreign_table AS t
        JOIN pg_foreign_server AS s ON s.oid = t.ftserver AND s.srvname = :server),
"""


def _reading(query: str) -> sa.TextClause:
    return sa.text(_LINK + READERS + query)


# What lets somebody past the judged link role: a role that is denied, a view that is read as its owner, a mapping.
# A view of the app's own that asks as its caller gives nobody more than the views it reads.
_PAST = _reading(
    """
    SELECT format('%s has privileges on %s', r.rolname, c.oid::regclass)
    FROM (SELECT oid FROM reads UNION SELECT oid FROM link) AS x JOIN pg_class AS c ON c.oid = x.oid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace CROSS JOIN pg_roles AS r
    WHERE r.rolname = ANY (:denied)
        AND (c.relkind <> 'v' OR n.nspname = :schema AND c.relname = ANY (:exported)
            OR NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
                WHERE o.option_name = 'security_invoker' AND o.option_value::boolean))
        AND (has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
            OR has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE'))
    UNION ALL
    SELECT format('view %s is not security_invoker: it is read as its owner', c.oid::regclass)
    FROM reads AS x JOIN pg_class AS c ON c.oid = x.oid AND c.relkind = 'v'
    JOIN pg_roles AS r ON r.rolname = ANY (:callers) AND has_any_column_privilege(r.oid, c.oid, 'SELECT')
    WHERE NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
        WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)
    UNION ALL
    SELECT CASE m.umuser WHEN 0
        THEN format('server %s takes callers to the hospital as %s, not %s', m.srvname, o.name, CAST(:user AS text))
        ELSE format('%s has a user mapping of its own for server %s', m.usename, m.srvname) END
    FROM pg_user_mappings AS m
    CROSS JOIN LATERAL (SELECT max(option_value) FILTER (WHERE option_name = 'user') AS name
        FROM pg_options_to_table(m.umoptions)) AS o
    WHERE m.srvname = :server AND (m.usename = ANY (:callers) OR m.umuser = 0 AND o.name <> :user)
    ORDER BY 1
    """
)


def _refuse_ways_past(config: Config, cloud: Connection) -> None:
    """Raise VerificationFailed unless the app's roles reach the hospital as the judged link role, or not at all."""
    known = {
        "server": config.link.server,
        "user": config.link.user,
        "callers": list(config.roles.callers),
        "denied": list(config.roles.denied),
        "schema": config.tables.schema_,
        "exported": list(config.tables.exported),
    }
    past = cloud.execute(_PAST, known).scalars().first()
    if past is not None:
        raise _failed(past, "cloud")


_VIEWS = _reading(
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


def _views(config: Config, cloud: Connection, role: str | None) -> list[_View]:
    """The views that ``role`` may read."""
    rows = cloud.execute(_VIEWS, {"server": config.link.server, "role": role})
    return [
        _View(schema, name, (remote_schema, remote), own, simple, tuple(readable), tuple(columns))
        for schema, name, remote_schema, remote, own, simple, readable, columns in rows
    ]


# The role that the hospital takes for an account (federation.take), whose policies decide.
_ROLE = sa.text(
    """
    SELECT r.rolname FROM federation.account AS a JOIN pg_roles AS r ON r.rolname = a.claims ->> 'role'
    WHERE a.sub = :sub AND has_function_privilege(r.oid, 'federation.take(uuid, text)', 'EXECUTE')
    """
)
# A policy that reads what has policies of its own, calls the app's functions or asks who is there says something else
# to the owner.
_TABLES = sa.text(
    r"""
    WITH policies AS (
        SELECT p.oid, p.polrelid, p.polpermissive, coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') AS expression
        FROM pg_policy AS p
        WHERE p.polcmd IN ('*', 'r') AND EXISTS (
            SELECT FROM unnest(p.polroles) AS r (oid)
            WHERE r.oid = 0 OR pg_has_role(CAST(:role AS name), r.oid, 'USAGE')))
    SELECT n.nspname, c.relname,
        ARRAY(SELECT a.attname::text FROM pg_index AS i
            JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
            WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum),
        CASE WHEN NOT c.relrowsecurity THEN 'true' ELSE
            coalesce((SELECT '(' || string_agg('(' || p.expression || ')', ' OR ') || ')'
                FROM policies AS p WHERE p.polrelid = c.oid AND p.polpermissive), 'false')
            || coalesce((SELECT string_agg(' AND (' || p.expression || ')', '')
                FROM policies AS p WHERE p.polrelid = c.oid AND NOT p.polpermissive), '') END,
        c.relkind = 'v' AND NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o
            WHERE o.option_name = 'security_invoker' AND o.option_value::boolean),
        c.relkind IN ('r', 'p') AND NOT row_security_active(c.oid) AND NOT EXISTS (
            SELECT FROM policies AS p
            LEFT JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
            LEFT JOIN pg_class AS other ON d.refclassid = 'pg_class'::regclass AND other.oid = d.refobjid
                AND other.oid <> c.oid
            LEFT JOIN pg_proc AS f ON d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid
            WHERE p.polrelid = c.oid AND (other.relrowsecurity OR other.relkind NOT IN ('r', 'p')
                OR f.pronamespace <> to_regnamespace('auth')
                OR p.expression ~*
                    '\m(current_user|session_user|current_role|user|has_\w+|pg_has_role|current_setting)\M'))
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(CAST(:schemas AS name[]), CAST(:tables AS name[])))
    """
)


def _role(config: Config, local: Connection, sub: UUID) -> str:
    """The role whose policies decide for ``sub``."""
    taken = None
    if local.exec_driver_sql("SELECT to_regclass('federation.account') IS NOT NULL").scalar_one():
        taken = local.execute(_ROLE, {"sub": sub}).scalar_one_or_none()
    return taken or config.link.user


def _tables(local: Connection, role: str, names: list[tuple[str, str]]) -> _Tables:
    parameters = {
        "role": role,
        "schemas": [schema for schema, _ in names],
        "tables": [table for _, table in names],
    }
    tables = {}
    for schema, name, key, admits, as_owner, certain in local.execute(_TABLES, parameters):
        if as_owner:
            raise _failed(f"view {schema}.{name} is not security_invoker: its tables are read as its owner", "local")
        tables[schema, name] = _Table(tuple(key), admits, certain)
    return tables


def _admitted(local: Connection, sub: UUID, tables: _Tables) -> dict[tuple[str, str], bool]:
    """By table, whether the policies admit any row to ``sub``: their own expressions, as the catalog spells them."""
    local.execute(sa.text("SELECT set_config('federation.account', :sub, true)"), {"sub": str(sub)})
    exists = [
        sql.SQL("EXISTS (SELECT FROM {} WHERE {})").format(
            sql.Identifier(*name), sql.SQL(table.admits) if table.certain else sql.SQL("false")
        )
        for name, table in tables.items()
    ]
    try:
        row = local.execute(ddl(sql.SQL("SELECT {}").format(sql.SQL(", ").join(exists)))).one()
    except DATABASE_ERRORS as error:
        raise _as_failed(error, "local", "the tables' policies cannot be evaluated") from error
    return dict(zip(tables, row, strict=True))


def _shows(cloud: Connection, view: _View, role: str) -> bool:
    """Whether ``view`` shows any row."""
    try:
        shown = cloud.execute(ddl(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(view.identifier))).scalar_one()
    except DATABASE_ERRORS as error:
        raise _as_failed(error, "cloud", f"{view} cannot be read as {role}") from error
    return bool(shown)


def _write(cloud: Connection, view: _View, role: str, table: _Table) -> bool:
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
        raise _as_failed(error, "cloud", f"{view} cannot be written as {role}") from error
    return True


def _is_refused(error: BaseException, table: str) -> bool:
    """Whether it is a policy of ``table`` itself that refuses the row, not one of a table that its triggers write to.

    Both have the SQLSTATE of a missing privilege, and over the link no table's name of their own.
    """
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    said = (original.diag.message_primary or "") if isinstance(original, psycopg.Error) else ""
    return "violates row-level security policy" in said and said.endswith(f'for table "{table}"')


def _as_failed(error: BaseException, side: Side, what: str) -> Exception:
    ours = from_database(error, side=side)
    return ours if isinstance(ours, (Unreachable, LockHeld)) else _failed(f"{what} ({ours.message})", side)
