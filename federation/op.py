"""``from federation import op``: everything of ``alembic.op``, with the types of federation's operations too.

At run time the two are the same. ``op.pyi`` beside this file is what editors and mypy read; it is generated from the
operations by ``python tests/operations/write_stub.py``.
"""

from __future__ import annotations

from typing import Any

from alembic import op as _op

from federation import operations as _operations  # noqa: F401  # registers them


def __getattr__(name: str) -> Any:
    return getattr(_op, name)


def __dir__() -> list[str]:
    return dir(_op)
