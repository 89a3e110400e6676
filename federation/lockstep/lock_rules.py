"""Which locks a statement takes: a small table of statement kinds, read from their text.

What it does not know is unknown and said to be: functions and triggers may do anything.

https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from psycopg import sql

from federation.lockstep.locks import (
    ACCESS_EXCLUSIVE,
    ACCESS_SHARE,
    MODES,
    ROW_EXCLUSIVE,
    ROW_SHARE,
    SHARE,
    SHARE_ROW_EXCLUSIVE,
    SHARE_UPDATE_EXCLUSIVE,
    StepLocks,
)
from federation.lockstep.relations import ForeignKey, Relation
from federation.lockstep.rewrite_rules import rewrites
from federation.lockstep.tokens import Name, Reader, Token, items_of, tokens_of
from federation.operations import foreign_tables, indexes, locking, user_mappings, views


def read(step: StepLocks, statement: str) -> None:
    """Add the locks of one statement to those of its step."""
    for template, rule in _OWN_BLOCKS:
        if found := template.fullmatch(_without_comments_before(statement)):
            rule(step, found.groupdict())
            return
    tokens = tokens_of(statement)
    if tokens[0].kind == "meta":
        known = _own_meta(tokens[0].text)
    else:
        reader = Reader(tokens)
        kind = reader.take_any(*_KINDS)
        known = kind is not None and _KINDS[kind](step, reader)
    if not known:
        step.unknown.append(_abbreviated(statement))


def _abbreviated(statement: str) -> str:
    line = " ".join(_without_comments_before(statement).split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _without_comments_before(statement: str) -> str:
    return re.sub(r"\A(?:\s+|--[^\n]*\n|/\*.*?\*/)*", "", statement, flags=re.DOTALL)


def _own_meta(line: str) -> bool:
    """psql's part in sending a link role's password: it fills a temporary table."""
    return line.startswith(("\\if", "\\endif", "\\setenv", "\\copy pg_temp.federation_secret "))


def _none(_step: StepLocks, _reader: Reader) -> bool:
    return True


def _leave(step: StepLocks, _reader: Reader) -> bool:
    step.leaves = True
    return True


def _no_cascade(_step: StepLocks, reader: Reader) -> bool:
    return not reader.has("CASCADE")


def _create_table(step: StepLocks, reader: Reader, *, temporary: bool = False) -> bool:
    optional = reader.take("IF", "NOT", "EXISTS")
    name = reader.name()
    if name is None:
        return False
    if optional and step.relations.resolve(name) in step.relations.existing:
        return True
    table = step.make(("pg_temp", name[1]) if temporary else name)
    if not temporary:
        step.relations.tables.add(table)
    of_elements = reader.tokens[:1] == [Token("symbol", "(")]
    elements = reader.parenthesised()
    known = of_elements and not reader.has("AS", "INHERITS", "OF")
    for item in items_of(elements):
        if item.take("LIKE") and (model := item.name()) is not None:
            step.lock(ACCESS_SHARE, model)
        constraint = str((item.name() or (None, ""))[1]) if item.take("CONSTRAINT") else None
        _foreign_key(step, table, item, constraint)
    return known


def _foreign_key(step: StepLocks, table: Relation, item: Reader, constraint: str | None) -> None:
    """The foreign key that a table's element or a column's definition holds, if it does."""
    columns: list[str] = []
    if item.take("FOREIGN", "KEY"):
        columns = [str(token.name) for token in item.parenthesised() if token.name is not None]
    elif item.tokens and item.tokens[0].name is not None:
        columns = [str(item.tokens[0].name)]
    if item.skip_to("REFERENCES") and (name := item.name()) is not None:
        referenced = step.relations.resolve(name)
        constraint = constraint or f"{table[1]}_{'_'.join(columns)}_fkey"
        step.add_foreign_key(ForeignKey(constraint, table, tuple(columns), referenced))


def _create_temporary_table(step: StepLocks, reader: Reader) -> bool:
    return _create_table(step, reader, temporary=True)


def _create_foreign_table(step: StepLocks, reader: Reader) -> bool:
    reader.take("IF", "NOT", "EXISTS")
    name = reader.name()
    if name is not None:
        step.relations.foreign.add(step.make(name))
    return name is not None and not reader.has("PARTITION", "INHERITS")


def _create_index(step: StepLocks, reader: Reader) -> bool:
    concurrently = reader.take("CONCURRENTLY")
    step.leaves = step.leaves or concurrently
    optional = reader.take("IF", "NOT", "EXISTS")
    index = None if reader.take("ON") else reader.name()
    if index is not None and not reader.take("ON"):
        return False
    reader.take("ONLY")
    table = reader.name()
    if table is None:
        return False
    step.lock(SHARE_UPDATE_EXCLUSIVE if concurrently else SHARE, table)
    resolved = step.relations.resolve(table)
    if index is not None and not (optional and (resolved[0], index[1]) in step.relations.table_of_index):
        step.relations.table_of_index[resolved[0], index[1]] = resolved
    return step.is_plain(table)


def _create_view(step: StepLocks, reader: Reader, *, replacing: bool = False) -> bool:
    name = reader.name()
    if name is None:
        return False
    if replacing and step.relations.resolve(name) in step.relations.existing:
        step.lock(ACCESS_EXCLUSIVE, name)
    else:
        step.make(name)
    return reader.skip_to("AS") and step.reading(reader.tokens, view=name)


def _replace_view(step: StepLocks, reader: Reader) -> bool:
    return _create_view(step, reader, replacing=True)


def _create_function(_step: StepLocks, reader: Reader) -> bool:
    """PL/pgSQL's body is not looked at until it runs, an SQL function's is: its tables are locked meanwhile."""
    words = [token.word for token in reader.tokens]
    language = next((b for a, b in itertools.pairwise(words) if a == "LANGUAGE"), None)
    return language in {"PLPGSQL", "C", "INTERNAL"} or (language == "SQL" and not _mentions_relations(reader))


def _mentions_relations(reader: Reader) -> bool:
    text = " ".join(token.text for token in reader.tokens)
    return re.search(r"\b(FROM|JOIN|INTO|UPDATE|TABLE|MERGE)\b", text, re.IGNORECASE) is not None


def _on_table(mode: str) -> Callable[[StepLocks, Reader], bool]:
    """A statement about what belongs to a table: ``name ON table …``, with the queries in its expressions."""

    def locking(step: StepLocks, reader: Reader) -> bool:
        reader.take("IF", "EXISTS")
        reader.name()
        if not reader.skip_to("ON") or (table := reader.name()) is None:
            return False
        step.lock(mode, table)
        return step.is_plain(table) and step.reading(reader.tokens)

    return locking


def _create_schema(step: StepLocks, reader: Reader) -> bool:
    reader.take("IF", "NOT", "EXISTS")
    name = reader.name()
    if name is not None and not any(schema == name[1] for schema, _ in step.relations.existing):
        step.made_schemas.add(name[1])
    return not reader.has("CREATE")


def _drop_schema(step: StepLocks, reader: Reader) -> bool:
    reader.take("IF", "EXISTS")
    names = [name for _, name in reader.names()]
    return not reader.has("CASCADE") or set(names) <= step.made_schemas


def _drop_relations(step: StepLocks, reader: Reader) -> bool:
    optional = reader.take("IF", "EXISTS")
    names = reader.names()
    known = bool(names) and not reader.has("CASCADE")
    gone = set()
    for name in names:
        relation = step.relations.resolve(name)
        if optional and relation not in step.relations.existing:
            known = known and not step.unknown  # an unknown statement may have made it
            continue
        step.lock(ACCESS_EXCLUSIVE, name)
        known = known and step.is_plain(name)
        gone.add(relation)
    step.drop_foreign_keys(lambda key: bool({key.table, key.referenced} & gone))
    step.relations.forget(gone)
    return known


def _drop_index(step: StepLocks, reader: Reader) -> bool:
    concurrently = reader.take("CONCURRENTLY")
    step.leaves = step.leaves or concurrently
    mode = SHARE_UPDATE_EXCLUSIVE if concurrently else ACCESS_EXCLUSIVE
    optional = reader.take("IF", "EXISTS")
    known = True
    for name in reader.names():
        index = step.relations.resolve(name)
        table = step.relations.table_of_index.pop(index, None)
        if table is None:
            known = known and optional and not step.unknown
            continue
        step.lock(mode, table)
        known = known and step.is_plain(table)
    return known


_ACTIONS = {
    "VALIDATE CONSTRAINT": SHARE_UPDATE_EXCLUSIVE,
    "CLUSTER ON": SHARE_UPDATE_EXCLUSIVE,
    "SET WITHOUT CLUSTER": SHARE_UPDATE_EXCLUSIVE,
    "ENABLE TRIGGER": SHARE_ROW_EXCLUSIVE,
    "ENABLE REPLICA TRIGGER": SHARE_ROW_EXCLUSIVE,
    "ENABLE ALWAYS TRIGGER": SHARE_ROW_EXCLUSIVE,
    "DISABLE TRIGGER": SHARE_ROW_EXCLUSIVE,
}
"""The actions of ALTER TABLE that need less than ACCESS EXCLUSIVE.

