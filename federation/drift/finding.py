"""A difference that no release can close: it is reported, and its way out is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations

from federation.errors import Refused


@dataclass(eq=False)
class Finding(MigrateOperation):
    """``what`` of ``name`` differs: ``detail`` says how, ``hint`` what to do."""

    what: str
    name: str
    detail: str
    hint: str

    def reverse(self) -> Finding:
        """Itself: there is nothing to undo."""
        return self

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """(``differs``, what, name, detail, hint)."""
        return ("differs", self.what, self.name, self.detail, self.hint)


@dataclass(eq=False)
class ByHand(Finding):
    """A difference that only a release written by hand can close.

    Autogenerate refuses rather than write a release that omits it.
    """


@Operations.implementation_for(Finding)
def _nothing(_operations: Operations, _op: Finding) -> None:
    """A finding is read by people; running it does nothing."""


@renderers.dispatch_for(Finding)
def _render(_context: object, op: Finding) -> str:
    return f"pass  # {op.what} {op.name}: {op.detail}; {op.hint}".replace("\n", " ")


@renderers.dispatch_for(ByHand)
def _refuse(_context: object, op: ByHand) -> NoReturn:
    raise Refused(f"{op.what} {op.name} {op.detail}", side="local", hint=op.hint)
