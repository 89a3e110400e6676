"""What the hospital's own policies admit, evaluated there by the tables' owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import DATABASE_ERRORS, ddl
from federation.verification.failure import as_failed, failed


@dataclass(frozen=True)
class Table:
    """The hospital's table: its key, and the rows that its policies admit, in SQL."""

    key: tuple[str, ...]
    admits: str
    certain: bool
    """The owner finds the same rows with it as the link role."""


Tables: TypeAlias = dict[tuple[str, str], Table]
"""By schema and name."""


# The role that the hospital takes for an account (federation.take), whose policies decide.
_ROLE = sa.text(
    """
    SELECT r.rolname FROM federation.account AS a JOIN pg_roles AS r ON r.rolname = a.claims ->> 'role'
    WHERE a.sub = :sub AND has_function_privilege(r.oid, 'federation.take(uuid, text)', 'EXECUTE')
    """
)
# A policy that reads another table under row-level security, calls the app's functions or uses current_user gives the
# owner another answer. It is skipped.
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


def role_of(config: Config, local: Connection, sub: UUID) -> str:
    """The role whose policies decide for ``sub``."""
    taken = None
    if local.exec_driver_sql("SELECT to_regclass('federation.account') IS NOT NULL").scalar_one():
        taken = local.execute(_ROLE, {"sub": sub}).scalar_one_or_none()
    return taken or config.link.user


def tables_of(local: Connection, role: str, names: list[tuple[str, str]]) -> Tables:
    """The tables and what the policies for ``role`` admit; raises VerificationFailed for a view read as its owner."""
    parameters = {
        "role": role,
        "schemas": [schema for schema, _ in names],
        "tables": [table for _, table in names],
    }
    tables = {}
    for schema, name, key, admits, as_owner, certain in local.execute(_TABLES, parameters):
        if as_owner:
            raise failed(f"view {schema}.{name} is not security_invoker: its tables are read as its owner", "local")
        tables[schema, name] = Table(tuple(key), admits, certain)
    return tables


def admitted(local: Connection, sub: UUID, tables: Tables) -> dict[tuple[str, str], bool]:
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
        raise as_failed(error, "local", "the tables' policies cannot be evaluated") from error
    return dict(zip(tables, row, strict=True))
