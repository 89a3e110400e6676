"""What a release promises, asked of the two databases once it is whole. Changes nothing: the write is rolled back.

The columns of each foreign table are there at the hospital, of the same type. Each view is read as the app's role, by
the site's own account and by a caller that the hospital does not list, and shows rows exactly where the hospital's own
policies admit some: their expressions, evaluated there by the tables' owner, are what is compared with. The app's role
then writes a row back as it was. Roles that are denied have no privilege. No value leaves either server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import DATABASE_ERRORS, ddl, over_the_link
from federation.errors import LockHeld, Side, Unreachable, VerificationFailed, from_database
from federation.operations.bindings import NOBODY

_HINT = "compare both sides with `federation check`; the release counts as failed"


@dataclass(frozen=True)
class _View:
    """A view over a foreign table: its name, the hospital's table, its columns, what the app's role may do."""

    schema: str
    name: str
    remote: tuple[str, str]
    columns: tuple[str, ...]
    readable: bool
    writable: bool
    denied: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class _Table:
    """The hospital's table: its key, and what its policies say in SQL, if they say it without other tables."""

    key: tuple[str, ...]
    admits: str
    alone: bool


def verify_columns(config: Config, sessions: dict[Side, Connection]) -> None:
    """Raise VerificationFailed unless every foreign table's columns are at the hospital, of the same type."""
    with _at_rest(sessions["local"]), _at_rest(sessions["cloud"]):
        for session in sessions.values():
            session.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        _columns(config, sessions["local"], sessions["cloud"])


