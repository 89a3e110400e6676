"""Random tables, such as a hospital may have, and random changes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

ODD_LABEL = "it's 50% \"off\" :x \\ ü"


@dataclass(frozen=True)
class Kind:
    """A type, a value and defaults as SQL, and the kinds that its values are cast to by assignment."""

    type_: Callable[[], TypeEngine[Any]]
    value: str
    defaults: tuple[str, ...]
    becomes: tuple[str, ...] = ()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


KINDS: Mapping[str, Kind] = {
    "uuid": Kind(sa.Uuid, "'00000000-0000-0000-0000-00000000000a'", ("gen_random_uuid()",)),
    "text": Kind(sa.Text, "'some text'", ("'pending'", "lower('A')"), ("varchar(20)",)),
    "varchar(7)": Kind(lambda: sa.String(7), "'seven'", ("'pending'",), ("varchar(20)", "text")),
    "varchar(20)": Kind(lambda: sa.String(20), "'twenty'", ("'pending'",), ("text",)),
    "integer": Kind(sa.Integer, "7", ("0", "-1", "(1 + 2)"), ("bigint", "numeric(9,2)", "numeric")),
    "bigint": Kind(sa.BigInteger, "7000000000", ("0",), ("numeric",)),
    "smallint": Kind(sa.SmallInteger, "7", ("1",), ("integer", "bigint")),
    "numeric(9,2)": Kind(lambda: sa.Numeric(9, 2), "12.50", ("0.00", "1.5"), ("numeric(12,4)", "numeric")),
    "numeric(12,4)": Kind(lambda: sa.Numeric(12, 4), "12.5000", ("0",), ("numeric",)),
    "numeric": Kind(sa.Numeric, "1e-3", ("0",)),
    "double": Kind(sa.Double, "0.25", ("0.5",)),
    "boolean": Kind(sa.Boolean, "true", ("false",)),
    "date": Kind(sa.Date, "'2024-02-29'", ("CURRENT_DATE", "'2024-01-01'"), ("timestamptz",)),
    "timestamptz": Kind(
        lambda: sa.DateTime(timezone=True), "'2024-02-29 12:00+00'", ("now()", "timezone('utc', now())"), ("date",)
    ),
    "jsonb": Kind(postgresql.JSONB, """'{"a": ["b"]}'""", ("'[]'::jsonb", """'{"a": [1, null]}'::jsonb""")),
    "bytea": Kind(postgresql.BYTEA, r"'\x00ff'", (r"'\x00'::bytea",)),
    "text[]": Kind(lambda: postgresql.ARRAY(sa.Text), "ARRAY['a', NULL]", ("'{}'::text[]", "ARRAY['a,b', '''']")),
    "integer[]": Kind(lambda: postgresql.ARRAY(sa.Integer), "'{1,2}'", ("'{}'",), ("bigint[]",)),
    "bigint[]": Kind(lambda: postgresql.ARRAY(sa.BigInteger), "'{1,2}'", ("'{}'",)),
    "enum": Kind(
        lambda: postgresql.ENUM("pending", "done", name="queue_status", create_type=False), "'done'", ("'pending'",)
    ),
    "odd enum": Kind(
        lambda: postgresql.ENUM("a", ODD_LABEL, name='Odd "enum"', create_type=False),
        _quoted(ODD_LABEL),
        (_quoted("a"),),
    ),
    "enum[]": Kind(
        lambda: postgresql.ARRAY(postgresql.ENUM("pending", "done", name="queue_status", create_type=False)),
        "'{done}'",
        ("'{}'",),
    ),
    "domain": Kind(
        lambda: postgresql.DOMAIN("age", sa.Integer, check=sa.text("VALUE >= 0"), create_type=False), "7", ("0",)
    ),
    "odd domain": Kind(
        lambda: postgresql.DOMAIN(
            "Token Number",
            sa.String(12),
            check=sa.text("VALUE ~ '^[A-Z%]'"),
            constraint_name="starts with %",
            create_type=False,
        ),
        "'A-1'",
        ("'A'",),
    ),
}

IDENTITY = ("integer", "bigint", "smallint")
STRINGS = ("text", "varchar(20)")
VOLATILE = ("gen_random_uuid()", "now()", "timezone('utc', now())", "CURRENT_DATE")


@dataclass(frozen=True)
class ColumnSpec:
    name: str
    kind: str
    nullable: bool = True
    default: str | None = None
    """SQL."""
    comment: str | None = None
    generated: str | None = None
    """SQL; of a generated column."""
    identity: bool = False
    references: str | None = None
    """The table whose key it refers to."""
    indexed: bool = False


@dataclass(frozen=True)
class TableSpec:
    name: str
    key: str
    """The name of the primary key's column, a uuid."""
    key_default: str | None
    columns: tuple[ColumnSpec, ...]
    comment: str | None = None
    partitioned: bool = False

    def but(self, old: ColumnSpec, new: ColumnSpec | None) -> TableSpec:
        """With ``old`` replaced, or left out."""
        columns = (new if column is old else column for column in self.columns)
        return replace(self, columns=tuple(column for column in columns if column is not None))


