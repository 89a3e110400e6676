"""Lock modes, and the locks of a step on the relations that others see.

Locks on a table's indexes, TOAST table and sequences are left out, since none is taken without one on the table; so is
what the same step has created, which nobody else sees yet.

https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from federation.operations.locks import Locks
from federation.preview.relations import ForeignKey, Relation, Relations
from federation.preview.tokens import Name, Token, read_by

ACCESS_SHARE, ROW_SHARE, ROW_EXCLUSIVE = "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE"
SHARE_UPDATE_EXCLUSIVE, SHARE, SHARE_ROW_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE"
EXCLUSIVE, ACCESS_EXCLUSIVE = "EXCLUSIVE", "ACCESS EXCLUSIVE"

MODES = (
    ACCESS_SHARE,
    ROW_SHARE,
    ROW_EXCLUSIVE,
    SHARE_UPDATE_EXCLUSIVE,
    SHARE,
    SHARE_ROW_EXCLUSIVE,
    EXCLUSIVE,
    ACCESS_EXCLUSIVE,
)
"""The modes, weakest first."""

CONFLICTS = {
    ACCESS_SHARE: set(MODES[7:]),
    ROW_SHARE: set(MODES[6:]),
    ROW_EXCLUSIVE: set(MODES[4:]),
    SHARE_UPDATE_EXCLUSIVE: set(MODES[3:]),
    SHARE: {ROW_EXCLUSIVE, SHARE_UPDATE_EXCLUSIVE, *MODES[5:]},
    SHARE_ROW_EXCLUSIVE: set(MODES[2:]),
    EXCLUSIVE: set(MODES[1:]),
    ACCESS_EXCLUSIVE: set(MODES),
}
"""What a mode has to wait for, and makes wait."""


BOOKS = {
    ("federation", "alembic_version"),
    ("federation", "history"),
    ("federation", "guard"),
    ("federation", "pair"),
    ("federation", "storage"),
    ("federation_private", "guard"),
    ("federation_private", "site"),
}
"""The toolkit's own, which the guard asks in every step."""


@dataclass(frozen=True)
class Lock:
    """A mode that is taken on a relation."""

    relation: Relation
    mode: str

    def __str__(self) -> str:
        return f"{self.mode} on {'.'.join(self.relation)}"


@dataclass(frozen=True)
class Rewrite:
    """A table of which a step writes every row anew: whoever waits for it over the link would see none of them."""

    table: Relation
    rows: int | None
    """About how many; None where nobody has counted them."""

    def __str__(self) -> str:
        schema, name = self.table
        shown = name if schema == "public" else f"{schema}.{name}"
        return f"rewrites {shown}" + (f", {self.rows:,} rows" if self.rows is not None else "")


def strongest(locks: Iterable[Lock]) -> list[Lock]:
    """Without those that another lock on the same relation makes needless, by relation."""
    distinct = set(locks)
    return sorted(
        (
            lock
            for lock in distinct
            if not any(
                other != lock and other.relation == lock.relation and CONFLICTS[lock.mode] <= CONFLICTS[other.mode]
                for other in distinct
            )
        ),
        key=lambda lock: (lock.relation, MODES.index(lock.mode)),
    )


@dataclass
class StepLocks:
    """The locks of a step, its statements one after the other."""

    relations: Relations
    told: Mapping[str, Locks] = field(default_factory=dict)
    """What operations tell of the statements that are more than one SQL command."""
    locks: set[Lock] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    """Statements of which not all locks are known."""
    made: set[Relation] = field(default_factory=set)
    made_schemas: set[str] = field(default_factory=set)
    rewrites: set[Relation] = field(default_factory=set)
    """Tables that others see, of which every row is written anew."""
    leaves: bool = False
    """Whether the step leaves its transaction, and with it the locks that it had."""

    def lock(self, mode: str, *names: Name) -> None:
        """Record ``mode`` for each relation, except relations that this step has made."""
        for name in names:
            relation = self.relations.resolve(name)
            if relation not in self.made | BOOKS and not _is_systems(name):
                self.locks.add(Lock(relation, mode))

    def rewrite(self, table: Relation) -> None:
        """Note that every row of ``table`` is written anew."""
        if table not in self.made:
            self.rewrites.add(table)

    def make(self, name: Name) -> Relation:
        """A relation that nobody else sees yet."""
        schema, relation = name
        made = (schema or self.relations.search_path[0], relation)
        self.made.add(made)
        self.relations.existing.add(made)
        return made

    def is_plain(self, name: Name) -> bool:
        """Whether a lock on the relation is none on others that inherit from it."""
        return self.relations.resolve(name) not in self.relations.inheriting

    def reading(self, tokens: list[Token], *, view: Name | None = None) -> bool:
        """ACCESS SHARE on what queries among ``tokens`` read, if that can be told; ``view`` is defined by them."""
        names = read_by(tokens)
        self.lock(ACCESS_SHARE, *(names or ()))
        if view is not None:
            self.relations.define_view(self.relations.resolve(view), set(map(self.relations.resolve, names or ())))
        return names is not None

    def add_foreign_key(self, key: ForeignKey) -> None:
        """Its triggers are made on both tables."""
        self.lock(SHARE_ROW_EXCLUSIVE, key.table, key.referenced)
        self.relations.foreign_keys.add(key)

    def drop_foreign_keys(self, gone: Callable[[ForeignKey], bool]) -> None:
        """Its triggers are dropped on both tables."""
        for key in [key for key in self.relations.foreign_keys if gone(key)]:
            self.lock(ACCESS_EXCLUSIVE, key.table, key.referenced)
            self.relations.foreign_keys.discard(key)


def _is_systems(name: Name) -> bool:
    schema, relation = name
    return schema in {"pg_catalog", "information_schema", "pg_temp"} or (schema is None and relation.startswith("pg_"))
