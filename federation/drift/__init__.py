"""What the two databases are, against what the declared tables and federation.toml say: Alembic's autogenerate.

The comparators run in ``alembic … check``, ``alembic … revision --autogenerate`` and ``federation check`` alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.operations.ops import UpgradeOps
from alembic.util import DispatchPriority, PriorityDispatchResult

from federation.drift.columns import compare_server_default, compare_type
from federation.drift.compare import COMPARATORS, types
from federation.drift.declared import Declared
from federation.drift.survey import survey, survey_of
from federation.operations.run import found
from federation.operations.statements import key

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.runtime.plugins import Plugin


def setup(plugin: Plugin) -> None:
    """Register with Alembic; what is not one of federation's environments is left alone."""
    plugin.add_autogenerate_comparator(_before_tables, "schema", priority=DispatchPriority.FIRST)
    plugin.add_autogenerate_comparator(compare_type, "column", "types", priority=DispatchPriority.FIRST)
    plugin.add_autogenerate_comparator(
        compare_server_default, "column", "server_default", priority=DispatchPriority.FIRST
    )
    plugin.add_autogenerate_comparator(_after_tables, "schema", priority=DispatchPriority.LAST)


def _before_tables(context: AutogenContext, upgrade_ops: UpgradeOps, _schemas: object) -> PriorityDispatchResult:
    """Survey the database, and create types before Alembic's own comparators create tables."""
    run = found(context.migration_context)
    if run is not None and context.connection is not None:
        declared = Declared(run.config, run.metadata)
        run.survey = surveyed = survey(context.connection, run.side, declared, ask_hospital=run.ask_hospital)
        run.created_types = frozenset(map(key, declared.types))
        upgrade_ops.ops.extend(types.compare(surveyed))
    return PriorityDispatchResult.CONTINUE


def _after_tables(context: AutogenContext, upgrade_ops: UpgradeOps, _schemas: object) -> PriorityDispatchResult:
    surveyed = survey_of(context)
    if surveyed is not None:
        for compare in COMPARATORS[surveyed.side]:
            upgrade_ops.ops.extend(compare(surveyed))
    return PriorityDispatchResult.CONTINUE
