"""USAGE on the schema of the app's tables: without it, no privilege on a table or view counts.

Only missing privileges are reported: the schema is the app's, and others may use it too.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic.operations import MigrateOperation

from federation import roles
from federation.drift.finding import Finding
from federation.drift.survey import Survey
from federation.operations.deployment import LINK, SERVICE, LinkRole, Role
from federation.operations.grants import GrantOp

_MAY_GRANT = sa.text("SELECT has_schema_privilege(:schema, 'USAGE WITH GRANT OPTION')")


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Grant USAGE to each role that has a declared privilege and cannot use the schema.

    Where the owner of the database may not grant it, that is a finding: an administrator has to.
    """
    schema = survey.config.tables.schema_
    needed = {role.name(survey.config) if isinstance(role, LinkRole) else role: role for role in _roles(survey)}
    missing = roles.without_usage(survey.connection, schema, needed)
    if not missing or not survey.declared.tables:
        return
    if survey.connection.scalar(_MAY_GRANT, {"schema": schema}):
        yield GrantOp(("USAGE",), schema, tuple(needed[name] for name in missing), "SCHEMA")
        return
    quote = survey.connection.dialect.identifier_preparer.quote
    for name in missing:
        statement = f"an administrator runs GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(name)}"
        yield Finding("schema", schema, f"cannot be used by {name}", statement)


def _roles(survey: Survey) -> tuple[Role, ...]:
    """Return the roles that need USAGE: those with a declared privilege, at the hospital the link roles too."""
    tables = survey.config.tables
    if survey.side == "cloud":
        return tuple(role for role, privileges in (tables.view_grants or {}).items() if privileges)
    return () if tables.link_grants is None else (LINK, SERVICE, *survey.config.roles.callers)
