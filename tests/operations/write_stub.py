"""Writes federation/op.pyi from the operations' classmethods: ``python tests/operations/write_stub.py``."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from alembic.operations import MigrateOperation

from federation import operations

STUB = Path(operations.__file__).parent.parent / "op.pyi"

HEAD = '''"""Everything of ``alembic.op``, and federation's operations with their types.

Written by ``python tests/operations/write_stub.py``: not to be edited.
"""
'''


def modules() -> list[ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(operations.__path__))
    return [importlib.import_module(f"{operations.__name__}.{name}") for name in names]


def operation_methods() -> dict[str, tuple[type[MigrateOperation], ModuleType]]:
    """Every operation's name in a migration, its class and its module."""
    found = {}
    for module in modules():
        for cls in vars(module).values():
            if isinstance(cls, type) and issubclass(cls, MigrateOperation) and cls.__module__ == module.__name__:
                (name,) = (name for name, member in vars(cls).items() if isinstance(member, classmethod))
                found[name] = (cls, module)
    return dict(sorted(found.items()))


def docstring(cls: type[MigrateOperation], name: str) -> str:
    """As it is written: registering it has put Alembic's own in its place."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
    raise LookupError(name)


def imported(module: ModuleType) -> dict[str, str]:
    """The names that a module imports, and from where."""
    return {
        alias.name: node.module
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def names_in(annotation: str) -> set[str]:
    names = {node.id for node in ast.walk(ast.parse(annotation, mode="eval")) if isinstance(node, ast.Name)}
    return {name for name in names if not hasattr(builtins, name)}


def parameters_of(signature: inspect.Signature) -> Iterator[str]:
    """One a line, ``cls`` and ``operations`` left out."""
    starred = False
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or parameter.kind in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL}
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}".replace("'", '"')
        yield f"{stars}{parameter.name}: {parameter.annotation}{default}"


def import_lines(needed: dict[str, set[str]]) -> str:
    """In three groups, as ruff sorts them."""
    groups: dict[int, list[str]] = {0: [], 1: ["from alembic.op import *"], 2: []}
    for module, names in sorted(needed.items()):
        package = module.partition(".")[0]
        group = 0 if package in sys.stdlib_module_names else 2 if package == "federation" else 1
        groups[group].append(f"from {module} import {', '.join(sorted(names))}")
    return "\n\n".join("\n".join(lines) for lines in groups.values() if lines)


def stub() -> str:
    needed: dict[str, set[str]] = {}
    functions = []
    for name, (cls, module) in operation_methods().items():
        signature = inspect.signature(getattr(cls, name))
        sources = imported(module)
        for parameter in list(signature.parameters.values())[1:]:
            for used in names_in(parameter.annotation):
                needed.setdefault(sources.get(used, module.__name__), set()).add(used)
        lines = "".join(f"    {line},\n" for line in parameters_of(signature))
        body = textwrap.indent(f'"""{docstring(cls, name)}\n"""', "    ")
        functions.append(f"def {name}(\n{lines}) -> {signature.return_annotation}:\n{body}\n")
    return f"{HEAD}\n{import_lines(needed)}\n\n" + "\n".join(functions)


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
