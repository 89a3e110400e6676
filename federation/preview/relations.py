"""What is in a database before a step, as far as locks go: its relations, indexes' tables, foreign keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation.operations.locking import LOCKABLE
from federation.preview.tokens import Name

Relation: TypeAlias = tuple[str, str]
"""Schema and name."""


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key: dropping it locks both tables, and so does dropping a column or table that it needs."""

    name: str
    table: Relation
    columns: tuple[str, ...]
    referenced: Relation


@dataclass
class Relations:
    """What is in a database, kept up while its steps are read: a name's schema, an index's table, foreign keys."""

    search_path: tuple[str, ...] = ("public",)
    existing: set[Relation] = field(default_factory=set)
    table_of_index: dict[Relation, Relation] = field(default_factory=dict)
    foreign_keys: set[ForeignKey] = field(default_factory=set)
    inheriting: set[Relation] = field(default_factory=set)
    """Partitions, partitioned tables, parents and children: what is locked is locked in others, too."""
    foreign: set[Relation] = field(default_factory=set)
    """Foreign tables."""
    views: dict[Relation, set[Relation]] = field(default_factory=dict)
    """By foreign table, the owner's views that read it and nothing but foreign tables."""
    tables: set[Relation] = field(default_factory=set)
    """The owner's tables, which LOCK TABLE can name."""
    rows: dict[Relation, int] = field(default_factory=dict)
    """About how many rows a table has, where it has been analyzed."""
    types: dict[tuple[Relation, str], str] = field(default_factory=dict)
    """A table's columns' types, as format_type() spells them."""
    volatile: set[str] = field(default_factory=set)
    """Names of functions that give another value for each row."""
    originals: dict[tuple[Relation, str | None], tuple[Relation, str | None]] = field(default_factory=dict)
    """What tables and columns that a step renames are called in the database."""
    server_version: int = 180000
    """As ``server_version_num`` has it."""

    @classmethod
    def read(cls, connection: Connection) -> Relations:
        """From the catalogs: no lock is taken on any relation that they describe."""
        path = tuple(connection.scalars(sa.text("SELECT unnest(current_schemas(false))")))
        found = connection.execute(_EXISTING).all()
        existing = {(schema, name) for schema, name, *_ in found}
        tables = {(schema, name) for schema, name, is_own, _ in found if is_own}
        rows = {(schema, name): int(count) for schema, name, is_own, count in found if is_own and count >= 0}
        types = {((schema, table), column): type_ for schema, table, column, type_ in connection.execute(_TYPES)}
        volatile = set(connection.scalars(_VOLATILE))
        of_index = {(schema, name): (schema, table) for schema, name, table in connection.execute(_INDEXES)}
        keys = {
            ForeignKey(name, (schema, table), tuple(columns), (other_schema, other))
            for name, schema, table, columns, other_schema, other in connection.execute(_FOREIGN_KEYS)
        }
        inheriting = {(schema, name) for schema, name in connection.execute(_INHERITING)}
        foreign = {(schema, name) for schema, name in connection.execute(_FOREIGN)}
        views: dict[Relation, set[Relation]] = {}
        for schema, name, view_schema, view in connection.execute(_VIEWS):
            views.setdefault((schema, name), set()).add((view_schema, view))
        version = int(connection.scalar(sa.text("SHOW server_version_num")))
        connection.rollback()
        return cls(
            path or ("public",),
            existing,
            of_index,
            keys,
            inheriting,
            foreign,
            views,
            tables,
            rows,
            types,
            volatile,
            server_version=version,
        )

    def resolve(self, name: Name) -> Relation:
        """The relation that a name means: the first of the search path, or what will be made in its first schema."""
        schema, relation = name
        if schema is not None:
            return schema, relation
        found = (
            path
            for path in ("pg_temp", *self.search_path)
            if (path, relation) in self.existing | set(self.table_of_index)
        )
        return next(found, self.search_path[0]), relation

    def define_view(self, view: Relation, read: set[Relation]) -> None:
        """Note what a view reads."""
        for readers in self.views.values():
            readers.discard(view)
        if read and read <= self.foreign:
            for table in read:
                self.views.setdefault(table, set()).add(view)

    def forget(self, gone: set[Relation]) -> None:
        """Drop relations."""
        self.existing -= gone
        self.tables -= gone
        self.foreign -= gone
        self.views = {table: readers - gone for table, readers in self.views.items() if table not in gone}
        self.foreign_keys = {key for key in self.foreign_keys if key.table not in gone}
        self.table_of_index = {i: t for i, t in self.table_of_index.items() if t not in gone and i not in gone}


_USERS = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg\\_temp\\_%'"

_EXISTING = sa.text(
    f"""
    SELECT n.nspname, c.relname, c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE'), c.reltuples
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_USERS}
    """  # noqa: S608
)
_INDEXES = sa.text(
    f"""
    SELECT n.nspname, c.relname, t.relname FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE {_USERS}
    """  # noqa: S608
)
_FOREIGN_KEYS = sa.text(
    """
    SELECT k.conname, n.nspname, c.relname,
        (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
        fn.nspname, f.relname
    FROM pg_catalog.pg_constraint AS k
    JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class AS f ON f.oid = k.confrelid JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace
    WHERE k.contype = 'f'
    """
)
_INHERITING = sa.text(
    """
    SELECT DISTINCT n.nspname, c.relname FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid IN (i.inhrelid, i.inhparent) AND c.relkind IN ('r', 'p', 'f')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    """
)
_FOREIGN = sa.text(
    """
    SELECT n.nspname, c.relname FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'f'
    """
)
_VIEWS = sa.text(
    f"""
    SELECT n.nspname, f.relname, x.nspname, x.relname
    FROM (SELECT DISTINCT l.refobjid, vn.nspname, v.relname FROM pg_catalog.pg_class AS v
        JOIN pg_catalog.pg_namespace AS vn ON vn.oid = v.relnamespace {LOCKABLE}) AS x
    JOIN pg_catalog.pg_class AS f ON f.oid = x.refobjid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = f.relnamespace
    """  # noqa: S608
)
_TYPES = sa.text(
    f"""
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND {_USERS}
    """  # noqa: S608
)
_VOLATILE = sa.text("SELECT DISTINCT proname FROM pg_catalog.pg_proc WHERE provolatile = 'v' AND prokind = 'f'")
