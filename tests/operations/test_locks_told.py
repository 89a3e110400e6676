"""What the operations tell of the locks of their blocks, which nobody reads from the blocks' text."""

from __future__ import annotations

import pytest
from operation_cases import CASES, CONFIG, Case, offline

from federation.operations.run import run_of
from federation.preview import lock_rules
from federation.preview.locks import StepLocks
from federation.preview.relations import Relations
from federation.preview.statements import told_by
from federation.preview.tokens import statements_of


def sent_and_told(case: Case) -> tuple[list[str], StepLocks]:
    """The statements of an operation, and the locks of a step that knows what the operation tells."""
    with offline(CONFIG) as (operations, written):
        operations.invoke(case.op)
        return statements_of(written.getvalue()), StepLocks(Relations(), told_by(run_of(operations.migration_context)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_locks_of_every_operation_are_known(case: Case) -> None:
    statements, step = sent_and_told(case)
    for statement in statements:
        lock_rules.read(step, statement)
    expected = case.name == "drop_cloud_binding"  # tells the hospital, and takes its own tables away
    assert [statement[:5] for statement in step.unknown] == ["DO $$"] * expected


def test_another_block_than_the_toolkits_own_is_unknown() -> None:
    (case,) = (case for case in CASES if case.name == "replace_rls_view_by_rebuilding")
    statements, step = sent_and_told(case)
    unknown = StepLocks(Relations(), step.told)
    lock_rules.read(step, statements[0])
    lock_rules.read(unknown, statements[0].replace("LOOP", "LOOP DROP TABLE note;", 1))
    assert (step.unknown, len(unknown.unknown)) == ([], 1)


def test_the_same_block_is_unknown_where_nothing_is_told() -> None:
    """The control."""
    (case,) = (case for case in CASES if case.name == "replace_rls_view_by_rebuilding")
    statements, _ = sent_and_told(case)
    step = StepLocks(Relations())
    lock_rules.read(step, statements[0])
    assert len(step.unknown) == 1