@dataclass(frozen=True)
class Settings:
    """What federation.toml says beside the tables."""

    view_grants: Mapping[str, tuple[str, ...]]
    link_grants: Mapping[str, tuple[str, ...]]
    own_rows: str
    comments: Mapping[str, str] | None


@dataclass(frozen=True)
class Declaration:
    """One state of the declared tables and of federation.toml."""

    tables: tuple[TableSpec, ...]
    settings: Settings

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(table.name for table in self.tables)

    def but(self, old: TableSpec, new: TableSpec) -> Declaration:
        return replace(self, tables=tuple(new if table is old else table for table in self.tables))

    def metadata(self) -> sa.MetaData:
        metadata = sa.MetaData()
        for table in self.tables:
            _table(self, table, metadata)
        return metadata


@dataclass(frozen=True)
class History:
    """What is declared first, and what after a change."""

    before: Declaration
    after: Declaration
    changes: tuple[str, ...] = field(default=(), compare=False)


def _table(declaration: Declaration, table: TableSpec, metadata: sa.MetaData) -> None:
    keys = {other.name: other.key for other in declaration.tables}
    default = None if table.key_default is None else _text(table.key_default)
    items: list[Any] = [sa.Column(table.key, sa.Uuid, primary_key=True, server_default=default)]
    for column in table.columns:
        more: list[Any] = []
        if column.generated is not None:
            more.append(sa.Computed(_text(column.generated), persisted=True))
        if column.identity:
            more.append(sa.Identity(always=False))
        items.append(
            sa.Column(
                column.name,
                KINDS[column.kind].type_(),
                *more,
                nullable=column.nullable,
                comment=column.comment,
                server_default=None if column.default is None else _text(column.default),
            )
        )
        if column.references is not None:
            name = _short("fk", table, column)
            to = sa.column(keys[column.references])
            items.append((column.name, name, column.references, to.name))
    plain = [item for item in items if not isinstance(item, tuple)]
    made = sa.Table(
        table.name,
        metadata,
        *plain,
        comment=table.comment,
        postgresql_partition_by=f"HASH ({_identifier(table.key)})" if table.partitioned else None,
    )
    for item in items:
        if isinstance(item, tuple):
            column_name, name, referred, key = item
            target = made if referred == table.name else metadata.tables[referred]
            made.append_constraint(sa.ForeignKeyConstraint([made.c[column_name]], [target.c[key]], name=name))
    for column in table.columns:
        if column.indexed:
            sa.Index(_short("ix", table, column), made.c[column.name])


def _text(expression: str) -> sa.TextClause:
    r"""As SQLAlchemy wants it written: a bare :x would be a bind parameter."""
    return sa.text(expression.replace(":", r"\:").replace(r"\:\:", "::"))


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _short(prefix: str, table: TableSpec, column: ColumnSpec) -> str:
    return f"{prefix} {table.name} {column.name}"


RESERVED = ("order", "user", "select", "Table", "group", "limit", "offset", "end", "all")
_ODD = "aZ_1 '\"%:.$(){}üß日-\\/,;"

names = st.one_of(
    st.sampled_from(RESERVED),
    st.text("abcxyz_", min_size=1, max_size=8),
    st.text(_ODD, min_size=1, max_size=8),
).filter(lambda name: not name.lower().startswith("pg_"))

texts = st.text("aZ '\"%:x\\${}ü日\n\t-;", min_size=1, max_size=12)
comments = st.none() | texts


@st.composite
def column(draw: st.DrawFn, taken: frozenset[str], key: str, referable: tuple[str, ...], *, added: bool) -> ColumnSpec:
    """A column of a table whose key is ``key``. ``added``: to a table that is there."""
    name = draw(names.filter(lambda name: name not in taken))
    kind = draw(st.sampled_from(sorted(KINDS)))
    comment, indexed = draw(comments), draw(st.booleans())
    flavour = draw(st.sampled_from(("plain", "plain", "plain", "generated", "identity", "reference")))
    if flavour == "generated":
        value = draw(st.sampled_from(("text", "varchar(20)")))
        expression = f"left(({_identifier(key)})::text || {_quoted(draw(texts))}, 20)"
        return ColumnSpec(name, value, draw(st.booleans()), None, comment, expression, indexed=indexed)
    if flavour == "identity":
        return ColumnSpec(name, draw(st.sampled_from(IDENTITY)), False, None, comment, identity=True)
    if flavour == "reference" and referable:
        to = draw(st.sampled_from(referable))
        return ColumnSpec(name, "uuid", draw(st.booleans()), None, comment, references=to, indexed=indexed)
    return ColumnSpec(name, kind, draw(st.booleans()), draw(defaults(kind)), comment, indexed=indexed)


