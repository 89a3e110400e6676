"""What a migration may refer to and not spell out: the deployment's site, address, link roles and passwords."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from alembic.operations import Operations
from psycopg import sql

from federation.config import Config
from federation.operations.run import run_of


@dataclass(frozen=True)
class LinkRole:
    """A link role at the hospital, under whatever name this deployment gives it."""

    login: Literal["link", "service"]

    def __repr__(self) -> str:
        return "LINK" if self.login == "link" else "SERVICE"

    def name(self, config: Config) -> str:
        """Its name at this deployment."""
        return config.link.user if self.login == "link" else config.link.service_user


LINK = LinkRole("link")
"""The link role of callers whom the hospital's policies judge."""
SERVICE = LinkRole("service")
"""The link role of callers who bypass row-level security in the cloud."""

Role: TypeAlias = str | LinkRole
"""A role by its name, ``"public"`` for everyone, ``"current_user"`` for the owner, or LINK or SERVICE."""


def deployment(operations: Operations) -> Config:
    """The configuration of the deployment that is being migrated.

    Raises PreconditionMissing outside the toolkit's environments.
    """
    return run_of(operations.migration_context).config


def role(where: Operations | Config, name: Role) -> sql.Composable:
    """The role as SQL: keywords stay keywords, names are quoted. ``where`` is asked for a link role's name only."""
    if isinstance(name, LinkRole):
        return sql.Identifier(name.name(where if isinstance(where, Config) else deployment(where)))
    if name.lower() in {"public", "current_user"}:
        return sql.SQL(name.upper())
    return sql.Identifier(name)


def roles(where: Operations | Config, names: tuple[Role, ...]) -> sql.Composed:
    """The roles, separated by commas."""
    return sql.SQL(", ").join(role(where, name) for name in names)
