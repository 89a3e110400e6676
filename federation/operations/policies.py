"""Row-level security and policies as Alembic operations.

https://www.postgresql.org/docs/current/sql-createpolicy.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.operations.deployment import Role, roles
from federation.operations.rendering import call, given
from federation.operations.statements import execute

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

Command: TypeAlias = Literal["ALL", "SELECT", "INSERT", "UPDATE", "DELETE"]


class PolicyWas(TypedDict, total=False):
    """What a policy was, in the words of create_policy; what is not said is create_policy's default."""

    using: str | None
    with_check: str | None
    command: Command
    roles: tuple[Role, ...]
    restrictive: bool


@Operations.register_operation("enable_row_level_security")
@dataclass(eq=False)
class EnableRowLevelSecurityOp(MigrateOperation):
    """Let policies decide about a table's rows; without a policy nobody but the owner sees any."""

    table: str
    schema: str = "public"

    @classmethod
    def enable_row_level_security(cls, operations: Operations, table: str, *, schema: str = "public") -> None:
        """Enable row-level security of ``table``.

        op.enable_row_level_security("hospital_patients")

        https://www.postgresql.org/docs/current/ddl-rowsecurity.html
        """
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
        """Disable row-level security of ``table``.

        op.disable_row_level_security("hospital_patients")

        https://www.postgresql.org/docs/current/ddl-rowsecurity.html
        """
        operations.invoke(cls(table, schema))

    def reverse(self) -> EnableRowLevelSecurityOp:
        return EnableRowLevelSecurityOp(self.table, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("disable_row_level_security", self.schema, self.table)


@Operations.register_operation("create_policy")
@dataclass(eq=False)
class CreatePolicyOp(MigrateOperation):
    """A policy of a table: permissive ones say which rows there are, each restrictive one takes rows away."""

    name: str
    table: str
    using: str | None = None
    with_check: str | None = None
    command: Command = "ALL"
    roles: tuple[Role, ...] = ("public",)
    schema: str = "public"
    restrictive: bool = False

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
        restrictive: bool = False,
    ) -> None:
        """Create a policy; ``using`` and ``with_check`` are SQL expressions over the table's columns.

        A row needs one of the permissive policies and all of the restrictive ones.

            op.create_policy("own rows", "hospital_patients", using="(SELECT auth.uid()) = hospital_id")

        https://www.postgresql.org/docs/current/sql-createpolicy.html
        """
        operations.invoke(cls(name, table, using, with_check, command, roles, schema, restrictive))

    @property
    def kind(self) -> tuple[str, ...]:
        """For a diff: what is said of a restrictive policy only."""
        return ("restrictive",) if self.restrictive else ()

    def reverse(self) -> DropPolicyOp:
        return DropPolicyOp(self.name, self.table, self.schema, self)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_policy", self.schema, self.table, self.name, self.kind)


