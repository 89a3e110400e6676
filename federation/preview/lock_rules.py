"""Which locks a statement takes: a small table of statement kinds, read from their text.

What it does not know is unknown and said to be: functions and triggers may do anything.

https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import TypeAlias

from federation.operations.locks import Locks
from federation.preview.locks import (
    ACCESS_EXCLUSIVE,
    ACCESS_SHARE,
    MODES,
    ROW_EXCLUSIVE,
    SHARE,
    SHARE_ROW_EXCLUSIVE,
    SHARE_UPDATE_EXCLUSIVE,
    StepLocks,
)
from federation.preview.table_rules import (
    alter_table,
    alter_view,
    create_foreign_table,
    create_table,
    create_temporary_table,
    drop_relations,
    truncate,
)
from federation.preview.tokens import Reader, tokens_of, without_comments_before


def read(step: StepLocks, statement: str) -> None:
    """Add the locks of one statement to those of its step."""
    tokens = tokens_of(statement)
    if tokens[0].kind == "meta":
        known = _own_meta(tokens[0].text)
    else:
        reader = Reader(tokens)
        kind = reader.take_any(*_KINDS)
        known = kind is not None and _KINDS[kind](step, reader)
    told = step.told.get(without_comments_before(statement))
    if not known and not (told is not None and _are_plain(step, told)):
        step.unknown.append(_abbreviated(statement))


def _are_plain(step: StepLocks, locks: Locks) -> bool:
    """Add the locks that an operation has told; whether they are all that are taken."""
    for relation, mode in locks.on:
        step.lock(mode, relation)
    if locks.views_over is not None:
        step.lock(ACCESS_EXCLUSIVE, *sorted(step.relations.views.get(locks.views_over, ())))
    if locks.makes_schema is not None:
        step.made_schemas.add(locks.makes_schema)
    for statement in locks.sends:
        read(step, statement)
    return all(step.is_plain(relation) for relation, _ in locks.on)


def _abbreviated(statement: str) -> str:
    line = " ".join(without_comments_before(statement).split())
    return line if len(line) <= 80 else f"{line[:79]}…"


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
    """Rule for ``name ON table …`` (policies, triggers), with the queries in its expressions."""

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


def _analyze(step: StepLocks, reader: Reader) -> bool:
    names = reader.names()
    step.lock(SHARE_UPDATE_EXCLUSIVE, *names)
    return bool(names) and all(map(step.is_plain, names))


def _write(step: StepLocks, reader: Reader) -> bool:
    """A change of rows may lock more through triggers, keys or functions.

    A plain INSERT of values into a table that this step has made cannot.
    """
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
    **{f"CREATE {word} TABLE": create_temporary_table for word in _TEMPORARY},
    "CREATE TABLE": create_table,
    "CREATE UNLOGGED TABLE": create_table,
    "CREATE FOREIGN TABLE": create_foreign_table,
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
    "ALTER TABLE": alter_table,
    "ALTER FOREIGN TABLE": alter_table,
    "ALTER VIEW": alter_view,
    "ALTER POLICY": _on_table(ACCESS_EXCLUSIVE),
    "ALTER TRIGGER": _on_table(ACCESS_EXCLUSIVE),
    "ALTER TYPE": _alter_type,
    **{
        f"ALTER {word}": _none
        for word in ("SERVER", "USER MAPPING", "ROLE", "FUNCTION", "SCHEMA", "DEFAULT PRIVILEGES")
    },
    **{f"DROP {word}": drop_relations for word in ("TABLE", "FOREIGN TABLE", "VIEW", "SEQUENCE")},
    "DROP INDEX": _drop_index,
    "DROP POLICY": _on_table(ACCESS_EXCLUSIVE),
    "DROP TRIGGER": _on_table(ACCESS_EXCLUSIVE),
    "DROP SCHEMA": _drop_schema,
    **{f"DROP {word}": _no_cascade for word in _NOWHERE},
    "COMMENT ON": _comment,
    "LOCK": _lock_table,
    "TRUNCATE": truncate,
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
