"""Imports go one way: from the command line down to the databases, the configuration and the errors."""

from __future__ import annotations

import ast
from pathlib import Path

import federation

ROOT = Path(federation.__file__).parent

# A room may import from the rooms of lower floors, not from its neighbours.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"demo", "testing"},
    {"administration", "scaffold", "servers"},
    {"check", "lockstep"},
    {"preview", "verification"},
    {"environments"},
    {"plugin"},
    {"drift", "guard", "op"},
    {"operations"},
    {"binding", "roles"},
    {"databases"},
    {"config"},
    {"errors"},
    {"server_text"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def allowed(importer: str, imported: str) -> bool:
    return imported in {importer, "__version__", ""} or FLOOR[importer] < FLOOR[imported]


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
