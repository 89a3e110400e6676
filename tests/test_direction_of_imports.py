"""Imports go one way: cli -> lockstep, drift, scaffold -> environments -> guard, operations, binding."""

from __future__ import annotations

import ast
from pathlib import Path

import federation

ROOT = Path(federation.__file__).parent

# A room may import from rooms to its right in its row, and from those that every room may use.
ROWS = (
    ("cli", "demo", "administration", "lockstep", "environments", "operations", "binding"),
    ("cli", "demo", "administration", "lockstep", "environments", "guard"),
    ("cli", "scaffold", "drift", "environments", "operations", "binding"),
    ("administration", "drift", "guard"),
    ("scaffold", "lockstep"),
    ("demo", "servers"),
    ("testing", "administration", "lockstep", "environments", "guard"),
    ("testing", "drift"),
    ("testing", "servers"),
    ("__main__", "cli"),
    ("op", "operations"),
    ("environments", "plugin"),
    ("plugin", "drift", "operations"),
)
EVERYONES = {"config", "errors", "databases", "roles", "server_text"}


def allowed(importer: str, imported: str) -> bool:
    if imported in {importer, "__version__", ""} | EVERYONES:
        return True
    return any(importer in row and imported in row and row.index(importer) < row.index(imported) for row in ROWS)


def imports(file: Path) -> set[str]:
    """The rooms that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = (
            [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.module
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        for name in names:
            package, _, rest = name.partition(".")
            if package == "federation":
                found.add(rest.split(".")[0])
            assert package != "versions", f"{file}: the toolkit does not know the app"
    return found


def room(file: Path) -> str:
    relative = file.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def test_every_import_goes_in_the_direction_of_the_design() -> None:
    wrong = [
        f"{file.relative_to(ROOT.parent)} imports {imported}"
        for file in ROOT.rglob("*.py")
        for imported in imports(file)
        if not allowed(room(file), imported)
    ]
    assert wrong == []


def test_a_wrong_direction_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from federation.lockstep import upgrade\n")
    assert imports(file) == {"lockstep"}
    assert not allowed("operations", "lockstep")
    assert not allowed("guard", "environments")
    assert not allowed("operations", "guard")
    assert allowed("cli", "lockstep")
