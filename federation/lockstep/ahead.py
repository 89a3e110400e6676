"""What is known of a step before it begins: the locks that it takes first, and the tables that it rewrites.

Read from the steps' SQL as `preview` does, in the run's own sessions. What cannot be known does no harm: the step then
takes its locks one after the other, and a rewrite is found before it commits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from federation.config import Config
from federation.databases import ddl
from federation.errors import FederationError, Side
from federation.lockstep.plan import Step
from federation.lockstep.planned import planned
from federation.lockstep.release import Releases
from federation.operations.locking import in_order, lock
from federation.preview.locks import ACCESS_EXCLUSIVE, EXCLUSIVE, SHARE, SHARE_ROW_EXCLUSIVE, Lock
from federation.preview.relations import Relation, Relations

_EXCLUDING = {SHARE, SHARE_ROW_EXCLUSIVE, EXCLUSIVE, ACCESS_EXCLUSIVE}
"""The modes that an app's statement waits for."""

_THERE = sa.text(
    "SELECT r.n FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS r (schema, name, n) "
    "WHERE to_regclass(format('%I.%I', r.schema, r.name)) IS NOT NULL"
)


@dataclass(frozen=True)
class StepAhead:
    """A step's ``first`` locks, in the order in which the app takes them, and the exported tables that it rewrites."""

    first: tuple[Lock, ...] = ()
    rewrites: tuple[str, ...] = ()

    def take(self, context: MigrationContext) -> None:
        """Take the locks together, at the beginning of the step's transaction. Raises what the database raises."""
        connection = context.connection
        if not self.first or connection is None:
            return
        relations = [held.relation for held in self.first]
        named = {"schemas": [schema for schema, _ in relations], "names": [name for _, name in relations]}
        there = set(connection.scalars(_THERE, named))
        wanted = [lock(one.relation, one.mode) for n, one in enumerate(self.first, 1) if n in there]
        if wanted:
            connection.execute(ddl(in_order(wanted)))


@dataclass
class Ahead:
    """Looks ahead, step by step in their order; each side's catalogs are read once."""

    config: Config
    releases: Releases
    sessions: dict[Side, Connection]
    relations: dict[Side, Relations] = field(default_factory=dict)

    def of(self, step: Step) -> StepAhead:
        """What is known of ``step``, the next of its side."""
        relations = self.relations.get(step.side)
        if relations is None:
            relations = self.relations[step.side] = Relations.read(self.sessions[step.side])
        lockable = relations.tables.union(*relations.views.values())
        order = _parents_first(relations)
        try:
            found = planned(self.config, self.releases, relations, step)
        except FederationError:  # the step itself says it
            return StepAhead()
        exported = {(self.config.tables.schema_, name) for name in self.config.tables.exported}
        rewritten = tuple(one.table[1] for one in found.rewrites if step.side == "local" and one.table in exported)
        locks = [one for one in found.locks if one.mode in _EXCLUDING and one.relation in lockable]
        if found.leaves or len({one.relation for one in locks}) < 2:
            return StepAhead((), rewritten)
        return StepAhead(tuple(sorted(locks, key=lambda one: order.get(one.relation, (0, one.relation)))), rewritten)


def _parents_first(relations: Relations) -> dict[Relation, tuple[int, Relation]]:
    """Keys that sort tables after those that they refer to, as a DELETE locks them; others come first, by name."""
    sorter = TopologicalSorter[Relation]()
    for key in sorted(relations.foreign_keys, key=lambda key: (key.table, key.name)):
        if key.table != key.referenced:
            sorter.add(key.table, key.referenced)
    try:
        return {table: (n, table) for n, table in enumerate(sorter.static_order(), 1)}
    except CycleError:  # then no order is right, and the locks' short time limit decides
        return {}
