"""The Alembic operations for what Alembic does not know: servers, mappings, imports, policies, grants, RLS views.

Importing this package registers them on ``alembic.op``; each module holds one kind of object.
"""

from federation.operations import (
    bindings,
    foreign_tables,
    grants,
    indexes,
    locking,
    policies,
    servers,
    types,
    user_mappings,
    views,
)
from federation.operations.deployment import LINK, SERVICE

__all__ = [
    "LINK",
    "SERVICE",
    "bindings",
    "foreign_tables",
    "grants",
    "indexes",
    "locking",
    "policies",
    "servers",
    "types",
    "user_mappings",
    "views",
]
