"""Privileges: of the link roles on the local tables, of the API roles on the cloud's views and foreign tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from alembic.operations import MigrateOperation

from federation.drift.catalog import Relation
from federation.drift.survey import Survey
from federation.operations.deployment import LinkRole, Role
from federation.operations.grants import GrantOp, Privilege, RevokeOp


def compare_local(survey: Survey) -> Iterator[MigrateOperation]:
    """The link roles have on each exported table what is declared, and nothing else, not as part of PUBLIC either.

    Other roles are not managed.
    """
    grants = survey.declared.link_grants
    if grants is None:
        return
    expected = {
        role.name(survey.config) if isinstance(role, LinkRole) else role: (role, privileges)
        for role, privileges in grants.items()
    }
    expected["public"] = ("public", ())
    for table in survey.declared.tables:
        yield from _differences(survey.table(table.name), table.name, survey.config.tables.schema_, expected)


def compare_cloud(survey: Survey) -> Iterator[MigrateOperation]:
    """The API roles and PUBLIC have on view and foreign table what is declared: those not named, nothing."""
    config = survey.config
    grants = config.tables.view_grants
    if grants is None:
        return
    expected: dict[str, tuple[Role, tuple[Privilege, ...]]] = {
        name: (name, grants.get(name, ())) for name in survey.declared.view_roles
    }
    for table in survey.declared.tables:
        for schema in (config.tables.schema_, config.tables.link_schema):
            there = survey.relations.get((schema, table.name))
            if there is not None and there.kind in {"v", "f"}:  # a missing one is created with its grants
                yield from _differences(there, table.name, schema, expected)


def _differences(
    there: Relation | None, table: str, schema: str, expected: Mapping[str, tuple[Role, tuple[Privilege, ...]]]
) -> Iterator[MigrateOperation]:
    for name, (role, privileges) in expected.items():
        held = there.grants.get(name, frozenset()) if there is not None else frozenset()
        on_columns = there.column_grants.get(name, frozenset()) if there is not None else frozenset()
        missing = tuple(privilege for privilege in privileges if privilege not in held)
        surplus = tuple(sorted((held | on_columns) - set(privileges)))
        if missing:
            yield GrantOp(missing, table, (role,), "TABLE", schema)
        if surplus:
            yield RevokeOp(cast("tuple[Privilege, ...]", surplus), table, (role,), "TABLE", schema)
