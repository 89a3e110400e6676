"""Which locks the statements about tables take: CREATE, ALTER and DROP TABLE, TRUNCATE.

https://www.postgresql.org/docs/current/sql-altertable.html
"""

from __future__ import annotations

from dataclasses import replace

from federation.preview.locks import (
    ACCESS_EXCLUSIVE,
    ACCESS_SHARE,
    ROW_SHARE,
    SHARE_ROW_EXCLUSIVE,
    SHARE_UPDATE_EXCLUSIVE,
    StepLocks,
)
from federation.preview.relations import ForeignKey, Relation
from federation.preview.rewrite_rules import rewrites
from federation.preview.tokens import Name, Reader, Token, items_of


def create_table(step: StepLocks, reader: Reader, *, temporary: bool = False) -> bool:
    """CREATE TABLE: the tables that its foreign keys refer to and its LIKE reads are locked."""
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


def create_temporary_table(step: StepLocks, reader: Reader) -> bool:
    """CREATE TEMPORARY TABLE: nobody else sees it."""
    return create_table(step, reader, temporary=True)


def create_foreign_table(step: StepLocks, reader: Reader) -> bool:
    """CREATE FOREIGN TABLE: only the new table is locked."""
    reader.take("IF", "NOT", "EXISTS")
    name = reader.name()
    if name is not None:
        step.relations.foreign.add(step.make(name))
    return name is not None and not reader.has("PARTITION", "INHERITS")


def drop_relations(step: StepLocks, reader: Reader) -> bool:
    """DROP TABLE, VIEW, SEQUENCE: each relation, and the other table of each foreign key."""
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


def alter_table(step: StepLocks, reader: Reader, *, of_view: bool = False) -> bool:
    """ALTER TABLE: the strongest lock that one of its actions needs."""
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


def alter_view(step: StepLocks, reader: Reader) -> bool:
    """ALTER VIEW, whose options need more than a table's parameters."""
    return alter_table(step, reader, of_view=True)


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


def truncate(step: StepLocks, reader: Reader) -> bool:
    """TRUNCATE: each table, which gets a new file."""
    reader.take("TABLE")
    names = reader.names()
    step.lock(ACCESS_EXCLUSIVE, *names)
    for name in names:
        step.rewrite(step.relations.resolve(name))
    return not reader.has("CASCADE") and all(map(step.is_plain, names))
