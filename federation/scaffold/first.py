"""The release that the others stand on: the binding on both sides and, in the cloud, the way to the hospital.

Nothing of the app's is in it, so that it runs beside an app whose tables are still in the cloud.
"""

from __future__ import annotations

from alembic.operations.ops import DowngradeOps, ExecuteSQLOp, MigrateOperation, UpgradeOps
from psycopg import sql

from federation.config import Config
from federation.errors import Side
from federation.operations.bindings import CreateCloudBindingOp, CreateLocalBindingOp
from federation.operations.deployment import LINK, SERVICE
from federation.operations.servers import CreateForeignServerOp
from federation.operations.user_mappings import CreateUserMappingOp

_BINDING = "v1"


def first(config: Config, side: Side) -> tuple[UpgradeOps, DowngradeOps]:
    """Both ways of the first release of ``side``."""
    link, roles = config.link, config.roles
    made: list[MigrateOperation] = [CreateLocalBindingOp(_BINDING, tuple(roles.callers))]
    schema = None
    if side == "cloud":
        made = [
            CreateForeignServerOp(link.server, dict(link.server_options or {})),
            CreateUserMappingOp("public", link.server, LINK),
            *(CreateUserMappingOp(role, link.server, SERVICE) for role in ("current_user", *roles.bypass)),
            CreateCloudBindingOp(_BINDING, link.server, (*roles.callers, *roles.bypass)),
        ]
        schema = sql.Identifier(config.tables.link_schema).as_string(None)
    up, down = UpgradeOps(ops=made), DowngradeOps(ops=[op.reverse() for op in reversed(made)])
    if schema is not None:
        up.ops.append(ExecuteSQLOp(f"CREATE SCHEMA {schema}"))
        down.ops.insert(0, ExecuteSQLOp(f"DROP SCHEMA {schema}"))
    return up, down