def verify(config: Config, sessions: dict[Side, Connection]) -> None:
    """Raise VerificationFailed, naming the object, unless both databases keep what the release promises.

    Unreachable and LockHeld stay what they are.
    """
    local, cloud = sessions["local"], sessions["cloud"]
    verify_columns(config, sessions)
    with _at_rest(local), _at_rest(cloud):
        for session in (local, cloud):
            session.exec_driver_sql("SET LOCAL search_path = pg_catalog")
        role = next(iter(config.roles.callers), None)
        views = _views(config, cloud, role)
        tables = _tables(config, local, role, [view.remote for view in views])
        expected = {sub: _expected(local, sub, tables) for sub in (config.site(), NOBODY)} if tables else {}
    for view in views:
        if view.denied:
            raise _failed(f"{', '.join(view.denied)} has privileges on view {view.schema}.{view.name}", "cloud")
    readable = [view for view in views if view.readable]
    if role is None or not readable:
        return
    with over_the_link(cloud, config):
        for sub, admitted in expected.items():
            with _at_rest(cloud):
                cloud.execute(ddl(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))))
                claims = json.dumps({"sub": str(sub), "role": role})
                cloud.execute(sa.text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": claims})
                for view in readable:
                    _read(cloud, view, role, tables[view.remote], admitted=admitted[view.remote])
                    if view.writable and sub != NOBODY:
                        _write(cloud, view, role, tables[view.remote])


@contextmanager
def _at_rest(connection: Connection) -> Iterator[None]:
    """A transaction that leaves nothing."""
    try:
        yield
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


def _columns(config: Config, local: Connection, cloud: Connection) -> None:
    foreign = cloud.execute(_FOREIGN_COLUMNS, {"server": config.link.server}).all()
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


_VIEWS = sa.text(
    """
    SELECT DISTINCT vn.nspname, v.relname, coalesce(o.schema_name, fn.nspname), coalesce(o.table_name, f.relname),
        ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = v.oid AND a.attnum > 0
              ORDER BY a.attnum),
        coalesce(has_table_privilege(role.oid, v.oid, 'SELECT'), false),
        coalesce(has_table_privilege(role.oid, v.oid, 'UPDATE'), false),
        ARRAY(SELECT r.rolname::text FROM pg_roles AS r WHERE r.rolname = ANY (:denied)
              AND has_table_privilege(r.oid, v.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE'))
    FROM pg_foreign_table AS t
    JOIN pg_foreign_server AS s ON s.oid = t.ftserver
    JOIN pg_class AS f ON f.oid = t.ftrelid
    JOIN pg_namespace AS fn ON fn.oid = f.relnamespace
    CROSS JOIN LATERAL (
        SELECT max(option_value) FILTER (WHERE option_name = 'schema_name') AS schema_name,
            max(option_value) FILTER (WHERE option_name = 'table_name') AS table_name
        FROM pg_options_to_table(t.ftoptions)) AS o
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = f.oid
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS w ON w.oid = d.objid
    JOIN pg_class AS v ON v.oid = w.ev_class AND v.relkind = 'v' AND v.relname = f.relname
    JOIN pg_namespace AS vn ON vn.oid = v.relnamespace
    LEFT JOIN pg_roles AS role ON role.rolname = :role
    WHERE s.srvname = :server
    ORDER BY 1, 2
    """
)


def _views(config: Config, cloud: Connection, role: str | None) -> list[_View]:
    rows = cloud.execute(
        _VIEWS, {"server": config.link.server, "role": role, "denied": list(config.roles.denied)}
    ).all()
    return [
        _View(schema, name, (remote_schema, remote), tuple(columns), readable, writable, tuple(denied))
        for schema, name, remote_schema, remote, columns, readable, writable, denied in rows
    ]


# A policy that reads other tables is judged there with the link role's privileges, here with the owner's: it says
# what is refused, and is not relied on for what is admitted.
_TABLES = sa.text(
    """
    SELECT n.nspname, c.relname,
        ARRAY(SELECT a.attname::text FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = c.oid
                AND a.attnum = ANY (i.indkey::int2[]) WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum),
        CASE WHEN NOT c.relrowsecurity THEN 'true' ELSE coalesce((
            SELECT string_agg('(' || coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') || ')', ' OR ')
            FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('*', 'r')
                AND (p.polroles = '{0}' OR p.polroles && ARRAY(
                    SELECT r.oid FROM pg_roles AS r WHERE r.rolname = ANY (:roles)))), 'false') END,
        NOT EXISTS (SELECT FROM pg_policy AS p JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass
            AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
            WHERE p.polrelid = c.oid)
        AND NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid AND NOT p.polpermissive)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(CAST(:schemas AS name[]), CAST(:tables AS name[])))
    """
)


def _tables(
    config: Config, local: Connection, role: str | None, names: list[tuple[str, str]]
) -> dict[tuple[str, str], _Table]:
    parameters = {
        "roles": [name for name in (config.link.user, role) if name],
        "schemas": [schema for schema, _ in names],
        "tables": [table for _, table in names],
    }
    rows = local.execute(_TABLES, parameters)
    return {(schema, name): _Table(tuple(key), admits, alone) for schema, name, key, admits, alone in rows}


def _expected(local: Connection, sub: object, tables: dict[tuple[str, str], _Table]) -> dict[tuple[str, str], bool]:
    """By table, whether the policies admit any row to ``sub``: their own expressions, as the catalog spells them."""
    local.execute(sa.text("SELECT set_config('federation.account', :sub, true)"), {"sub": str(sub)})
    exists = [
        sql.SQL("EXISTS (SELECT FROM {} WHERE {})").format(sql.Identifier(*name), sql.SQL(table.admits))
        for name, table in tables.items()
    ]
    try:
        row = local.execute(ddl(sql.SQL("SELECT {}").format(sql.SQL(", ").join(exists)))).one()
    except DATABASE_ERRORS as error:
        raise _as_failed(error, "local", "the tables' policies cannot be evaluated") from error
    return dict(zip(tables, row, strict=True))


def _read(cloud: Connection, view: _View, role: str, table: _Table, *, admitted: bool) -> None:
    try:
        shown = cloud.execute(ddl(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(view.identifier))).scalar_one()
    except DATABASE_ERRORS as error:
        raise _as_failed(error, "cloud", f"view {view.schema}.{view.name} cannot be read as {role}") from error
    if shown and not admitted:
        raise _failed(f"view {view.schema}.{view.name} shows rows that the hospital's policies refuse", "cloud")
    if admitted and not shown and table.alone:
        raise _failed(f"view {view.schema}.{view.name} shows none of the rows that the policies admit", "cloud")


def _write(cloud: Connection, view: _View, role: str, table: _Table) -> None:
    """Write one row back as it is, if there is one, found by its key without the key leaving the servers."""
    if not table.key or not set(table.key) <= set(view.columns):
        return
    column = next((name for name in view.columns if name not in table.key), table.key[0])
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
        raise _as_failed(error, "cloud", f"view {view.schema}.{view.name} cannot be written as {role}") from error


def _as_failed(error: BaseException, side: Side, what: str) -> Exception:
    ours = from_database(error, side=side)
    return ours if isinstance(ours, (Unreachable, LockHeld)) else _failed(f"{what} ({ours.message})", side)
