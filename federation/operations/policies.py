"""Row-level security and policies as Alembic operations.

https://www.postgresql.org/docs/current/sql-createpolicy.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.operations.deployment import Role, roles
from federation.operations.statements import execute

Command: TypeAlias = Literal["ALL", "SELECT", "INSERT", "UPDATE", "DELETE"]


@Operations.register_operation("enable_row_level_security")
@dataclass(eq=False)
class EnableRowLevelSecurityOp(MigrateOperation):
    """Let policies decide about a table's rows; without a policy nobody but the owner sees any."""

    table: str
    schema: str = "public"

    @classmethod
    def enable_row_level_security(cls, operations: Operations, table: str, *, schema: str = "public") -> None:
        """``op.enable_row_level_security("hospital_patients")``."""
        operations.invoke(cls(table, schema))

    def reverse(self) -> DisableRowLevelSecurityOp:
        return DisableRowLevelSecurityOp(self.table, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("enable_row_level_security", self.schema, self.table)


@Operations.register_operation("disable_row_level_security")
@dataclass(eq=False)
class DisableRowLevelSecurityOp(MigrateOperation):
    """Let grants alone decide about a table."""

    table: str
    schema: str = "public"

    @classmethod
    def disable_row_level_security(cls, operations: Operations, table: str, *, schema: str = "public") -> None:
        """``op.disable_row_level_security("hospital_patients")``."""
        operations.invoke(cls(table, schema))

    def reverse(self) -> EnableRowLevelSecurityOp:
        return EnableRowLevelSecurityOp(self.table, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("disable_row_level_security", self.schema, self.table)


@Operations.register_operation("create_policy")
@dataclass(eq=False)
class CreatePolicyOp(MigrateOperation):
    """A permissive policy of a table."""

    name: str
    table: str
    using: str | None = None
    with_check: str | None = None
    command: Command = "ALL"
    roles: tuple[Role, ...] = ("public",)
    schema: str = "public"

    @classmethod
    def create_policy(
        cls,
        operations: Operations,
        name: str,
        table: str,
        *,
        using: str | None = None,
        with_check: str | None = None,
        command: Command = "ALL",
        roles: tuple[Role, ...] = ("public",),
        schema: str = "public",
    ) -> None:
        """Create a policy; ``using`` and ``with_check`` are SQL expressions over the table's columns.

        op.create_policy("own rows", "hospital_patients", using="(SELECT auth.uid()) = hospital_id")
        """
        operations.invoke(cls(name, table, using, with_check, command, roles, schema))

    def reverse(self) -> DropPolicyOp:
        return DropPolicyOp(self.name, self.table, self.schema, self)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_policy", self.schema, self.table, self.name)


@Operations.register_operation("drop_policy")
@dataclass(eq=False)
class DropPolicyOp(MigrateOperation):
    """Drop a policy. Keeps what it was, when known, so that it can be reversed."""

    name: str
    table: str
    schema: str = "public"
    was: CreatePolicyOp | None = None

    @classmethod
    def drop_policy(cls, operations: Operations, name: str, table: str, *, schema: str = "public") -> None:
        """``op.drop_policy("own rows", "hospital_patients")``."""
        operations.invoke(cls(name, table, schema))

    def reverse(self) -> CreatePolicyOp:
        if self.was is None:
            raise NotImplementedError(f"the policy {self.name} was dropped without saying what it was")
        return self.was

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_policy", self.schema, self.table, self.name)


@Operations.implementation_for(EnableRowLevelSecurityOp)
def _enable(operations: Operations, op: EnableRowLevelSecurityOp) -> None:
    table = sql.Identifier(op.schema, op.table)
    execute(operations, sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(table))


@Operations.implementation_for(DisableRowLevelSecurityOp)
def _disable(operations: Operations, op: DisableRowLevelSecurityOp) -> None:
    table = sql.Identifier(op.schema, op.table)
    execute(operations, sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(table))


@Operations.implementation_for(CreatePolicyOp)
def _create(operations: Operations, op: CreatePolicyOp) -> None:
    clauses = [
        sql.SQL("{} ({})").format(sql.SQL(keyword), sql.SQL(expression))
        for keyword, expression in (("USING", op.using), ("WITH CHECK", op.with_check))
        if expression is not None
    ]
    execute(
        operations,
        sql.SQL("CREATE POLICY {} ON {} FOR {} TO {} {}").format(
            sql.Identifier(op.name),
            sql.Identifier(op.schema, op.table),
            sql.SQL(op.command),
            roles(operations, op.roles),
            sql.SQL(" ").join(clauses),
        ),
    )


@Operations.implementation_for(DropPolicyOp)
def _drop(operations: Operations, op: DropPolicyOp) -> None:
    execute(
        operations,
        sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(op.name), sql.Identifier(op.schema, op.table)),
    )


@renderers.dispatch_for(EnableRowLevelSecurityOp)
def _render_enable(_context: object, op: EnableRowLevelSecurityOp) -> str:
    return f"op.enable_row_level_security({op.table!r}, schema={op.schema!r})"


@renderers.dispatch_for(DisableRowLevelSecurityOp)
def _render_disable(_context: object, op: DisableRowLevelSecurityOp) -> str:
    return f"op.disable_row_level_security({op.table!r}, schema={op.schema!r})"


@renderers.dispatch_for(CreatePolicyOp)
def _render_create(_context: object, op: CreatePolicyOp) -> str:
    return (
        f"op.create_policy({op.name!r}, {op.table!r}, using={op.using!r}, with_check={op.with_check!r}, "
        f"command={op.command!r}, roles={op.roles!r}, schema={op.schema!r})"
    )


@renderers.dispatch_for(DropPolicyOp)
def _render_drop(_context: object, op: DropPolicyOp) -> str:
    return f"op.drop_policy({op.name!r}, {op.table!r}, schema={op.schema!r})"
