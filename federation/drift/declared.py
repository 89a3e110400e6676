"""What federation.toml and the declared tables say there should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Column, MetaData, Table
from sqlalchemy.dialects import postgresql

from federation.config import Config
from federation.errors import PreconditionMissing
from federation.operations.deployment import LINK, SERVICE, LinkRole, Role
from federation.operations.grants import Privilege
from federation.operations.policies import CreatePolicyOp
from federation.operations.statements import expression, key
from federation.operations.views import RLSView

_LINK_ROLES: Mapping[str, LinkRole] = {"@link": LINK, "@service": SERVICE}


@dataclass(frozen=True)
class Declared:
    """The declarations of one deployment, in the terms of the operations."""

    config: Config
    metadata: MetaData

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The exported tables, those that others refer to first.

        Raises PreconditionMissing when federation.toml exports a table that the metadata does not declare, or declares
        in another schema.
        """
        exported, schema = self.config.tables.exported, self.config.tables.schema_
        named = {table.name: table for table in self.metadata.sorted_tables if table.name in exported}
        found = tuple(
            table
            for table in self.metadata.sorted_tables
            if table.name in exported and (table.schema or "public") == schema
        )
        missing = sorted(set(exported) - {table.name for table in found})
        if missing and self.config.tables.metadata is not None:
            elsewhere = [name for name in missing if name in named]
            if elsewhere:
                raise PreconditionMissing(
                    f"{self.config.tables.metadata} declares {', '.join(elsewhere)} in schema "
                    f"{named[elsewhere[0]].schema or 'public'}, and tables.schema of federation.toml is {schema}",
                    hint=f'declare them in that schema (MetaData(schema="{schema}")), or change tables.schema',
                )
            raise PreconditionMissing(
                f"federation.toml exports {', '.join(missing)}, which {self.config.tables.metadata} does not declare",
                hint="declare the table, or take it off tables.exported",
            )
        return found

    def view(self, table: Table) -> RLSView:
        """The cloud's view of ``table``; its defaults are the table's, which do not fire over the link."""
        tables = self.config.tables
        return RLSView(
            table.name,
            tuple(column.name for column in table.columns),
            tables.predicate,
            defaults={
                column.name: default for column in table.columns if (default := server_default(column)) is not None
            },
            grants=cast("Mapping[Role, tuple[Privilege, ...]]", tables.view_grants or {}),
            comment=(tables.comments or {}).get(table.name),
            schema=tables.schema_,
            source_schema=tables.link_schema,
        )

    def policies(self, table: Table) -> tuple[CreatePolicyOp, ...] | None:
        """The hospital's policies of ``table``; None when policies are not managed."""
        if self.config.tables.policies is None:
            return None
        return tuple(
            CreatePolicyOp(
                policy.name,
                table.name,
                policy.using,
                policy.with_check,
                policy.command,
                tuple(_LINK_ROLES.get(name, name) for name in policy.roles),
                self.config.tables.schema_,
                policy.restrictive,
            )
            for policy in self.config.tables.policies
            if policy.tables is None or table.name in policy.tables
        )

    @property
    def view_roles(self) -> tuple[str, ...]:
        """The cloud roles whose privileges are managed, PUBLIC among them: those not in view_grants have none."""
        roles, grants = self.config.roles, self.config.tables.view_grants or {}
        return tuple(sorted({"public", *roles.callers, *roles.bypass, *roles.denied, *grants}))

    @property
    def link_grants(self) -> Mapping[Role, tuple[Privilege, ...]] | None:
        """Privileges on the local tables by link role and caller; None when they are not managed."""
        grants = self.config.tables.link_grants
        return None if grants is None else {_LINK_ROLES.get(name, name): held for name, held in grants.items()}

    @cached_property
    def types(self) -> tuple[sa.Enum | postgresql.DOMAIN, ...]:
        """Enums and domains of exported columns: both databases need them before the tables."""
        found: dict[tuple[str | None, str], sa.Enum | postgresql.DOMAIN] = {}
        for table in self.tables:
            for column in table.columns:
                for type_ in named_types(column.type):
                    found.setdefault(key(type_), type_)
        return tuple(found.values())


def server_default(column: Column[Any]) -> str | None:
    """A column's default as SQL; None without one, and for a generated column."""
    default = column.server_default
    if not isinstance(default, sa.DefaultClause):
        return None
    if isinstance(default.arg, str):
        return "'" + default.arg.replace("'", "''") + "'"
    return expression(default.arg).as_string(None)


def named_types(type_: sa.types.TypeEngine[Any]) -> Sequence[sa.Enum | postgresql.DOMAIN]:
    """The enums and domains that a column of ``type_`` needs, what others are made of first."""
    if isinstance(type_, sa.ARRAY):
        return named_types(type_.item_type)
    if isinstance(type_, postgresql.DOMAIN):
        return [*named_types(type_.data_type), type_]
    if isinstance(type_, sa.Enum) and type_.native_enum and type_.name is not None:
        return [type_]
    return []
