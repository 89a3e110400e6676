"""What the database holds, read in bulk: a few queries, however many tables there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection


@dataclass(frozen=True)
class ColumnFacts:
    """A column as the server spells it."""

    name: str
    type: str
    not_null: bool
    default: str | None
    """Of a table or view; a generated column's expression."""
    numbered: bool
    """An identity or serial column, or of a foreign table one that the hospital numbers."""
    statistics_target: int
    """-1 is the server's default."""
    generated: str
    """pg_attribute.attgenerated: ``s`` is STORED, ``v`` VIRTUAL; empty is neither."""
    remote_name: str | None
    """Of a foreign table, where it says it."""

    def __str__(self) -> str:
        return self.type + (" NOT NULL" if self.not_null else "")


@dataclass(frozen=True)
class PolicyFacts:
    """A policy as the server spells it."""

    name: str
    command: str
    roles: frozenset[str]
    using: str | None
    with_check: str | None
    permissive: bool = True


@dataclass(frozen=True)
class SequenceFacts:
    """The sequence of a serial column."""

    schema: str
    name: str
    grants: dict[str, frozenset[str]]
    """As a relation's."""


@dataclass
class Relation:
    """A table, foreign table or view."""

    schema: str
    name: str
    kind: str
    """pg_class.relkind."""
    owner: str
    owned: bool
    """Whether the current role owns it."""
    row_security: bool
    options: frozenset[str]
    comment: str | None
    definition: str | None
    """A view's body."""
    grants: dict[str, frozenset[str]]
    """Privileges by role, the owner's left out; ``public`` is everyone."""
    column_grants: dict[str, frozenset[str]]
    """Privileges on single columns by role, as ``SELECT``: REVOKE of the table's takes them away too."""
    triggers: frozenset[str]
    """Those that fire."""
    row_triggers: frozenset[str]
    """Of these, those before the update of each row."""
    disabled_triggers: frozenset[str]
    server: str | None
    """Of a foreign table."""
    server_options: dict[str, str]
    """What a foreign table says to its server: which table it is, ``fetch_size``, …"""
    columns: dict[str, ColumnFacts] = field(default_factory=dict)
    policies: dict[str, PolicyFacts] = field(default_factory=dict)
    sequences: dict[str, SequenceFacts] = field(default_factory=dict)
    """By serial column."""


_RELATIONS = sa.text(
    """
    SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), c.relowner = current_user::regrole,
        c.relrowsecurity, coalesce(c.reloptions, '{}'), obj_description(c.oid, 'pg_class'),
        CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
        ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'),
        ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype::int & 19 = 19),
        ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled = 'D'),
        ARRAY(SELECT ARRAY[CASE acl.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(acl.grantee) END,
                acl.privilege_type]::text[]
            FROM aclexplode(c.relacl) AS acl WHERE acl.grantee <> c.relowner),
        ARRAY(SELECT DISTINCT ARRAY[CASE acl.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(acl.grantee) END,
                acl.privilege_type]::text[]
            FROM pg_catalog.pg_attribute AS a, aclexplode(a.attacl) AS acl
            WHERE a.attrelid = c.oid AND acl.grantee <> c.relowner),
        (SELECT s.srvname FROM pg_catalog.pg_foreign_table AS f
            JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
        ARRAY(SELECT ARRAY[o.option_name, o.option_value]
            FROM pg_catalog.pg_foreign_table AS f, pg_options_to_table(f.ftoptions) AS o WHERE f.ftrelid = c.oid)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (:schemas) AND c.relname = ANY (:names) AND c.relkind IN ('r', 'p', 'f', 'v')
    """
)

_COLUMNS = sa.text(
    """
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid),
        a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false)
            OR a.attgenerated = 's'
                AND pg_get_expr(d.adbin, d.adrelid) = 'NULL::' || format_type(a.atttypid, a.atttypmod),
        coalesce(a.attstattarget, -1), a.attgenerated,
        (SELECT o.option_value FROM pg_options_to_table(a.attfdwoptions) AS o WHERE o.option_name = 'column_name')
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE n.nspname = ANY (:schemas) AND c.relname = ANY (:names) AND c.relkind IN ('r', 'p', 'f', 'v')
        AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum
    """
)