def defaults(kind: str) -> st.SearchStrategy[str | None]:
    known = st.none() | st.sampled_from(KINDS[kind].defaults)
    return known | texts.map(_quoted) if kind in STRINGS else known


@st.composite
def table(draw: st.DrawFn, others: tuple[TableSpec, ...]) -> TableSpec:
    taken = {other.name for other in others}
    name = draw(names.filter(lambda name: name not in taken))
    key = draw(st.sampled_from(("id", "id", "Id %", 'the "key"')))
    referable = tuple(other.name for other in others)
    made = TableSpec(
        name,
        key,
        draw(st.sampled_from((None, "gen_random_uuid()"))),
        (),
        draw(comments),
        draw(st.sampled_from((False, False, False, True))),
    )
    for _ in range(draw(st.integers(0, 5))):
        taken_here = frozenset({key, *(column.name for column in made.columns)})
        found = draw(column(taken_here, key, (*referable, name), added=False))
        made = replace(made, columns=(*made.columns, found))
    return made


@st.composite
def settings(draw: st.DrawFn, tables: tuple[str, ...]) -> Settings:
    every = ("SELECT", "INSERT", "UPDATE", "DELETE")
    view = draw(st.sampled_from((every, ("SELECT", "INSERT"))))
    link = draw(st.sampled_from((every, ("SELECT", "INSERT"))))
    commented = draw(st.none() | st.dictionaries(st.sampled_from(tables), texts, max_size=2))
    own_rows = draw(st.sampled_from(("(SELECT auth.uid()) IS NOT NULL", "(SELECT auth.uid() AS \"it's %\") IS NOT NULL")))
    return Settings(
        {"authenticated": view, "service_role": every},
        {"@link": link, "@service": every},
        own_rows,
        commented,
    )


@st.composite
def declaration(draw: st.DrawFn) -> Declaration:
    tables: tuple[TableSpec, ...] = ()
    for _ in range(draw(st.integers(1, 3))):
        tables = (*tables, draw(table(tables)))
    return Declaration(tables, draw(settings(tuple(table.name for table in tables))))


@st.composite
def change(draw: st.DrawFn, there: Declaration) -> tuple[str, Declaration]:
    """One change, by name. Some turn out to change nothing."""
    of = draw(st.sampled_from(there.tables))
    column_of = draw(st.sampled_from(of.columns)) if of.columns else None
    kinds = ["add column", "add table", "comment table", "settings"]
    if column_of is not None:
        kinds += ["drop column", "drop column", "comment", "rename", "index"]
        if column_of.generated is None and not column_of.identity:
            kinds += ["nullability", "retype"]
            if column_of.references is None:
                kinds += ["default"]
    kind = draw(st.sampled_from(kinds))
    if kind == "add table":
        added = draw(table(there.tables))
        return kind, replace(there, tables=(*there.tables, added))
    if kind == "settings":
        return kind, replace(there, settings=draw(settings(there.names)))
    if kind == "comment table":
        return kind, there.but(of, replace(of, comment=draw(comments)))
    if kind == "add column":
        taken = frozenset({of.key, *(column.name for column in of.columns)})
        earlier = there.names[: there.names.index(of.name) + 1]
        added_column = draw(column(taken, of.key, earlier, added=True))
        return kind, there.but(of, replace(of, columns=(*of.columns, added_column)))
    assert column_of is not None
    return kind, there.but(of, of.but(column_of, _changed(draw, kind, of, column_of)))


def _changed(draw: st.DrawFn, kind: str, of: TableSpec, was: ColumnSpec) -> ColumnSpec | None:
    if kind == "drop column":
        return None
    if kind == "comment":
        return replace(was, comment=draw(comments))
    if kind == "index":
        return replace(was, indexed=not was.indexed)
    if kind == "nullability":
        return replace(was, nullable=not was.nullable)
    if kind == "default":
        return replace(was, default=draw(defaults(was.kind)))
    if kind == "rename":
        taken = {of.key, *(column.name for column in of.columns)}
        return replace(was, name=draw(names.filter(lambda name: name not in taken)))
    becomes = KINDS[was.kind].becomes
    return replace(was, kind=draw(st.sampled_from(becomes))) if becomes and was.default is None else was


@st.composite
def histories(draw: st.DrawFn) -> History:
    before = draw(declaration())
    after, made = before, []
    for _ in range(draw(st.integers(1, 3))):
        kind, after = draw(change(after))
        made.append(kind)
    return History(before, after, tuple(made))
