"""Which objects a step makes, changes and drops, read from its statements; and which tables and columns hold values.

The list is for people. What a function, a trigger or a statement of another kind does is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from federation.operations.locks import NOTHING, Locks
from federation.preview.relations import Relation, Relations
from federation.preview.tokens import Name, Reader, tokens_of, without_comments_before

Mark: TypeAlias = Literal["+", "~", "-"]

Stored: TypeAlias = tuple[Relation, str | None]
"""A table, or one of its columns."""

_RELATIONS = ("MATERIALIZED VIEW", "FOREIGN TABLE", "TABLE", "RECURSIVE VIEW", "VIEW", "SEQUENCE")
_NAMED = ("TYPE", "DOMAIN", "FUNCTION", "PROCEDURE", "ROUTINE", "AGGREGATE", "INDEX")
_UNSCHEMED = ("SCHEMA", "SERVER", "EXTENSION", "ROLE", "PUBLICATION", "EVENT TRIGGER")
_ON_A_TABLE = ("POLICY", "CONSTRAINT TRIGGER", "TRIGGER", "RULE")
_CONSTRAINTS = ("CONSTRAINT", "PRIMARY KEY", "UNIQUE", "CHECK", "FOREIGN KEY", "EXCLUDE")

_SCRATCH = "federation_import"
"""The schema into which a step imports what it compares, and which it drops again."""


@dataclass(frozen=True)
class Change:
    """An object that a step makes (``+``), changes (``~``) or drops (``-``)."""

    mark: Mark
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.mark} {self.kind} {self.name}"


@dataclass
class StepChanges:
    """The changes of a step, its statements one after the other, in a database of ``relations``."""

    relations: Relations
    told: Mapping[str, Locks] = field(default_factory=dict)
    """What operations tell of the statements that are more than one SQL command."""
    found: dict[Change, None] = field(default_factory=dict)
    emptied: list[Stored] = field(default_factory=list)
    """Tables and columns that it drops or empties, by their names before the plan."""

    def read(self, statement: str) -> None:
        """Add the changes of one statement. It is read before its locks are, which change ``relations``."""
        reader = Reader(tokens_of(statement))
        match reader.take_any("CREATE", "ALTER", "DROP", "IMPORT FOREIGN SCHEMA", "TRUNCATE"):
            case None:
                for one in self.told.get(without_comments_before(statement), NOTHING).sends:
                    self.read(one)
            case "CREATE":
                self._create(reader)
            case "ALTER":
                self._alter(reader)
            case "DROP":
                self._drop(reader)
            case "IMPORT FOREIGN SCHEMA":
                self._import(reader)
            case "TRUNCATE":
                reader.take("TABLE")
                for name in reader.names():
                    self._note("~", "table", name)
                    self._empty(self.relations.resolve(name))

    def _create(self, reader: Reader) -> None:
        replacing = reader.take("OR", "REPLACE")
        if reader.take_any("TEMPORARY", "TEMP"):
            return
        reader.take_any("UNLOGGED", "UNIQUE")
        kind = reader.take_any(*_RELATIONS, *_NAMED, *_UNSCHEMED, *_ON_A_TABLE, "USER MAPPING FOR")
        if kind is None:
            return
        reader.take("CONCURRENTLY")
        reader.take("IF", "NOT", "EXISTS")
        there = False
        if kind in _RELATIONS and replacing and reader.tokens:
            there = self.relations.resolve(Reader(list(reader.tokens)).name() or (None, "")) in self.relations.existing
        self._note_of(kind, "~" if there else "+", reader)

    def _note_of(self, kind: str, mark: Mark, reader: Reader) -> None:
        """Note an object of ``kind``, whose name comes next."""
        name = None if reader.take("ON") else reader.name()
        if name is None:
            return
        if kind == "USER MAPPING FOR":
            self._note(mark, "user mapping", name)
        elif kind in _ON_A_TABLE:
            table = reader.name() if reader.skip_to("ON") else None
            where = "" if table is None else f" on {self._shown(table)}"
            self.found[Change(mark, kind.lower(), f"{name[1]}{where}")] = None
        else:
            self._note(mark, kind.lower(), name, schemed=kind not in _UNSCHEMED)

    def _drop(self, reader: Reader) -> None:
        kind = reader.take_any(*_RELATIONS, *_NAMED, *_UNSCHEMED, *_ON_A_TABLE, "USER MAPPING")
        if kind is None:
            return
        reader.take("CONCURRENTLY")
        reader.take("IF", "EXISTS")
        if kind == "USER MAPPING":
            reader.take("FOR")
        if kind in _ON_A_TABLE or kind == "USER MAPPING":
            self._note_of("USER MAPPING FOR" if kind == "USER MAPPING" else kind, "-", reader)
            return
        for name in reader.names():
            self._note("-", kind.lower(), name, schemed=kind not in _UNSCHEMED)
            if kind == "TABLE":
                self._empty(self.relations.resolve(name))
            elif kind == "SCHEMA":
                for table in sorted(self.relations.tables):
                    if table[0] == name[1]:
                        self._empty(table)

    def _import(self, reader: Reader) -> None:
        """IMPORT FOREIGN SCHEMA … LIMIT TO (…) FROM SERVER … INTO …."""
        names = Reader(reader.parenthesised()).names() if reader.skip_to("TO") else []
        into = reader.name() if reader.skip_to("INTO") else None
        for _, name in names:
            self._note("+", "foreign table", (into[1] if into else None, name))

    def _alter(self, reader: Reader) -> None:
        kind = reader.take_any(*_RELATIONS, *_NAMED, *_UNSCHEMED, *_ON_A_TABLE, "USER MAPPING FOR")
        if kind is None:
            return
        reader.take("IF", "EXISTS")
        reader.take("ONLY")
        if kind not in {"TABLE", "FOREIGN TABLE"}:
            self._note_of(kind, "~", reader)
            return
        table = reader.name()
        if table is None:
            return
        reader.take("*")
        prefix = "foreign " if kind == "FOREIGN TABLE" else ""
        for item in reader.items():
            self._alter_table(item, table, prefix)

    def _alter_table(self, item: Reader, table: Name, prefix: str) -> None:
        """One action of ALTER TABLE."""
        verb = item.take_any("RENAME", "ADD", "DROP", "ALTER")
        constraint = item.take_any(*_CONSTRAINTS) if verb in {"ADD", "DROP", "RENAME"} else None
        if verb == "RENAME" and item.take("TO"):
            new = item.name()
            self._note("~", f"{prefix}table", table)
            if new is not None:
                self._rename(table, new[1])
        elif constraint is not None:
            item.take("IF", "EXISTS")
            name = item.name() if constraint == "CONSTRAINT" else None
            mark: Mark = "+" if verb == "ADD" else "-" if verb == "DROP" else "~"
            what = f"{name[1]} on " if name is not None else "on "
            self.found[Change(mark, "constraint", f"{what}{self._shown(table)}")] = None
        elif verb is not None:
            item.take("COLUMN")
            item.take_any("IF NOT EXISTS", "IF EXISTS")
            column = item.name()
            if column is not None:
                self._alter_column(verb, item, table, column[1], prefix)
        else:
            self._note("~", f"{prefix}table", table)

    def _alter_column(self, verb: str, item: Reader, table: Name, column: str, prefix: str) -> None:
        relation = self.relations.resolve(table)
        mark: Mark = "+" if verb == "ADD" else "-" if verb == "DROP" else "~"
        change = Change(mark, f"{prefix}column", f"{self._shown(table)}.{column}")
        made = Change("+", change.kind, change.name)
        if made not in self.found and Change("+", f"{prefix}table", self._shown(table)) not in self.found:
            self.found[change] = None
        if verb == "DROP" and not prefix:
            self._empty(relation, column)
        elif verb == "RENAME" and item.take("TO") and (new := item.name()) is not None:
            self.relations.originals[relation, new[1]] = self._original(relation, column)

    def _rename(self, table: Name, new: str) -> None:
        relation = self.relations.resolve(table)
        renamed = (relation[0], new)
        for (of, column), was in list(self.relations.originals.items()):
            if of == relation and column is not None:
                self.relations.originals[renamed, column] = was
        self.relations.originals[renamed, None] = self._original(relation, None)

    def _original(self, table: Relation, column: str | None) -> Stored:
        """What a table or column is called in the database, before any step of the plan."""
        known = self.relations.originals
        if (table, column) in known:
            return known[table, column]
        return known.get((table, None), (table, None))[0], column

    def _empty(self, table: Relation, column: str | None = None) -> None:
        self.emptied.append(self._original(table, column))

    def _note(self, mark: Mark, kind: str, name: Name, *, schemed: bool = True) -> None:
        if _SCRATCH in name:
            return
        change = Change(mark, kind, self._shown(name) if schemed else name[1])
        if mark != "~" or Change("+", kind, change.name) not in self.found:
            self.found[change] = None

    def _shown(self, name: Name) -> str:
        schema, relation = self.relations.resolve(name)
        return relation if schema == "public" else f"{schema}.{relation}"


def grouped(changes: tuple[Change, ...], most: int = 3) -> Iterator[str]:
    """Show the changes: the columns of a table in one line, and more than ``most`` others of a kind and schema."""
    groups: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        within = change.name.rpartition(".")[0] if change.kind not in {"policy", "trigger", "constraint"} else ""
        groups.setdefault((change.mark, change.kind, within), []).append(change)
    for (mark, kind, within), members in groups.items():
        if kind.endswith("column") and len(members) > 1:
            yield f"{mark} {kind}s of {within}: {', '.join(one.name.rpartition('.')[2] for one in members)}"
        elif len(members) <= most or mark == "-" or not within:
            yield from map(str, members)
        else:
            yield f"{mark} {len(members)} {kind}s in {within}"
