"""Enums and domains as Alembic operations: IMPORT fails on a type that the cloud does not have.

Alembic makes a type with the first table that has a column of it, and a foreign table is no such table. In both
chains the same declaration is used, so that the hospital's type and the cloud's are of one text.

https://www.postgresql.org/docs/current/sql-createtype.html
https://www.postgresql.org/docs/current/sql-createdomain.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from psycopg import sql
from sqlalchemy.dialects import postgresql

from federation.operations.rendering import call, given
from federation.operations.statements import execute, expression, type_sql

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

NamedType: TypeAlias = sa.Enum | postgresql.DOMAIN
"""A type of the database's own: ``sa.Enum`` (or ``postgresql.ENUM``) with a name, or ``postgresql.DOMAIN``."""


@Operations.register_operation("create_type")
@dataclass(eq=False)
class CreateTypeOp(MigrateOperation):
    """Create an enum or a domain."""

    type_: NamedType

    @classmethod
    def create_type(cls, operations: Operations, type_: NamedType) -> None:
        """Create the enum or domain ``type_``; refused when something of that name is in the way.

            op.create_type(sa.Enum("pending", "done", name="queue_status", schema="public", create_type=False))

        https://www.postgresql.org/docs/current/sql-createtype.html
        https://www.postgresql.org/docs/current/sql-createdomain.html
        """
        operations.invoke(cls(type_))

    def reverse(self) -> DropTypeOp:
        return DropTypeOp(self.type_)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_type", self.type_.schema, self.type_.name)


@Operations.register_operation("drop_type")
@dataclass(eq=False)
class DropTypeOp(MigrateOperation):
    """Drop an enum or a domain."""

    type_: NamedType

    @classmethod
    def drop_type(cls, operations: Operations, type_: NamedType) -> None:
        """Drop the enum or domain ``type_``; PostgreSQL refuses while a column is of it.

            op.drop_type(sa.Enum("pending", "done", name="queue_status", schema="public", create_type=False))

        https://www.postgresql.org/docs/current/sql-droptype.html
        https://www.postgresql.org/docs/current/sql-dropdomain.html
        """
        operations.invoke(cls(type_))

    def reverse(self) -> CreateTypeOp:
        return CreateTypeOp(self.type_)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("remove_type", self.type_.schema, self.type_.name)


