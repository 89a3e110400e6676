"""Foreign servers as Alembic operations.

https://www.postgresql.org/docs/current/sql-createserver.html
https://www.postgresql.org/docs/current/postgres-fdw.html#POSTGRES-FDW-OPTIONS
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.operations.deployment import deployment
from federation.operations.statements import execute


@Operations.register_operation("create_foreign_server")
@dataclass(eq=False)
class CreateForeignServerOp(MigrateOperation):
    """Make the hospital known to the cloud. Address and timeouts are the deployment's and are added at run time."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def create_foreign_server(cls, operations: Operations, name: str, **options: str) -> None:
        """Create the foreign server ``name`` with ``options`` of postgres_fdw.

        op.create_foreign_server("hospital", fetch_size="1000")
        """
        operations.invoke(cls(name, options))

    def reverse(self) -> DropForeignServerOp:
        return DropForeignServerOp(self.name, self.options)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_foreign_server", self.name, dict(self.options))


@Operations.register_operation("drop_foreign_server")
@dataclass(eq=False)
class DropForeignServerOp(MigrateOperation):
    """Forget the hospital. Keeps the options, so that it can be reversed."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def drop_foreign_server(cls, operations: Operations, name: str, **options: str) -> None:
        """Drop the foreign server ``name``; PostgreSQL refuses while anything depends on it."""
        operations.invoke(cls(name, options))

    def reverse(self) -> CreateForeignServerOp:
        return CreateForeignServerOp(self.name, self.options)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_foreign_server", self.name, dict(self.options))


@Operations.implementation_for(CreateForeignServerOp)
def _create(operations: Operations, op: CreateForeignServerOp) -> None:
    options = {**op.options, **deployment(operations).server_options()}
    execute(
        operations,
        sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({})").format(
            sql.Identifier(op.name),
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in options.items()
            ),
        ),
    )


@Operations.implementation_for(DropForeignServerOp)
def _drop(operations: Operations, op: DropForeignServerOp) -> None:
    execute(operations, sql.SQL("DROP SERVER {}").format(sql.Identifier(op.name)))


@renderers.dispatch_for(CreateForeignServerOp)
def _render_create(_context: object, op: CreateForeignServerOp) -> str:
    return f"op.create_foreign_server({_arguments(op)})"


@renderers.dispatch_for(DropForeignServerOp)
def _render_drop(_context: object, op: DropForeignServerOp) -> str:
    return f"op.drop_foreign_server({_arguments(op)})"


def _arguments(op: CreateForeignServerOp | DropForeignServerOp) -> str:
    return ", ".join([repr(op.name), *(f"{key}={value!r}" for key, value in op.options.items())])
