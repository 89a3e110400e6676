"""Each operation's SQL and Python, as files to be read: ``WRITE_GOLDEN=1 pytest tests/operations`` writes them anew."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation
from operation_cases import (
    AMOUNT,
    CASES,
    INTO,
    LAST,
    LINKED,
    SECRETS,
    VIEW,
    Case,
    autogenerating,
    code,
    executed_offline,
    offline_sql,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine
from write_stub import operation_methods

from federation.operations import LINK
from federation.operations.foreign_tables import AlterForeignTableOp, DropForeignTablesOp
from federation.operations.policies import DropPolicyOp
from federation.operations.rendering import column_type
from federation.operations.servers import AlterForeignServerOp
from federation.operations.statements import type_sql
from federation.operations.user_mappings import AlterUserMappingOp
from federation.operations.views import ReplaceRLSViewOp

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
        AlterUserMappingOp("public", "hospital", LINK),
        DropPolicyOp("own rows", LINKED),
        DropForeignTablesOp(INTO, (LINKED,)),
    ],
    ids=lambda op: type(op).__name__,
)
def test_what_does_not_know_what_was_cannot_be_reversed(op: MigrateOperation) -> None:
    with pytest.raises(NotImplementedError, match="without"):
        op.reverse()


@pytest.mark.parametrize(
    "new", [LAST, sa.Column("amount", AMOUNT.type, sa.Computed("1"))], ids=["another name", "generated"]
)
def test_columns_that_change_their_name_or_become_generated_are_refused(new: sa.Column[Any]) -> None:
    with pytest.raises(ValueError, match=r"dropping and adding|drop it and add it"):
        AlterForeignTableOp(LINKED, INTO, alter=((AMOUNT, new),))


def test_a_view_becomes_no_other_view() -> None:
    with pytest.raises(ValueError, match="drop the one and create the other"):
        ReplaceRLSViewOp(VIEW, replace(VIEW, name="another"))


TYPES: list[TypeEngine[Any]] = [
    sa.Text(collation="C"),
    sa.String(20),
    sa.CHAR(3),
    sa.Numeric(10, 2),
    sa.Double(),
    sa.BigInteger(),
    sa.DateTime(timezone=True),
    sa.Time(timezone=True),
    sa.Interval(),
    sa.Uuid(),
    sa.LargeBinary(),
    sa.ARRAY(sa.Numeric(4, 1)),
    sa.ARRAY(sa.Text(collation="C"), dimensions=2),
    sa.Enum("a", "it's", name="mood", schema='we"ird', create_type=False),
    postgresql.TIMESTAMP(timezone=True, precision=3),
    postgresql.INTERVAL(fields="DAY TO SECOND", precision=2),
    postgresql.BIT(3, varying=True),
    postgresql.JSONB(),
    postgresql.CITEXT(),
    postgresql.TSTZRANGE(),
    postgresql.INET(),
    postgresql.ENUM("a", "%", name="mood", create_type=False),
    postgresql.ARRAY(sa.String(5), dimensions=2),
    postgresql.ARRAY(postgresql.ENUM("a", "\\", name="mood %", create_type=False)),
    postgresql.ARRAY(postgresql.DOMAIN("positive", sa.Integer(), check="VALUE <> ':x'", schema="s")),
    postgresql.DOMAIN("positive", sa.Numeric(5, 1), check="VALUE > 0", not_null=True, create_type=False),
]


@pytest.mark.parametrize("type_", TYPES, ids=repr)
def test_a_type_is_rendered_as_code_that_makes_the_same_type(type_: TypeEngine[Any]) -> None:
    made: dict[str, Any] = {"sa": sa, "postgresql": postgresql}
    exec(f"made = {column_type(autogenerating(), type_)}", made)  # noqa: S102
    assert repr(made["made"]) == repr(type_)
    assert getattr(made["made"], "create_type", None) == getattr(type_, "create_type", None)
    assert type_sql(made["made"]) == type_sql(type_)


def test_an_environments_render_item_and_prefix_are_kept() -> None:
    context = autogenerating(
        alembic_module_prefix="alembic_op.",
        render_item=lambda kind, item, _: "app.Money()" if kind == "type" and isinstance(item, sa.Numeric) else False,
    )
    op = AlterForeignTableOp(LINKED, INTO, add=(AMOUNT,))
    written = renderers.dispatch(op)(context, op)
    assert "sa.Column('amount', app.Money(), nullable=False)" in written
    assert written.startswith("alembic_op.")
