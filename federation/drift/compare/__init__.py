"""The comparators, one concern a file: each yields the operations that would turn what is there into what is declared.

Their order is the order in which a release can run: what others stand on first, what goes away last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from alembic.operations import MigrateOperation

from federation.drift.compare import (
    binding,
    bypasses,
    copies,
    foreign_tables,
    generated,
    grants,
    hospital,
    policies,
    privileges,
    readers,
    removed_columns,
    roles,
    row_security,
    schema_usage,
    serial,
    servers,
    site_checks,
    statistics,
    types,
    user_mappings,
    views,
)
from federation.drift.survey import Survey
from federation.errors import Side

Comparator: TypeAlias = Callable[[Survey], Iterator[MigrateOperation]]

COMPARATORS: dict[Side, tuple[Comparator, ...]] = {
    "local": (
        schema_usage.compare,
        row_security.compare,
        site_checks.compare,
        policies.compare,
        grants.compare_local,
        serial.compare,
        generated.compare,
        binding.compare,
        privileges.compare,
        roles.compare,
    ),
    "cloud": (
        servers.compare,
        user_mappings.compare,
        foreign_tables.compare,
        schema_usage.compare,
        views.compare,
        removed_columns.compare,
        statistics.compare,
        grants.compare_cloud,
        hospital.compare,
        copies.compare,
        binding.compare,
        privileges.compare,
        bypasses.compare,
        readers.compare,
        roles.compare,
    ),
}

__all__ = ["COMPARATORS", "types"]