@Operations.register_operation("alter_policy")
@dataclass(eq=False)
class AlterPolicyOp(MigrateOperation):
    """Turn the policy ``was`` into ``policy``: in place where ALTER POLICY can, else by dropping and creating it."""

    policy: CreatePolicyOp
    was: CreatePolicyOp

    @classmethod
    def alter_policy(
        cls,
        operations: Operations,
        name: str,
        table: str,
        *,
        was: PolicyWas,
        using: str | None = None,
        with_check: str | None = None,
        command: Command = "ALL",
        roles: tuple[Role, ...] = ("public",),
        schema: str = "public",
        restrictive: bool = False,
    ) -> None:
        """Change a policy to what create_policy would make of the same arguments; ``was`` says what it is now.

        ALTER POLICY can neither change the command, nor make a policy restrictive or permissive, nor take an
        expression away: such a policy is made anew.

            op.alter_policy("own rows", "hospital_patients", using="(SELECT auth.uid()) = hospital_id",
                            was={"using": "auth.uid() = hospital_id"})

        https://www.postgresql.org/docs/current/sql-alterpolicy.html
        """
        policy = CreatePolicyOp(name, table, using, with_check, command, roles, schema, restrictive)
        operations.invoke(cls(policy, CreatePolicyOp(name, table, schema=schema, **was)))

    def reverse(self) -> AlterPolicyOp:
        return AlterPolicyOp(self.was, self.policy)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("alter_policy", self.policy.schema, self.policy.table, self.policy.name)

    @property
    def in_place(self) -> bool:
        """Whether ALTER POLICY can do it."""
        taken_away = any(
            before is not None and after is None
            for before, after in (
                (self.was.using, self.policy.using),
                (self.was.with_check, self.policy.with_check),
            )
        )
        kept = (self.policy.command, self.policy.restrictive) == (self.was.command, self.was.restrictive)
        return kept and not taken_away


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
        """Drop a policy.

        op.drop_policy("own rows", "hospital_patients")

        https://www.postgresql.org/docs/current/sql-droppolicy.html
        """
        operations.invoke(cls(name, table, schema))

    def reverse(self) -> CreatePolicyOp:
        if self.was is None:
            raise NotImplementedError(f"the policy {self.name} was dropped without saying what it was")
        return self.was

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_policy", self.schema, self.table, self.name, self.was.kind if self.was else ())


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
    execute(
        operations,
        sql.SQL("CREATE POLICY {} ON {}{} FOR {} TO {}{}").format(
            sql.Identifier(op.name),
            sql.Identifier(op.schema, op.table),
            sql.SQL(" AS RESTRICTIVE" if op.restrictive else ""),
            sql.SQL(op.command),
            roles(operations, op.roles),
            _expressions(op),
        ),
    )


@Operations.implementation_for(AlterPolicyOp)
def _alter(operations: Operations, op: AlterPolicyOp) -> None:
    if not op.in_place:
        operations.invoke(op.was.reverse())
        operations.invoke(op.policy)
        return
    execute(
        operations,
        sql.SQL("ALTER POLICY {} ON {} TO {}{}").format(
            sql.Identifier(op.policy.name),
            sql.Identifier(op.policy.schema, op.policy.table),
            roles(operations, op.policy.roles),
            _expressions(op.policy),
        ),
    )


def _expressions(op: CreatePolicyOp) -> sql.Composed:
    return sql.Composed(
        [
            sql.SQL(" {} ({})").format(sql.SQL(keyword), sql.SQL(expression))
            for keyword, expression in (("USING", op.using), ("WITH CHECK", op.with_check))
            if expression is not None
        ]
    )


@Operations.implementation_for(DropPolicyOp)
def _drop(operations: Operations, op: DropPolicyOp) -> None:
    execute(
        operations,
        sql.SQL("DROP POLICY {} ON {}").format(sql.Identifier(op.name), sql.Identifier(op.schema, op.table)),
    )


@renderers.dispatch_for(EnableRowLevelSecurityOp)
def _render_enable(context: AutogenContext, op: EnableRowLevelSecurityOp) -> str:
    return call(context, "enable_row_level_security", op.table, schema=op.schema)


@renderers.dispatch_for(DisableRowLevelSecurityOp)
def _render_disable(context: AutogenContext, op: DisableRowLevelSecurityOp) -> str:
    return call(context, "disable_row_level_security", op.table, schema=op.schema)


def _said(op: CreatePolicyOp) -> dict[str, object]:
    return given(
        using=op.using,
        with_check=op.with_check,
        command=op.command,
        roles=op.roles,
        restrictive=op.restrictive or None,
    )


@renderers.dispatch_for(CreatePolicyOp)
def _render_create(context: AutogenContext, op: CreatePolicyOp) -> str:
    return call(context, "create_policy", op.name, op.table, **_said(op), schema=op.schema)


@renderers.dispatch_for(AlterPolicyOp)
def _render_alter(context: AutogenContext, op: AlterPolicyOp) -> str:
    policy = op.policy
    return call(
        context, "alter_policy", policy.name, policy.table, **_said(policy), schema=policy.schema, was=_said(op.was)
    )


@renderers.dispatch_for(DropPolicyOp)
def _render_drop(context: AutogenContext, op: DropPolicyOp) -> str:
    return call(context, "drop_policy", op.name, op.table, schema=op.schema)