https://www.postgresql.org/docs/current/sql-altertable.html
"""


def _alter_table(step: StepLocks, reader: Reader, *, of_view: bool = False) -> bool:
    optional = reader.take("IF", "EXISTS")
    if reader.has("PARTITION", "INHERIT") or reader.take("ALL"):
        return False
    reader.take("ONLY")
    name = reader.name()
    if name is None or (optional and step.relations.resolve(name) not in step.relations.existing):
        return name is not None and not step.unknown
    known = step.is_plain(name)
    for action in reader.items():
        known = _alter_action(step, name, action, of_view=of_view) and known
    return known


def _alter_view(step: StepLocks, reader: Reader) -> bool:
    return _alter_table(step, reader, of_view=True)


def _alter_action(step: StepLocks, name: Name, action: Reader, *, of_view: bool) -> bool:
    table = step.relations.resolve(name)
    if not of_view and table not in step.relations.foreign and rewrites(action.tokens, table, step.relations):
        step.rewrite(table)
    if (kind := action.take_any(*_ACTIONS)) is not None:
        step.lock(_ACTIONS[kind], name)
        if kind == "VALIDATE CONSTRAINT":
            constraint = (action.name() or (None, ""))[1]
            for key in step.relations.foreign_keys:
                if (key.table, key.name) == (table, constraint):
                    step.lock(ROW_SHARE, key.referenced)
        return True
    if action.take_any("SET (", "RESET (") is not None:  # a view's options need more than a table's parameters
        step.lock(ACCESS_EXCLUSIVE if of_view or action.has("USER_CATALOG_TABLE") else SHARE_UPDATE_EXCLUSIVE, name)
        return True
    if action.take("ADD"):
        added = (action.name() or (None, ""))[1] if action.take("CONSTRAINT") else None
        is_key = [token.word for token in action.tokens[:2]] == ["FOREIGN", "KEY"]
        if not is_key:
            step.lock(ACCESS_EXCLUSIVE, name)
            action.take("COLUMN")
            action.take("IF", "NOT", "EXISTS")
        _foreign_key(step, table, action, added)
        return True
    if action.take("ALTER"):
        action.take("COLUMN")
        column = (action.name() or (None, ""))[1]
        light = action.take_any("SET STATISTICS", "SET (", "RESET (") is not None
        step.lock(SHARE_UPDATE_EXCLUSIVE if light else ACCESS_EXCLUSIVE, name)
        if action.take_any("TYPE", "SET DATA TYPE") is None:
            return True
        # Foreign keys are made anew; of the tables that refer to this one, which columns they mean is not known here.
        keys = [key for key in step.relations.foreign_keys if table in {key.table, key.referenced}]
        for key in keys:
            if key.table == table and column in key.columns:
                step.lock(ACCESS_EXCLUSIVE, key.referenced)
        return not any(key.referenced == table for key in keys)
    step.lock(ACCESS_EXCLUSIVE, name)
    if action.take("DROP", "CONSTRAINT"):
        action.take("IF", "EXISTS")
        constraint = (action.name() or (None, ""))[1]
        step.drop_foreign_keys(lambda key: (key.table, key.name) == (table, constraint))
    elif action.take("DROP"):
        action.take("COLUMN")
        action.take("IF", "EXISTS")
        column = (action.name() or (None, ""))[1]
        step.drop_foreign_keys(lambda key: key.table == table and column in key.columns)
    elif action.has("RENAME", "SCHEMA"):
        return _rename(step, table, action)
    return not action.has("CASCADE")


def _rename(step: StepLocks, table: Relation, action: Reader) -> bool:
    """What is known of a table, column or constraint goes by another name from here on."""
    relations = step.relations
    if action.take("RENAME", "TO"):
        renamed = (table[0], (action.name() or table)[1])
    elif action.take("SET", "SCHEMA"):
        renamed = ((action.name() or table)[1], table[1])
    else:
        action.take("RENAME")
        constraint = action.take("CONSTRAINT")
        action.take("COLUMN")
        old = (action.name() or (None, ""))[1]
        action.take("TO")
        new = (action.name() or (None, ""))[1]
        relations.foreign_keys = {
            replace(
                key,
                name=new if constraint and key.name == old else key.name,
                columns=tuple(new if not constraint and c == old else c for c in key.columns),
            )
            if key.table == table
            else key
            for key in relations.foreign_keys
        }
        return True
    for names in (relations.existing, relations.tables, step.made):
        if table in names:
            names.discard(table)
            names.add(renamed)
    relations.foreign_keys = {
        replace(
            key,
            table=renamed if key.table == table else key.table,
            referenced=renamed if key.referenced == table else key.referenced,
        )
        for key in relations.foreign_keys
    }
    relations.table_of_index = {
        (renamed[0] if of == table else index[0], index[1]): renamed if of == table else of
        for index, of in relations.table_of_index.items()
    }
    return True


def _comment(step: StepLocks, reader: Reader) -> bool:
    kind = reader.take_any("TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "COLUMN")
    if kind is None:
        return not reader.has("ON") or _on_table(ACCESS_SHARE)(step, reader)
    parts = reader.parts()
    if kind == "COLUMN":
        parts = parts[:-1]
    if not parts:
        return False
    step.lock(SHARE_UPDATE_EXCLUSIVE, (parts[-2] if len(parts) > 1 else None, parts[-1]))
    return True


_NO_RELATIONS = (
    "ALL",
    "SCHEMA",
    "FUNCTION",
    "PROCEDURE",
    "ROUTINE",
    "TYPE",
    "DOMAIN",
    "DATABASE",
    "LANGUAGE",
    "FOREIGN",
)


def _grant(step: StepLocks, reader: Reader) -> bool:
    """No lock on 15, ACCESS SHARE on 18: seen there, not tried between."""
    if reader.skip_to("ON") and reader.take_any(*_NO_RELATIONS) is None and step.relations.server_version >= 180000:
        reader.take_any("TABLE", "SEQUENCE")
        step.lock(ACCESS_SHARE, *reader.names())
    return True


def _lock_table(step: StepLocks, reader: Reader) -> bool:
    reader.take("TABLE")
    names = reader.names()
    mode = reader.take_any(*(f"IN {mode} MODE" for mode in MODES))
    step.lock(mode.removeprefix("IN ").removesuffix(" MODE") if mode else ACCESS_EXCLUSIVE, *names)
    return all(map(step.is_plain, names))


def _truncate(step: StepLocks, reader: Reader) -> bool:
    reader.take("TABLE")
    names = reader.names()
    step.lock(ACCESS_EXCLUSIVE, *names)
    for name in names:
        step.rewrite(step.relations.resolve(name))
    return not reader.has("CASCADE") and all(map(step.is_plain, names))


def _analyze(step: StepLocks, reader: Reader) -> bool:
    names = reader.names()
    step.lock(SHARE_UPDATE_EXCLUSIVE, *names)
    return bool(names) and all(map(step.is_plain, names))


def _write(step: StepLocks, reader: Reader) -> bool:
    """Triggers, foreign keys, defaults and functions may lock more, but not of values put into what was just made."""
    reader.take("ONLY")
    name = reader.name()
    if name is None:
        return False
    step.lock(ROW_EXCLUSIVE, name)
    table = step.relations.resolve(name)
    refers = any(key.table == table for key in step.relations.foreign_keys)
    return table in step.made and not refers and not reader.has("SELECT", "FROM", "USING")


def _select(_step: StepLocks, reader: Reader) -> bool:
    """A constant; a function may do anything, and a view reads what it reads."""
    return not reader.has("FROM", "(", "INTO")


def _import_foreign_schema(step: StepLocks, reader: Reader) -> bool:
    reader.name()
    tables = [token.name for token in reader.parenthesised()] if reader.take("LIMIT", "TO") else None
    if tables is None or not reader.skip_to("INTO") or (into := reader.name()) is None:
        return False
    for table in tables:
        if table is not None:
            step.relations.foreign.add(step.make((into[1], table)))
    return True


def _alter_type(_step: StepLocks, reader: Reader) -> bool:
    """Attributes and domains' constraints reach into the tables that use them."""
    reader.name()
    return reader.take_any("ADD VALUE", "RENAME VALUE", "RENAME TO", "OWNER TO", "SET SCHEMA") is not None


