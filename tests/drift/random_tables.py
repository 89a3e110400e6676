"""Random tables, such as a hospital may have, and random changes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

ODD_LABEL = 'it\'s 50% "off" :x \\ ü'


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
    "varchar(20)": Kind(lambda: sa.String(20), "'twenty'", ("'pending'",), ("text", "varchar")),
    "varchar": Kind(sa.String, "'any'", ("'pending'",), ("text",)),
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
    "timestamptz(3)": Kind(
        lambda: postgresql.TIMESTAMP(timezone=True, precision=3), "'2024-02-29 12:00+00'", ("now()",), ("timestamptz",)
    ),
    "jsonb": Kind(postgresql.JSONB, """'{"a": ["b"]}'""", ("'[]'::jsonb", """'{"a": [1, null]}'::jsonb""")),
    "bytea": Kind(postgresql.BYTEA, r"'\x00ff'", (r"'\x00'::bytea",)),
    "text[]": Kind(lambda: postgresql.ARRAY(sa.Text), "ARRAY['a', NULL]", ("'{}'::text[]", "ARRAY['a,b', '''']")),
    "integer[]": Kind(lambda: postgresql.ARRAY(sa.Integer), "'{1,2}'", ("'{}'",), ("bigint[]",)),
    "bigint[]": Kind(lambda: postgresql.ARRAY(sa.BigInteger), "'{1,2}'", ("'{}'",)),
    "enum": Kind(
        lambda: postgresql.ENUM("pending", "done", name="queue_status", create_type=False), "'done'", ("'pending'",)
    ),
    "generic enum": Kind(lambda: sa.Enum("low", "high", name="level"), "'low'", ("'high'",)),
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
KEYS: Mapping[str, tuple[str, Callable[[], tuple[Any, ...]]]] = {
    "uuid": ("uuid", lambda: (sa.Uuid,)),
    "identity": ("bigint", lambda: (sa.BigInteger, sa.Identity(always=True))),
    "serial": ("integer", lambda: (sa.Integer,)),
}
"""Kinds of primary keys: the kind of a column that refers to it, and what its own is declared with."""
STRINGS = ("text", "varchar(20)")
VOLATILE = ("gen_random_uuid()", "now()", "timezone('utc', now())", "CURRENT_DATE")


@dataclass(frozen=True)
class ColumnSpec:
    name: str
    kind: str
    nullable: bool = True
    default: str | None = None
    """SQL; a string of its own where ``quoted``."""
    quoted: bool = False
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
    """The name of the primary key's column."""
    key_default: str | None
    columns: tuple[ColumnSpec, ...]
    comment: str | None = None
    partitioned: bool = False
    key_kind: str = "uuid"

    @property
    def numbered(self) -> bool:
        """Whether the hospital makes the key."""
        return self.key_kind != "uuid"

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

    @property
    def writable(self) -> tuple[TableSpec, ...]:
        """Tables into which a row can go: partitioned ones have no partition, and others may refer to them.

        Nor can a row refer to itself by a number that it does not have yet.
        """
        found: dict[str, TableSpec] = {}
        for table in self.tables:
            referred = {column.references for column in table.columns} - {None, table.name}
            itself = any(column.references == table.name and not column.nullable for column in table.columns)
            if not table.partitioned and referred <= set(found) and not (itself and table.numbered):
                found[table.name] = table
        return tuple(found.values())

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
    _, declared = KEYS[table.key_kind]
    items: list[Any] = [sa.Column(table.key, *declared(), primary_key=True, server_default=default)]
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
                server_default=_default(column),
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


def _default(column: ColumnSpec) -> sa.TextClause | str | None:
    return column.default if column.quoted or column.default is None else _text(column.default)


def _text(expression: str) -> sa.TextClause:
    r"""As SQLAlchemy wants it written: a bare :x would be a bind parameter."""
    return sa.text(expression.replace(":", r"\:"))


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

# Alembic writes a foreign key as "table.column" and a table's comment with the name between bare quotes; SQLAlchemy
# reads a foreign key back by its commas and parentheses.
table_names = names.filter(lambda name: not set(name) & set(".,()'\\"))
referring_names = names.filter(lambda name: not set(name) & set(".,()"))

texts = st.text("aZ '\"%:x\\${}ü日\n\t-;", min_size=1, max_size=12)
comments = st.none() | texts


