"""docs/secure.md numbers its claims, the tests name those that they hold, and docs/claims.md lists both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deployments import ROOT
from tool import tool

claims = tool("claims")
PAGE = (ROOT / "docs" / "secure.md").read_text()


def test_the_list_of_tests_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "claims.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_each_claim_has_a_number_of_its_own_and_tests() -> None:
    stated = claims.stated(PAGE)
    for kind in ("N", "S"):
        numbers = [number for number in stated if number[0] == kind]
        assert numbers == [f"{kind}{n}" for n in range(1, len(numbers) + 1)]
    tests = claims.marked(ROOT / "tests")
    assert {number for number in stated if number[0] == "S"} <= set(tests)
    assert set(tests) <= set(stated)


def test_what_is_not_promised_comes_first() -> None:
    assert claims.stated(PAGE)[0] == "N1"
    assert PAGE.index("## What is not promised") < PAGE.index("## What holds")


def test_a_mark_is_read_and_a_claim_without_a_test_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_it.py").write_text(
        '@pytest.mark.claim("S1", "N2")\ndef test_both(): ...\n@pytest.mark.pg(">= 16")\ndef test_neither(): ...\n'
    )
    tests = claims.marked(folder)
    assert tests == {"S1": ["tests/test_it.py::test_both"], "N2": ["tests/test_it.py::test_both"]}
    page = claims.appendix(["N2", "S1", "S2"], tests)
    assert page.endswith("| N2 | `tests/test_it.py::test_both` |\n| S1 | `tests/test_it.py::test_both` |\n")
