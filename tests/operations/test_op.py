"""``from federation import op``: what editors and mypy are told is what there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import alembic.op
import pytest
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation
from write_stub import STUB, docstring, operation_methods, stub

from federation import op

METHODS = operation_methods()


def test_the_stub_is_what_the_operations_say() -> None:
    assert STUB.read_text(encoding="utf-8") == stub(), "python tests/operations/write_stub.py writes it"


@pytest.mark.parametrize("name", METHODS)
def test_an_operation_is_on_both_ops_and_is_explained_with_example_and_source(name: str) -> None:
    cls, _ = METHODS[name]
    assert getattr(op, name) is getattr(alembic.op, name)
    text = docstring(cls, name)
    assert f"op.{name}(" in text
    assert "https://www.postgresql.org/docs/" in text or "Source: federation/binding/" in text
    assert issubclass(cls, MigrateOperation)
    assert {"reverse", "to_diff_tuple"} <= set(vars(cls))
    assert callable(renderers.dispatch(cls.__new__(cls)))


def test_alembics_own_operations_are_there_and_nothing_else() -> None:
    assert op.create_table is alembic.op.create_table
    assert {"create_table", "create_rls_view"} <= set(dir(op))
    with pytest.raises(AttributeError):
        op.create_nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_mypy_knows_the_operations_and_sees_a_wrong_argument(tmp_path: Path) -> None:
    right = 'op.create_policy("own rows", "t", using="true", command="SELECT")\nop.drop_table("t")\n'
    wrong = 'op.create_policy("own rows", "t", command="SELEKT")\nop.create_foreign_server("x", fetch_size=10)\n'
    seen = {}
    for name, body in (("right", right), ("wrong", wrong)):
        file = tmp_path / f"{name}.py"
        file.write_text(f"from federation import op\n\n{body}")
        command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", str(file)]
        seen[name] = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "Success" in seen["right"]
    assert "create_policy" in seen["wrong"]
    assert "create_foreign_server" in seen["wrong"]