@st.composite
def column(
    draw: st.DrawFn, taken: frozenset[str], key: str, referable: tuple[tuple[str, str], ...], *, added: bool
) -> ColumnSpec:
    """A column of a table whose key is ``key``; it may refer to tables of these names and kinds of keys.

    ``added``: to a table that is there.
    """
    name = draw(names.filter(lambda name: name not in taken))
    kind = draw(st.sampled_from(sorted(KINDS)))
    comment, indexed = draw(comments), draw(st.booleans())
    flavour = draw(st.sampled_from(("plain", "plain", "plain", "generated", "identity", "reference")))
    if flavour == "generated":
        value = draw(st.sampled_from(("text", "varchar(20)")))
        expression = f"left(({_identifier(key)})::text || {_quoted(draw(texts))}, 20)"
        return ColumnSpec(name, value, draw(st.booleans()), comment=comment, generated=expression, indexed=indexed)
    if flavour == "identity":
        return ColumnSpec(name, draw(st.sampled_from(IDENTITY)), nullable=False, comment=comment, identity=True)
    if flavour == "reference" and referable:
        to, of = draw(st.sampled_from(referable))
        name = draw(referring_names.filter(lambda name: name not in taken))
        return ColumnSpec(name, KEYS[of][0], draw(st.booleans()), comment=comment, references=to, indexed=indexed)
    default, quoted = draw(defaults(kind))
    return ColumnSpec(name, kind, draw(st.booleans()), default, quoted, comment, indexed=indexed)


def defaults(kind: str) -> st.SearchStrategy[tuple[str | None, bool]]:
    """Defaults, and whether each is a string of its own."""
    known = st.tuples(st.none() | st.sampled_from(KINDS[kind].defaults), st.just(False))
    if kind not in STRINGS:
        return known
    return known | st.tuples(texts.map(_quoted), st.just(False)) | st.tuples(texts, st.just(True))


@st.composite
def table(draw: st.DrawFn, others: tuple[TableSpec, ...]) -> TableSpec:
    taken = {other.name for other in others}
    name = draw(table_names.filter(lambda name: name not in taken))
    partitioned = draw(st.sampled_from((False, False, False, True)))
    key = draw(st.sampled_from(("id", "Id", 'the "key"') if partitioned else ("id", "Id %", 'the "key"')))
    key_kind = "uuid" if partitioned else draw(st.sampled_from(("uuid", *KEYS)))
    referable = tuple((other.name, other.key_kind) for other in others)
    made = TableSpec(
        name,
        key,
        draw(st.sampled_from((None, "gen_random_uuid()"))) if key_kind == "uuid" else None,
        (),
        draw(comments),
        partitioned,
        key_kind,
    )
    for _ in range(draw(st.integers(0, 5))):
        taken_here = frozenset({key, *(column.name for column in made.columns)})
        found = draw(column(taken_here, key, (*referable, (name, key_kind)), added=False))
        made = replace(made, columns=(*made.columns, found))
    return made


@st.composite
def settings(draw: st.DrawFn, tables: tuple[str, ...]) -> Settings:
    every = ("SELECT", "INSERT", "UPDATE", "DELETE")
    view = draw(st.sampled_from((every, ("SELECT", "INSERT"))))
    link = draw(st.sampled_from((every, ("SELECT", "INSERT"))))
    commented = draw(st.none() | st.dictionaries(st.sampled_from(tables), texts, max_size=2))
    own_rows = draw(
        st.sampled_from(("(SELECT auth.uid()) IS NOT NULL", '(SELECT auth.uid() AS "it\'s %") IS NOT NULL'))
    )
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
def change(draw: st.DrawFn, first: Declaration, there: Declaration) -> tuple[str, Declaration]:
    """One change, by name. Some turn out to change nothing."""
    of = draw(st.sampled_from(there.tables))
    column_of = draw(st.sampled_from(of.columns)) if of.columns else None
    kinds = ["add column", "add table", "comment table", "settings"]
    if column_of is not None:
        kinds += ["drop column", "drop column", "comment", "rename", "index"]
        if column_of.generated is None and not column_of.identity:
            kinds += ["nullability"]
            if column_of.references is None:
                kinds += ["retype", "default"]
    kind = draw(st.sampled_from(kinds))
    if kind == "add table":
        added = draw(table(there.tables))
        return kind, replace(there, tables=(*there.tables, added))
    if kind == "settings":
        return kind, replace(there, settings=draw(settings(there.names)))
    if kind == "comment table":
        return kind, there.but(of, replace(of, comment=draw(comments)))
    if kind == "add column":
        taken = _taken(first, of)
        earlier = tuple((table.name, table.key_kind) for table in there.tables[: there.tables.index(of) + 1])
        added_column = draw(column(taken, of.key, earlier, added=True))
        return kind, there.but(of, replace(of, columns=(*of.columns, added_column)))
    assert column_of is not None
    return kind, there.but(of, of.but(column_of, _changed(draw, kind, _taken(first, of), column_of)))