@Operations.register_operation("add_enum_value")
@dataclass(eq=False)
class AddEnumValueOp(MigrateOperation):
    """Add a label to an enum."""

    type_name: str
    value: str
    schema: str | None = None
    before: str | None = None
    after: str | None = None

    @classmethod
    def add_enum_value(
        cls,
        operations: Operations,
        type_name: str,
        value: str,
        *,
        schema: str | None = None,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        """Add the label ``value`` to an enum, beside another one or at the end; one that is there stays where it is.

        Rows, defaults and policies of the same release cannot use it: PostgreSQL wants it committed first.

            op.add_enum_value("queue_status", "postponed", schema="public", after="pending")

        https://www.postgresql.org/docs/current/sql-altertype.html
        """
        operations.invoke(cls(type_name, value, schema, before, after))

    def reverse(self) -> KeepEnumValueOp:
        return KeepEnumValueOp(self.type_name, self.value, self.schema, self.before, self.after)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("add_enum_value", self.schema, self.type_name, (self.value,))


@Operations.register_operation("keep_enum_value")
@dataclass(eq=False)
class KeepEnumValueOp(MigrateOperation):
    """Leave a label that a release has added: PostgreSQL drops none, and an unused one does no harm."""

    type_name: str
    value: str
    schema: str | None = None
    before: str | None = None
    after: str | None = None

    @classmethod
    def keep_enum_value(
        cls,
        operations: Operations,
        type_name: str,
        value: str,
        *,
        schema: str | None = None,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        """Do nothing: the way down of ``op.add_enum_value``, since PostgreSQL cannot drop a label.

        It goes with its type. Until then it is unused, and the next way up finds it there.

            op.keep_enum_value("queue_status", "postponed", schema="public", after="pending")

        https://www.postgresql.org/docs/current/sql-altertype.html
        """
        operations.invoke(cls(type_name, value, schema, before, after))

    def reverse(self) -> AddEnumValueOp:
        return AddEnumValueOp(self.type_name, self.value, self.schema, self.before, self.after)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("keep_enum_value", self.schema, self.type_name, (self.value,))


def _name(type_: NamedType) -> sql.Identifier:
    if type_.name is None or (isinstance(type_, sa.Enum) and not type_.native_enum):
        raise ValueError(f"{type_!r} is no type of the database's own: an enum needs a name and native_enum")
    return sql.Identifier(*(part for part in (type_.schema, str(type_.name)) if part))


@Operations.implementation_for(CreateTypeOp)
def _create(operations: Operations, op: CreateTypeOp) -> None:
    name = _name(op.type_)
    if isinstance(op.type_, postgresql.DOMAIN):
        execute(operations, _create_domain(name, op.type_))
        return
    # Not SQLAlchemy's CreateEnumType: without a connection it doubles backslashes in the values.
    values = sql.SQL(", ").join(map(sql.Literal, op.type_.enums))
    execute(operations, sql.SQL("CREATE TYPE {} AS ENUM ({})").format(name, values))


def _create_domain(name: sql.Identifier, domain: postgresql.DOMAIN) -> sql.Composed:
    parts: list[sql.Composable] = [sql.SQL("CREATE DOMAIN {} AS {}").format(name, type_sql(domain.data_type))]
    if domain.collation is not None:
        collation = (part for part in (domain.collation_schema, domain.collation) if part)
        parts.append(sql.SQL("COLLATE {}").format(sql.Identifier(*collation)))
    if domain.default is not None:  # as SQLAlchemy has it: a string is a value, text() is SQL
        default = sql.Literal(domain.default) if isinstance(domain.default, str) else expression(domain.default)
        parts.append(sql.SQL("DEFAULT {}").format(default))
    if domain.not_null:
        parts.append(sql.SQL("NOT NULL"))
    if domain.check is not None:
        if domain.constraint_name is not None:
            parts.append(sql.SQL("CONSTRAINT {}").format(sql.Identifier(domain.constraint_name)))
        parts.append(sql.SQL("CHECK ({})").format(expression(domain.check)))
    return sql.Composed(parts).join(" ")


@Operations.implementation_for(DropTypeOp)
def _drop(operations: Operations, op: DropTypeOp) -> None:
    kind = "DOMAIN" if isinstance(op.type_, postgresql.DOMAIN) else "TYPE"
    execute(operations, sql.SQL("DROP {} {}").format(sql.SQL(kind), _name(op.type_)))


@Operations.implementation_for(AddEnumValueOp)
def _add_value(operations: Operations, op: AddEnumValueOp) -> None:
    name = sql.Identifier(*(part for part in (op.schema, op.type_name) if part))
    parts = [sql.SQL("ALTER TYPE {} ADD VALUE IF NOT EXISTS {}").format(name, sql.Literal(op.value))]
    if op.before is not None:
        parts.append(sql.SQL("BEFORE {}").format(sql.Literal(op.before)))
    elif op.after is not None:
        parts.append(sql.SQL("AFTER {}").format(sql.Literal(op.after)))
    execute(operations, sql.Composed(parts).join(" "))


@Operations.implementation_for(KeepEnumValueOp)
def _keep_value(_operations: Operations, _op: KeepEnumValueOp) -> None:
    """The label stays."""


@renderers.dispatch_for(CreateTypeOp)
def _render_create(context: AutogenContext, op: CreateTypeOp) -> str:
    return call(context, "create_type", op.type_)


@renderers.dispatch_for(DropTypeOp)
def _render_drop(context: AutogenContext, op: DropTypeOp) -> str:
    return call(context, "drop_type", op.type_)


@renderers.dispatch_for(AddEnumValueOp)
def _render_add_value(context: AutogenContext, op: AddEnumValueOp) -> str:
    where = given(schema=op.schema, before=op.before, after=op.after)
    return call(context, "add_enum_value", op.type_name, op.value, **where)


@renderers.dispatch_for(KeepEnumValueOp)
def _render_keep_value(context: AutogenContext, op: KeepEnumValueOp) -> str:
    where = given(schema=op.schema, before=op.before, after=op.after)
    return call(context, "keep_enum_value", op.type_name, op.value, **where)
