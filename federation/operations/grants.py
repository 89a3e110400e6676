"""GRANT and REVOKE as Alembic operations.

https://www.postgresql.org/docs/current/sql-grant.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql

from federation.operations.deployment import Role, roles
from federation.operations.rendering import call
from federation.operations.statements import execute

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

Privilege: TypeAlias = Literal["SELECT", "INSERT", "UPDATE", "DELETE", "USAGE"]
ObjectKind: TypeAlias = Literal["TABLE", "SCHEMA", "SEQUENCE"]


@Operations.register_operation("grant")
@dataclass(eq=False)
class GrantOp(MigrateOperation):
    """Give privileges on a table (or view), schema or sequence."""

    privileges: tuple[Privilege, ...]
    name: str
    to: tuple[Role, ...]
    kind: ObjectKind = "TABLE"
    schema: str = "public"

    @classmethod
    def grant(
        cls,
        operations: Operations,
        privileges: tuple[Privilege, ...],
        name: str,
        *,
        to: tuple[Role, ...],
        kind: ObjectKind = "TABLE",
        schema: str = "public",
    ) -> None:
        """Grant ``privileges`` on ``name``; ``schema`` is that of a table or sequence.

        Who inserts into a table with a serial column needs USAGE on its sequence; an identity column needs nothing.

            op.grant(("SELECT",), "hospital_patients", to=(LINK,))
            op.grant(("USAGE",), "visits_id_seq", to=(LINK,), kind="SEQUENCE")

        https://www.postgresql.org/docs/current/sql-grant.html
        """
        operations.invoke(cls(privileges, name, to, kind, schema))

    def reverse(self) -> RevokeOp:
        return RevokeOp(self.privileges, self.name, self.to, self.kind, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_grant", self.kind, self.schema, self.name, self.privileges, self.to)


@Operations.register_operation("revoke")
@dataclass(eq=False)
class RevokeOp(MigrateOperation):
    """Take privileges away."""

    privileges: tuple[Privilege, ...]
    name: str
    from_: tuple[Role, ...]
    kind: ObjectKind = "TABLE"
    schema: str = "public"

    @classmethod
    def revoke(
        cls,
        operations: Operations,
        privileges: tuple[Privilege, ...],
        name: str,
        *,
        from_: tuple[Role, ...],
        kind: ObjectKind = "TABLE",
        schema: str = "public",
    ) -> None:
        """Revoke ``privileges`` on ``name``.

        op.revoke(("DELETE",), "hospital_patients", from_=(SERVICE,))

        https://www.postgresql.org/docs/current/sql-revoke.html
        """
        operations.invoke(cls(privileges, name, from_, kind, schema))

    def reverse(self) -> GrantOp:
        return GrantOp(self.privileges, self.name, self.from_, self.kind, self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_grant", self.kind, self.schema, self.name, self.privileges, self.from_)


def target(op: GrantOp | RevokeOp) -> sql.Composed:
    """The privileges and the object, as GRANT and REVOKE both spell them."""
    name = sql.Identifier(op.name) if op.kind == "SCHEMA" else sql.Identifier(op.schema, op.name)
    privileges = sql.SQL(", ").join(sql.SQL(privilege) for privilege in op.privileges)
    return sql.SQL("{} ON {} {}").format(privileges, sql.SQL(op.kind), name)


@Operations.implementation_for(GrantOp)
def _grant(operations: Operations, op: GrantOp) -> None:
    execute(operations, sql.SQL("GRANT {} TO {}").format(target(op), roles(operations, op.to)))


@Operations.implementation_for(RevokeOp)
def _revoke(operations: Operations, op: RevokeOp) -> None:
    execute(operations, sql.SQL("REVOKE {} FROM {}").format(target(op), roles(operations, op.from_)))


def _where(op: GrantOp | RevokeOp) -> dict[str, object]:
    where: dict[str, object] = {} if op.kind == "TABLE" else {"kind": op.kind}
    return where if op.kind == "SCHEMA" else where | {"schema": op.schema}


@renderers.dispatch_for(GrantOp)
def _render_grant(context: AutogenContext, op: GrantOp) -> str:
    return call(context, "grant", op.privileges, op.name, to=op.to, **_where(op))


@renderers.dispatch_for(RevokeOp)
def _render_revoke(context: AutogenContext, op: RevokeOp) -> str:
    return call(context, "revoke", op.privileges, op.name, from_=op.from_, **_where(op))
