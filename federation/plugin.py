"""Alembic's entry point: registers the operations on ``alembic.op`` and the comparisons of autogenerate.

Alembic loads it in the middle of its own import, for every project of the Python environment, related or not. So
nothing but the standard library is imported at the top, and a failure is said and not raised: plain Alembic goes on.
Federation's own environments import the operations themselves and fail with the reason.

https://alembic.sqlalchemy.org/en/latest/api/plugins.html
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin

failure: Exception | None = None
"""Why the plugin is not there, if it is not: what compares databases must ask before it says that nothing differs."""


def setup(plugin: Plugin) -> None:
    """Register the operations and comparisons. Raises nothing; a failure is kept in ``failure``."""
    global failure
    try:
        from federation import drift, operations  # noqa: F401

        drift.setup(plugin)
    except Exception as error:  # whatever it is, it is no reason for plain Alembic to stop
        failure = error
        # No warning: where those are errors (python -W error) it would stop Alembic after all.
        print(  # noqa: T201
            f"federation: its Alembic plugin does not load ({type(error).__name__}: {error}) — plain Alembic works, "
            "federation's environments do not; run `pip install --force-reinstall alembic-federation`, or uninstall it",
            file=sys.stderr,
        )
