"""Operations as Python: what autogenerate writes into a migration runs there, its imports included."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from alembic.autogenerate.render import renderers
from alembic.operations import ops
from sqlalchemy import ARRAY, Column, Computed, DefaultClause, Enum, Identity, Integer, TextClause, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.types import TypeEngine

from federation.operations.deployment import LinkRole
from federation.operations.run import found
from federation.operations.statements import as_text, escaped, is_serial, key

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

WIDTH = 100
"""Columns that a rendered line may fill before it is broken; a migration indents it by four more."""


def call(context: AutogenContext, name: str, *arguments: object, **keywords: object) -> str:
    """``op.name(…)``. A keyword that is no identifier (an option of a server may be one) goes through ``**``."""
    written = [render(context, argument) for argument in arguments]
    written += [f"{key}={render(context, value)}" for key, value in keywords.items() if key.isidentifier()]
    others = {key: value for key, value in keywords.items() if not key.isidentifier()}
    if others:
        written.append(f"**{render(context, others)}")
    prefix = context.opts.get("alembic_module_prefix") or "op."
    return enclose(f"{prefix}{name}(", written, ")")


def given(**keywords: object) -> dict[str, object]:
    """The keywords that say something: not None, not empty."""
    return {key: value for key, value in keywords.items() if value not in (None, (), {}, [])}


def render(context: AutogenContext, value: object) -> str:
    """A value as Python, adding the imports that it needs to the migration's."""
    if isinstance(value, LinkRole):
        context.imports.add(f"from federation.operations import {value!r}")
        return repr(value)
    if isinstance(value, Column):
        return column(context, value)
    if isinstance(value, TypeEngine):
        return column_type(context, value)
    if isinstance(value, Mapping):
        pairs = [f"{render(context, key)}: {render(context, item)}" for key, item in value.items()]
        return enclose("{", pairs, "}")
    if isinstance(value, tuple):
        items = [render(context, item) for item in value]
        return f"({items[0]},)" if len(items) == 1 and "\n" not in items[0] else enclose("(", items, ")")
    if isinstance(value, list):
        return enclose("[", [render(context, item) for item in value], "]")
    if is_dataclass(value) and not isinstance(value, type):
        return declaration(context, value)
    return repr(value)


def declaration(context: AutogenContext, value: Any) -> str:
    """A dataclass of this package (an RLSView), without what is left at its default; a field a line."""
    kind = type(value)
    context.imports.add(f"from {kind.__module__} import {kind.__name__}")
    written = []
    for field in fields(value):
        item = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if default is MISSING:
            written.append(render(context, item))
        elif item != default:
            written.append(f"{field.name}={render(context, item)}")
    return enclose(f"{kind.__name__}(", written, ")", broken=True)


def column(context: AutogenContext, value: Column[Any]) -> str:
    """``sa.Column(…)`` as Alembic's own add_column renders it, ``render_item`` of the environment included.

    What counts of a column here is written: name, type, nullability, and whether it is generated, an identity or
    serial.
    """
    expressions = _Expressions()
    arguments: list[SchemaItem] = []
    if value.computed is not None:
        arguments.append(Computed(expressions.hold(value.computed.sqltext), persisted=value.computed.persisted))
    if value.identity is not None:
        arguments.append(Identity(always=value.identity.always))
    type_ = expressions.held_by(value.type)
    counted: Literal["auto", True] = True if is_serial(value) else "auto"
    op = ops.AddColumnOp("t", Column(value.name, type_, *arguments, nullable=value.nullable, autoincrement=counted))
    rendered = renderers.dispatch(op)(context, op)
    code = expressions.put_back(_argument(rendered if isinstance(rendered, str) else rendered[0], 1))
    if isinstance(value.type, ARRAY):
        array = _argument(code, 1)
        of_items = array.replace(_argument(array, 0), column_type(context, value.type.item_type), 1)
        code = code.replace(array, of_items, 1)
    return code