def _taken(first: Declaration, of: TableSpec) -> frozenset[str]:
    """Names that a new column may not have: one that went away, of another type, would be taken for the same."""
    tables = (of, *(table for table in first.tables if table.name == of.name))
    return frozenset({of.key, *(column.name for table in tables for column in table.columns)})


def _changed(draw: st.DrawFn, kind: str, taken: frozenset[str], was: ColumnSpec) -> ColumnSpec | None:
    if kind == "drop column":
        return None
    if kind == "comment":
        return replace(was, comment=draw(comments))
    if kind == "index":
        return replace(was, indexed=not was.indexed)
    if kind == "nullability":
        return replace(was, nullable=not was.nullable)
    if kind == "default":
        default, quoted = draw(defaults(was.kind))
        return replace(was, default=default, quoted=quoted)
    if kind == "rename":
        among = names if was.references is None else referring_names
        return replace(was, name=draw(among.filter(lambda name: name not in taken)))
    becomes = KINDS[was.kind].becomes
    return replace(was, kind=draw(st.sampled_from(becomes))) if becomes and was.default is None else was


@st.composite
def histories(draw: st.DrawFn) -> History:
    before = draw(declaration())
    after, made = before, []
    for _ in range(draw(st.integers(1, 3))):
        kind, after = draw(change(before, after))
        made.append(kind)
    return History(before, after, tuple(made))


_EVERY = ("SELECT", "INSERT", "UPDATE", "DELETE")
_FIRST = Settings(
    {"authenticated": ("SELECT", "INSERT"), "service_role": _EVERY},
    {"@link": _EVERY, "@service": _EVERY},
    "(SELECT auth.uid()) IS NOT NULL",
    None,
)
_ODD_TEXT = "it's 50% :x \\: \\:x ::x :x: \\"
_GENERATED = ColumnSpec("gone", "text", generated=f"left((id)::text || {_quoted(_ODD_TEXT)}, 20)")
_COLUMNS = (
    ColumnSpec("expression", "text", default=_quoted(_ODD_TEXT)),
    ColumnSpec("string", "text", default=_ODD_TEXT, quoted=True),
)
_BEFORE = Declaration((TableSpec("note", "id", None, (_GENERATED, *_COLUMNS)),), _FIRST)

_NUMBERED = (
    TableSpec("visit", "id", None, (), key_kind="identity"),
    TableSpec("bill", "no", None, (), key_kind="serial"),
)
NUMBERED_KEYS = History(
    _BEFORE,
    Declaration(
        (
            *_BEFORE.tables,
            *_NUMBERED,
            TableSpec(
                "line",
                "id",
                None,
                (ColumnSpec("visit", "bigint", references="visit"), ColumnSpec("bill", "integer", references="bill")),
            ),
        ),
        _FIRST,
    ),
)
"""Two tables whose keys are the hospital's numbers, and one that refers to both."""

# What failed once: a generated column that goes away, odd defaults, privileges that change with the columns, an enum
# that its table would make, types that lose their arguments.
ODD_EXPRESSIONS = History(_BEFORE, replace(_BEFORE, tables=(TableSpec("note", "id", None, _COLUMNS),)))
PRIVILEGES_AND_COLUMNS = History(
    _BEFORE,
    Declaration(
        (TableSpec("note", "id", None, (*_COLUMNS, ColumnSpec("new", "integer"))),),
        replace(_FIRST, view_grants={"authenticated": _EVERY, "service_role": ("SELECT",)}),
    ),
)
GENERIC_ENUM = History(
    Declaration((TableSpec("note", "id", None, (ColumnSpec("level", "generic enum"),)),), _FIRST),
    Declaration((TableSpec("note", "id", None, ()),), _FIRST),
)
_AMOUNT, _FEWER = (
    (ColumnSpec("amount", amount), ColumnSpec("text", text))
    for amount, text in (("numeric(9,2)", "varchar(20)"), ("numeric", "varchar"))
)
FEWER_ARGUMENTS = History(
    Declaration((TableSpec("note", "id", None, _AMOUNT),), _FIRST),
    Declaration((TableSpec("note", "id", None, _FEWER),), _FIRST),
)
