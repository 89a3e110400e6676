"""Write docs/claims.md: which tests hold each claim of docs/secure.md. ``--check`` compares only.

A test names the claims that it holds: ``@pytest.mark.claim("S1")``. The page numbers them: N for what is not promised,
S for what holds.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """\
# The tests of each claim

Written by `tools/claims.py` from the tests' own marks, `@pytest.mark.claim(…)`. The claims are those of
[secure](secure.md). A claim without a test is an N: nothing is promised there that a test could show.

| claim | tests |
|---|---|
"""


def stated(page: str) -> list[str]:
    """Return the numbers of the claims that the page makes, in its order."""
    return re.findall(r"^(?:- \*\*|\*\*|\| )([NS]\d+)\b", page, re.MULTILINE)


def marked(folder: Path) -> dict[str, list[str]]:
    """Return the tests of each claim, as pytest names them, from the marks in the files of ``folder``."""
    tests: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                for claim in _claims(node):
                    tests.setdefault(claim, []).append(f"{file.relative_to(folder.parent).as_posix()}::{node.name}")
    return tests


def _claims(function: ast.FunctionDef) -> list[str]:
    """Return the arguments of the function's mark, if it has one."""
    return [
        argument.value
        for mark in function.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim"
        for argument in mark.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def appendix(claims: list[str], tests: dict[str, list[str]]) -> str:
    """Return the page that lists the tests of each claim."""
    rows = (f"| {claim} | {', '.join(f'`{test}`' for test in tests[claim])} |\n" for claim in claims if claim in tests)
    return HEAD + "".join(rows)


def main() -> None:
    """Write the page, or with ``--check`` exit with 1 if it is stale."""
    page = ROOT / "docs" / "claims.md"
    fresh = appendix(stated((ROOT / "docs" / "secure.md").read_text()), marked(ROOT / "tests"))
    if "--check" in sys.argv[1:]:
        sys.exit(None if page.read_text() == fresh else f"{page} is stale; run python tools/claims.py")
    page.write_text(fresh)


if __name__ == "__main__":
    main()