def _create_sequence(step: StepLocks, reader: Reader) -> bool:
    reader.take("IF", "NOT", "EXISTS")
    name = reader.name()
    if name is not None:
        step.make(name)
    return name is not None and not reader.has("OWNED")


_TEMPORARY = ("TEMPORARY", "TEMP")
_NOWHERE = (
    "TYPE",
    "DOMAIN",
    "SERVER",
    "USER MAPPING",
    "ROLE",
    "COLLATION",
    "FUNCTION",
    "PROCEDURE",
    "AGGREGATE",
)
"""Objects that are no relations and belong to none."""

Locking: TypeAlias = Callable[[StepLocks, Reader], bool]

_KINDS: dict[str, Locking] = {
    **{f"CREATE {word} TABLE": _create_temporary_table for word in _TEMPORARY},
    "CREATE TABLE": _create_table,
    "CREATE UNLOGGED TABLE": _create_table,
    "CREATE FOREIGN TABLE": _create_foreign_table,
    "CREATE INDEX": _create_index,
    "CREATE UNIQUE INDEX": _create_index,
    "CREATE VIEW": _create_view,
    "CREATE OR REPLACE VIEW": _replace_view,
    "CREATE POLICY": _on_table(ACCESS_EXCLUSIVE),
    "CREATE TRIGGER": _on_table(SHARE_ROW_EXCLUSIVE),
    "CREATE OR REPLACE TRIGGER": _on_table(SHARE_ROW_EXCLUSIVE),
    "CREATE SCHEMA": _create_schema,
    "CREATE SEQUENCE": _create_sequence,
    **{f"CREATE {word}": _create_function for word in ("FUNCTION", "OR REPLACE FUNCTION", "PROCEDURE")},
    **{f"CREATE {word}": _none for word in ("TYPE", "DOMAIN", "SERVER", "USER MAPPING", "ROLE", "COLLATION")},
    "ALTER TABLE": _alter_table,
    "ALTER FOREIGN TABLE": _alter_table,
    "ALTER VIEW": _alter_view,
    "ALTER POLICY": _on_table(ACCESS_EXCLUSIVE),
    "ALTER TRIGGER": _on_table(ACCESS_EXCLUSIVE),
    "ALTER TYPE": _alter_type,
    **{
        f"ALTER {word}": _none
        for word in ("SERVER", "USER MAPPING", "ROLE", "FUNCTION", "SCHEMA", "DEFAULT PRIVILEGES")
    },
    **{f"DROP {word}": _drop_relations for word in ("TABLE", "FOREIGN TABLE", "VIEW", "SEQUENCE")},
    "DROP INDEX": _drop_index,
    "DROP POLICY": _on_table(ACCESS_EXCLUSIVE),
    "DROP TRIGGER": _on_table(ACCESS_EXCLUSIVE),
    "DROP SCHEMA": _drop_schema,
    **{f"DROP {word}": _no_cascade for word in _NOWHERE},
    "COMMENT ON": _comment,
    "LOCK": _lock_table,
    "TRUNCATE": _truncate,
    "ANALYZE": _analyze,
    "IMPORT FOREIGN SCHEMA": _import_foreign_schema,
    "INSERT INTO": _write,
    "UPDATE": _write,
    "DELETE FROM": _write,
    "SELECT": _select,
    "GRANT": _grant,
    "REVOKE": _grant,
    **dict.fromkeys(("SET", "RESET", "BEGIN"), _none),
    "COMMIT": _leave,
}
"""By their first words, the longer before the shorter."""