_SEQUENCES = sa.text(
    """
    SELECT n.nspname, c.relname, a.attname, o.nspname, s.relname,
        ARRAY(SELECT ARRAY[CASE acl.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(acl.grantee) END,
                acl.privilege_type]::text[]
            FROM aclexplode(s.relacl) AS acl WHERE acl.grantee <> s.relowner)
    FROM pg_catalog.pg_depend AS p
    JOIN pg_catalog.pg_class AS s ON s.oid = p.refobjid AND s.relkind = 'S'
    JOIN pg_catalog.pg_namespace AS o ON o.oid = s.relnamespace
    JOIN pg_catalog.pg_attrdef AS d ON d.oid = p.objid
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    JOIN pg_catalog.pg_class AS c ON c.oid = d.adrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE p.classid = 'pg_attrdef'::regclass AND p.refclassid = 'pg_class'::regclass
        AND n.nspname = ANY (:schemas) AND c.relname = ANY (:names)
    """
)

_POLICIES = sa.text(
    """
    SELECT n.nspname, c.relname, p.polname,
        CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
            ELSE 'ALL' END,
        ARRAY(SELECT CASE role WHEN 0 THEN 'public' ELSE pg_get_userbyid(role)::text END
            FROM unnest(p.polroles) AS role),
        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid), p.polpermissive
    FROM pg_catalog.pg_policy AS p
    JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (:schemas) AND c.relname = ANY (:names)
    """
)


def read_relations(
    connection: Connection, schemas: Iterable[str], names: Iterable[str]
) -> dict[tuple[str, str], Relation]:
    """The relations of these schemas and names, by (schema, name), with all that belongs to them."""
    chosen = {"schemas": list(schemas), "names": list(names)}
    found: dict[tuple[str, str], Relation] = {}
    for (
        schema,
        name,
        kind,
        owner,
        owned,
        row_security,
        options,
        comment,
        body,
        triggers,
        row_triggers,
        disabled,
        acl,
        column_acl,
        server,
        server_options,
    ) in connection.execute(_RELATIONS, chosen):
        found[schema, name] = Relation(
            schema,
            name,
            kind,
            owner,
            owned,
            row_security,
            frozenset(options),
            comment,
            body,
            _by_grantee(acl),
            _by_grantee(column_acl),
            frozenset(triggers),
            frozenset(row_triggers),
            frozenset(disabled),
            server,
            dict(server_options),
        )
    for schema, name, column, *facts in connection.execute(_COLUMNS, chosen):
        found[schema, name].columns[column] = ColumnFacts(column, *facts)
    for schema, name, policy, command, roles, using, with_check, permissive in connection.execute(_POLICIES, chosen):
        facts_of_policy = PolicyFacts(policy, command, frozenset(roles), using, with_check, permissive)
        found[schema, name].policies[policy] = facts_of_policy
    for schema, name, column, of, sequence, acl in connection.execute(_SEQUENCES, chosen):
        found[schema, name].sequences[column] = SequenceFacts(of, sequence, _by_grantee(acl))
    return found


def _by_grantee(acl: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    grants: dict[str, set[str]] = defaultdict(set)
    for grantee, privilege in acl:
        grants[grantee].add(privilege)
    return {grantee: frozenset(privileges) for grantee, privileges in grants.items()}


@dataclass(frozen=True)
class Server:
    """A foreign server: its options, and the link role of each mapping (None where it may not be read)."""

    options: dict[str, str]
    mappings: dict[str, str | None]


_SERVER = sa.text(
    """
    SELECT ARRAY(SELECT ARRAY[o.option_name, o.option_value] FROM pg_options_to_table(s.srvoptions) AS o),
        ARRAY(SELECT ARRAY[m.usename::text, (SELECT o.option_value FROM pg_options_to_table(m.umoptions) AS o
            WHERE o.option_name = 'user')] FROM pg_catalog.pg_user_mappings AS m WHERE m.srvid = s.oid)
    FROM pg_catalog.pg_foreign_server AS s WHERE s.srvname = :name
    """
)


def read_server(connection: Connection, name: str) -> Server | None:
    """The foreign server ``name``, without any secret; None when there is none."""
    row = connection.execute(_SERVER, {"name": name}).one_or_none()
    return None if row is None else Server(dict(row[0]), dict(row[1]))


Types: TypeAlias = dict[tuple[str | None, str], tuple[str, ...]]
"""The labels of enums in their order, none of domains, by schema and name; those on the search path without, too."""

_TYPES = sa.text(
    """
    SELECT n.nspname, t.typname, pg_type_is_visible(t.oid),
        ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
    FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd')
    """
)


def read_types(connection: Connection) -> Types:
    """The enums and domains of this database."""
    found: Types = {}
    for schema, name, visible, labels in connection.execute(_TYPES):
        for key in [(schema, name), (None, name)] if visible else [(schema, name)]:
            found[key] = tuple(labels)
    return found