def column_type(context: AutogenContext, value: TypeEngine[Any]) -> str:
    """A type as Alembic's own add_column renders it."""
    return _argument(column(context, Column("c", value)), 1)


class _Expressions:
    """Expressions kept out of Alembic's hands while it renders: compiling makes NULL of a ``:x`` and ``%%`` of a %."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def hold(self, clause: ClauseElement | str) -> str:
        """What stands for ``clause``."""
        name = f"federation_expression_{len(self.held)}"
        self.held[name] = as_text(clause)
        return name

    def held_by(self, type_: TypeEngine[Any]) -> TypeEngine[Any]:
        """The type, with a name in place of a domain's check and default, and an array's items left for later.

        Alembic finds an array's items by a regular expression, which an enum's odd values are not found by.
        """
        changes: dict[str, object] = {}
        if isinstance(type_, ARRAY):
            return _adapted(type_, item_type=Integer())
        if not isinstance(type_, postgresql.DOMAIN):
            return type_
        if type_.check is not None:
            changes["check"] = self.hold(type_.check)
        if isinstance(type_.default, ClauseElement):
            changes["default"] = text(self.hold(type_.default))
        return _adapted(type_, **changes)

    def put_back(self, code: str) -> str:
        for name, written in self.held.items():
            code = code.replace(repr(name), repr(written), 1)
        return code


def _adapted(type_: TypeEngine[Any], **changes: object) -> TypeEngine[Any]:
    """The type with other arguments; its own copy() would drop them."""
    adapted: TypeEngine[Any] = type_.adapt(type(type_), **changes)
    return adapted


def _argument(code: str, position: int) -> str:
    """The text of a call's positional argument."""
    parsed = ast.parse(code, mode="eval").body
    assert isinstance(parsed, ast.Call)  # noqa: S101  # it is a call that has just been rendered
    found = ast.get_source_segment(code, parsed.args[position])
    assert found is not None  # noqa: S101
    return re.sub(r",\s*\)$", ")", found)


def enclose(opening: str, items: Iterable[str], closing: str, *, broken: bool = False) -> str:
    """The items between brackets, on one line if they fit and else one a line."""
    items = list(items)
    line = f"{opening}{', '.join(items)}{closing}"
    if not items or (not broken and len(line) <= WIDTH and "\n" not in line):
        return line
    body = "".join(map(_indented, items))
    return f"{opening}\n{body}{closing}"


def _indented(item: str) -> str:
    """An item on lines of its own; no string literal spans lines, since repr() writes none that does."""
    return "".join(f"    {line}\n" for line in f"{item},".split("\n"))


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """The text of a default or generated column as it is; a type without making it; anything else is left to Alembic.

    Alembic compiles an expression before it writes it, which doubles a ``%`` and leaves a ``:x`` to be taken for a
    bind parameter. A type that op.create_type makes would be made once more by the table that uses it.
    """
    if kind == "type" and isinstance(item, Enum | postgresql.DOMAIN) and item.create_type and _is_made(item, context):
        events = {"_create_events": True} if isinstance(item, Enum) else {}  # adapt() would write that it has none
        return column_type(context, _adapted(item, create_type=False, **events))
    if kind != "server_default":
        return False
    if isinstance(item, Computed) and isinstance(item.sqltext, TextClause):
        return f"sa.Computed({as_text(item.sqltext)!r}, persisted={item.persisted!r})"
    if isinstance(item, DefaultClause) and isinstance(item.arg, TextClause):
        return f"sa.text({escaped(item.arg.text) if item.reflected else as_text(item.arg)!r})"
    if isinstance(item, DefaultClause) and isinstance(item.arg, str):
        return repr(item.arg)
    return False


def _is_made(item: Enum | postgresql.DOMAIN, context: AutogenContext) -> bool:
    """Whether autogenerate writes op.create_type where it is missing."""
    run = found(context.migration_context)
    return run is not None and key(item) in run.created_types