# --- the toolkit's own blocks, which are more than one statement each


def _value(literal: str) -> str:
    """What a quoted literal or name stands for, a name's parts still quoted."""
    literal = literal.strip()
    if literal.startswith("E'"):
        return literal[2:-1].replace("\\\\", "\\").replace("''", "'")
    return literal[1:-1].replace("''", "'")


def _named(text: str) -> Name:
    return Reader(tokens_of(text)).name() or (None, "")


def _surplus_dropped(step: StepLocks, values: dict[str, str]) -> None:
    step.lock(ACCESS_EXCLUSIVE, (_value(values["schema"]), _value(values["table"])))


def _analyzed(step: StepLocks, values: dict[str, str]) -> None:
    step.lock(SHARE_UPDATE_EXCLUSIVE, _named(_value(values["statement"]).removeprefix("ANALYZE ")))


def _rebuilt(step: StepLocks, values: dict[str, str]) -> None:
    read(step, _value(values["drop"]))
    read(step, _value(values["create"]))


def _views_locked(step: StepLocks, values: dict[str, str]) -> None:
    table = step.relations.resolve(_named(_value(values["table"])))
    step.lock(ACCESS_EXCLUSIVE, *sorted(step.relations.views.get(table, ())))


def _locked_in_order(step: StepLocks, values: dict[str, str]) -> None:
    for statement in re.findall(r"'((?:[^']|'')*)'", values["statements"]):
        read(step, statement.replace("''", "'"))


