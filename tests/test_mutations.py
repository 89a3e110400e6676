"""The list of mutations fits the code: `make mutate` tries what it names."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from deployments import ROOT


def listed() -> list[Any]:
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "tools" / "mutate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module
    spec.loader.exec_module(module)
    found: list[Any] = module.mutations()
    return found


@pytest.mark.parametrize("mutation", listed(), ids=lambda mutation: mutation.id)
def test_a_mutation_is_of_the_code_as_it_is(mutation: Any) -> None:
    assert mutation.fits(), f"{mutation.id}: {mutation.file} does not hold its text once"
    assert all((ROOT / test).exists() for test in mutation.tests)
