"""The hospital's policies, compared as the server spells them."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation

from federation.drift.catalog import PolicyFacts
from federation.drift.survey import Survey
from federation.operations.policies import AlterPolicyOp, Command, CreatePolicyOp, DropPolicyOp


def compare(survey: Survey) -> Iterator[MigrateOperation]:
    """Create missing policies, replace those that differ, and drop those that are not declared."""
    schema = survey.config.tables.schema_
    for table in survey.declared.tables:
        declared = survey.declared.policies(table)
        if declared is None:
            continue
        relation = survey.table(table.name)
        there, spelled = relation.policies if relation else {}, survey.spelled[table.name].policies
        for policy in declared:
            found = there.get(policy.name)
            if found is None:
                yield policy
            elif (found.command, found.permissive) != (policy.command, not policy.restrictive):
                # ALTER POLICY can change neither.
                yield DropPolicyOp(policy.name, table.name, schema, _was(found, table.name, schema))
                yield policy
            elif found != spelled[policy.name]:
                yield AlterPolicyOp(policy, _was(found, table.name, schema))
        for name in sorted(set(there) - {policy.name for policy in declared}):
            yield DropPolicyOp(name, table.name, schema, _was(there[name], table.name, schema))


def _was(facts: PolicyFacts, table: str, schema: str) -> CreatePolicyOp:
    command: Command = facts.command  # type: ignore[assignment]
    return CreatePolicyOp(
        facts.name,
        table,
        facts.using,
        facts.with_check,
        command,
        tuple(sorted(facts.roles)),
        schema,
        restrictive=not facts.permissive,
    )
