"""Each operation's SQL and Python, as files to be read: ``WRITE_GOLDEN=1 pytest tests/operations`` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from operation_cases import CASES, INTO, LINKED, SECRETS, Case, code, executed_offline, offline_sql
from write_stub import operation_methods

from federation.operations.foreign_tables import AlterForeignTableOp, DropForeignTablesOp
from federation.operations.policies import DropPolicyOp
from federation.operations.servers import AlterForeignServerOp
from federation.operations.user_mappings import AlterUserMappingOp

GOLDEN = Path(__file__).parent / "golden"

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def compare(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@each_case
def test_the_sql_of_an_operation_is_its_golden_file(case: Case) -> None:
    compare(f"{case.name}.sql", offline_sql(case.op))


@each_case
def test_the_python_of_an_operation_is_its_golden_file_and_gives_the_same_sql(case: Case) -> None:
    rendered = code(case.op)
    compare(f"{case.name}.py.txt", rendered)
    assert executed_offline(rendered) == offline_sql(case.op)


@each_case
def test_what_undoes_an_operation_can_be_written_too(case: Case) -> None:
    back = case.op.reverse()
    assert executed_offline(code(back)) == offline_sql(back)
    assert offline_sql(back.reverse()) == offline_sql(case.op)


@each_case
def test_no_password_is_in_sql_or_python(case: Case) -> None:
    for secret in SECRETS.values():
        assert secret not in offline_sql(case.op)
        assert secret not in code(case.op)


def test_every_operation_has_a_case() -> None:
    seen = {type(op) for case in CASES for op in (case.op, case.op.reverse())}
    assert {cls for cls, _ in operation_methods().values()} == seen


def test_no_golden_file_is_left_over() -> None:
    assert {file.name.split(".")[0] for file in GOLDEN.iterdir()} == {case.name for case in CASES}


@pytest.mark.parametrize(
    "op",
    [
        AlterForeignServerOp("hospital", set={"fetch_size": "5"}),
        AlterUserMappingOp("public", "hospital", SECRETS),  # type: ignore[arg-type]
        DropPolicyOp("own rows", LINKED),
        DropForeignTablesOp(INTO, (LINKED,)),
    ],
    ids=lambda op: type(op).__name__,
)
def test_what_does_not_know_what_was_cannot_be_reversed(op: AlterForeignServerOp) -> None:
    with pytest.raises(NotImplementedError, match="without"):
        op.reverse()


def test_columns_that_change_their_name_or_become_generated_are_refused() -> None:
    from operation_cases import AMOUNT, LAST, MORE

    for old, new in ((AMOUNT, LAST), (AMOUNT, MORE[-1]._copy(name="amount"))):
        with pytest.raises(ValueError, match="dropp?i?n?g? it and add|dropping and adding"):
            AlterForeignTableOp(LINKED, INTO, alter=((old, new),))
