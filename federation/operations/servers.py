"""Foreign servers as Alembic operations.

https://www.postgresql.org/docs/current/sql-createserver.html
https://www.postgresql.org/docs/current/postgres-fdw.html#POSTGRES-FDW-OPTIONS
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.errors import Refused
from federation.operations.deployment import deployment
from federation.operations.rendering import call, given
from federation.operations.statements import execute
from federation.operations.told import tells

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

ADDRESS = frozenset({"host", "hostaddr", "port", "dbname", "service", "sslmode", "sslrootcert", "channel_binding"})
"""Options that say where the hospital is and how it proves itself: a deployment's, like all that it sets itself."""


@Operations.register_operation("create_foreign_server")
@dataclass(eq=False)
class CreateForeignServerOp(MigrateOperation):
    """Make the hospital known to the cloud. Address and timeouts are the deployment's and are added at run time."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def create_foreign_server(cls, operations: Operations, name: str, **options: str) -> None:
        """Create the foreign server ``name`` with ``options`` of postgres_fdw.

        Raises Refused for an option that is the deployment's (host, port, dbname, timeouts, …).

            op.create_foreign_server("hospital", fetch_size="1000")

        https://www.postgresql.org/docs/current/sql-createserver.html
        """
        operations.invoke(cls(name, options))

    def reverse(self) -> DropForeignServerOp:
        return DropForeignServerOp(self.name, self.options)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_foreign_server", self.name, dict(self.options))


@Operations.register_operation("alter_foreign_server")
@dataclass(eq=False)
class AlterForeignServerOp(MigrateOperation):
    """Add, set and drop options of a server. ``was`` holds those set or dropped as they were, to be reversed."""

    name: str
    add: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    was: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def alter_foreign_server(
        cls,
        operations: Operations,
        name: str,
        *,
        add: Mapping[str, str] = {},
        set: Mapping[str, str] = {},  # noqa: A002  # ALTER SERVER's own word
        drop: Sequence[str] = (),
        was: Mapping[str, str] = {},
    ) -> None:
        """Change the options of the foreign server ``name``; ``was`` is what reversing needs.

        Raises Refused for an option that is the deployment's: `federation link apply` sets those.

            op.alter_foreign_server("hospital", set={"fetch_size": "5000"}, was={"fetch_size": "1000"})

        https://www.postgresql.org/docs/current/sql-alterserver.html
        """
        operations.invoke(cls(name, add, set, drop, was))

    def reverse(self) -> AlterForeignServerOp:
        unknown = [key for key in (*self.set, *self.drop) if key not in self.was]
        if unknown:
            raise NotImplementedError(
                f"options {', '.join(unknown)} of server {self.name} were altered without saying what they were"
            )
        return AlterForeignServerOp(
            self.name,
            add={key: self.was[key] for key in self.drop},
            set={key: self.was[key] for key in self.set},
            drop=tuple(self.add),
            was={**self.add, **self.set},
        )

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("alter_foreign_server", self.name, dict(self.add), dict(self.set), tuple(self.drop))


@Operations.register_operation("drop_foreign_server")
@dataclass(eq=False)
class DropForeignServerOp(MigrateOperation):
    """Forget the hospital. Keeps the options, so that it can be reversed."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def drop_foreign_server(cls, operations: Operations, name: str, **options: str) -> None:
        """Drop the foreign server ``name``; PostgreSQL refuses while anything depends on it.

        ``options`` are what reversing needs.

            op.drop_foreign_server("hospital", fetch_size="1000")

        https://www.postgresql.org/docs/current/sql-dropserver.html
        """
        operations.invoke(cls(name, options))

    def reverse(self) -> CreateForeignServerOp:
        return CreateForeignServerOp(self.name, self.options)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_foreign_server", self.name, dict(self.options))


def _refuse_the_deployments(operations: Operations, server: str, named: Collection[str]) -> dict[str, str]:
    """The deployment's options, of which none may be in ``named``."""
    options = deployment(operations).server_options()
    own = [key for key in named if key in ADDRESS or key in options]
    if own:
        raise Refused(
            f"{', '.join(own)} of server {server} is the deployment's, not the migration's",
            hint="set it in federation.toml or FEDERATION_LINK_*, then run `federation link apply`",
        )
    return options


def _changes(verb: str, options: Mapping[str, str]) -> Iterator[sql.Composed]:
    for key, value in options.items():
        yield sql.SQL("{}{} {}").format(sql.SQL(verb), sql.Identifier(key), sql.Literal(value))


@Operations.implementation_for(CreateForeignServerOp)
@tells
def _create(operations: Operations, op: CreateForeignServerOp) -> None:
    options = {**op.options, **_refuse_the_deployments(operations, op.name, op.options)}
    execute(
        operations,
        sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({})").format(
            sql.Identifier(op.name), sql.SQL(", ").join(_changes("", options))
        ),
    )


@Operations.implementation_for(AlterForeignServerOp)
@tells
def _alter(operations: Operations, op: AlterForeignServerOp) -> None:
    _refuse_the_deployments(operations, op.name, [*op.add, *op.set, *op.drop])
    changes = [*_changes("ADD ", op.add), *_changes("SET ", op.set)]
    changes += [sql.SQL("DROP {}").format(sql.Identifier(key)) for key in op.drop]
    if changes:
        execute(
            operations,
            sql.SQL("ALTER SERVER {} OPTIONS ({})").format(sql.Identifier(op.name), sql.SQL(", ").join(changes)),
        )


@Operations.implementation_for(DropForeignServerOp)
@tells
def _drop(operations: Operations, op: DropForeignServerOp) -> None:
    execute(operations, sql.SQL("DROP SERVER {}").format(sql.Identifier(op.name)))


@renderers.dispatch_for(CreateForeignServerOp)
def _render_create(context: AutogenContext, op: CreateForeignServerOp) -> str:
    return call(context, "create_foreign_server", op.name, **op.options)


@renderers.dispatch_for(AlterForeignServerOp)
def _render_alter(context: AutogenContext, op: AlterForeignServerOp) -> str:
    changes = given(add=dict(op.add), set=dict(op.set), drop=tuple(op.drop), was=dict(op.was))
    return call(context, "alter_foreign_server", op.name, **changes)


@renderers.dispatch_for(DropForeignServerOp)
def _render_drop(context: AutogenContext, op: DropForeignServerOp) -> str:
    return call(context, "drop_foreign_server", op.name, **op.options)
