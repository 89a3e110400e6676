"""What must be there before the first statement of a chain: roles, memberships, privileges, the extension.

Everything missing is named at once, with the command by which an administrator makes it.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from federation import roles
from federation.config import Config
from federation.errors import PreconditionMissing, Side


def require(connection: Connection, config: Config, side: Side) -> None:
    """Raise PreconditionMissing unless the owner can run the chain of ``side``. Reads only."""
    missing = list(_missing(connection, config, side))
    connection.rollback()
    if missing:
        raise PreconditionMissing(
            f"{'; '.join(missing)}", side=side, hint=f"an administrator runs `federation bootstrap {side}`"
        )


def _missing(connection: Connection, config: Config, side: Side) -> Iterator[str]:
    if not connection.scalar(sa.text("SELECT has_database_privilege(current_database(), 'CREATE')")):
        yield "the owner may not create schemas in this database"
    if not connection.scalar(
        sa.text(
            "SELECT coalesce(has_schema_privilege(n, 'USAGE') AND has_schema_privilege(n, 'CREATE'), false) "
            "FROM (SELECT to_regnamespace(:schema)) AS s (n)"
        ),
        {"schema": config.tables.schema_},
    ):
        yield f"the owner may not create in schema {config.tables.schema_}"
    if side == "local":
        config.site()
        needed = [config.link.user, config.link.service_user, *config.roles.callers]
    else:
        config.site()
        config.link_address()
        for login in ("link", "service"):
            config.link_login(login)
        needed = [config.roles.sender, *config.roles.callers, *config.roles.bypass]
    found = set(
        connection.scalars(sa.text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:names)"), {"names": needed})
    )
    for name in needed:
        if name not in found:
            yield f"role {name} does not exist"
    yield from (_missing_locally if side == "local" else _missing_in_cloud)(connection, config, found)
    yield from (str(fault) for fault in roles.faults(connection, config, side) if fault.refused)


def _missing_locally(connection: Connection, config: Config, found: set[str]) -> Iterator[str]:
    schema = config.tables.schema_
    yield from (
        f"role {name} may not use schema {schema}" for name in roles.without_usage(connection, schema, sorted(found))
    )
    for caller in config.roles.callers:
        if {caller, config.link.user} <= found and not _may_become(connection, config.link.user, caller):
            yield f"link role {config.link.user} may not SET ROLE {caller}"


def _missing_in_cloud(connection: Connection, config: Config, found: set[str]) -> Iterator[str]:
    wrapper = connection.scalar(
        sa.text(
            "SELECT has_foreign_data_wrapper_privilege(fdwname, 'USAGE') "
            "FROM pg_foreign_data_wrapper WHERE fdwname = 'postgres_fdw'"
        )
    )
    if wrapper is None:
        yield "extension postgres_fdw is not installed"
    elif not wrapper:
        yield "the owner has no USAGE on foreign data wrapper postgres_fdw"
    sender = config.roles.sender
    if sender in found and not _may_become(connection, None, sender):
        yield f"the owner may not SET ROLE {sender}"


def _may_become(connection: Connection, member: str | None, role: str) -> bool:
    """Whether ``member`` (None: the current role) may SET ROLE ``role``.

    Before PostgreSQL 16 membership is all there is; from then on a role's creator is a member who may not SET it.
    """
    version = int(connection.scalar(sa.text("SHOW server_version_num")))
    statement = sa.text("SELECT pg_has_role(coalesce(CAST(:member AS name), current_user), :role, :privilege)")
    privilege = "SET" if version >= 160000 else "MEMBER"
    return bool(connection.scalar(statement, {"member": member, "role": role, "privilege": privilege}))