def _imported_beside(step: StepLocks, _values: dict[str, str]) -> None:
    step.made_schemas.add("federation_import")


def _index_looked_at(step: StepLocks, values: dict[str, str]) -> None:
    step.lock(SHARE_UPDATE_EXCLUSIVE, _named(_value(values["table"])))


def _nothing(_step: StepLocks, _values: dict[str, str]) -> None:
    """Only the catalogs and the toolkit's own books are read, or privileges changed."""


def _pattern(template: sql.SQL, after: str = "") -> re.Pattern[str]:
    """What a template matches once its values are in; a value that it holds twice is the same."""
    parts: Iterator[str] = iter(re.split(r"\{(\w+)\}", template.as_string(None).strip().rstrip(";")))
    pattern, seen = re.escape(next(parts)), set()
    for name, text in zip(parts, parts, strict=True):
        pattern += f"(?P={name})" if name in seen else f"(?P<{name}>.*?)"
        pattern += re.escape(text)
        seen.add(name)
    return re.compile(pattern + re.escape(after), re.DOTALL)


_REVOKES = re.compile(
    r"DO \$federation\$\s+DECLARE\s+statement text;\s+BEGIN\s+FOR statement IN\s+SELECT DISTINCT "
    r"format\('REVOKE ALL ON %s %s FROM %s',.*?LOOP\s+EXECUTE statement;\s+END LOOP;\s+END \$federation\$",
    re.DOTALL,
)
"""What takes back default privileges, of the operations and of the binding."""

_OWN_BLOCKS: tuple[tuple[re.Pattern[str], Callable[[StepLocks, dict[str, str]], None]], ...] = (
    (_pattern(foreign_tables._EXPECT), _nothing),
    (_pattern(foreign_tables._DROP_SURPLUS), _surplus_dropped),
    (_pattern(foreign_tables._ANALYZE), _analyzed),
    (_pattern(foreign_tables._IMPORT_BESIDE), _imported_beside),
    (_pattern(foreign_tables._REQUIRE_HOSPITAL), _nothing),
    (_pattern(sql.SQL("SELECT federation_private.require_hospital()")), _nothing),
    (_REVOKES, _nothing),
    (_pattern(views._REBUILD), _rebuilt),
    (_pattern(user_mappings._USE_SECRET), _nothing),
    (_pattern(locking._VIEWS_OVER), _views_locked),
    (_pattern(locking._IN_ORDER), _locked_in_order),
    (_pattern(indexes._FIRST), _nothing),
    (_pattern(indexes._DROP_INVALID, "\n\\gexec"), _index_looked_at),
    (_pattern(indexes._SAME_OR_NONE), _index_looked_at),
    (_pattern(indexes._SET_ASIDE), _index_looked_at),
)
