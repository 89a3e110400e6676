"""What a migration's own Python raises, as an error of the toolkit's: with its place, and without a row's value."""

from __future__ import annotations

from pathlib import Path
from traceback import extract_tb

import sqlalchemy as sa

from federation.errors import FederationError, Side
from federation.server_text import redact

_ABOUT_CODE = (
    AttributeError,
    ImportError,
    NameError,
    SyntaxError,
    TypeError,
    sa.exc.ArgumentError,
    sa.exc.CompileError,
    sa.exc.InvalidRequestError,
)
"""Their texts name what stands in the code. Others quote what the code worked on: ``int('Asha')``, ``ages['Asha']``."""

_TOOLKIT = Path(__file__).parent.parent


def from_migration(error: Exception, *, side: Side, release: str | None) -> FederationError:
    """The error for an exception of a migration file.

    A text that may quote a value is left out, and taken out of ``error``, which becomes the cause.
    """
    frames = extract_tb(error.__traceback__)
    raised_here = bool(frames) and Path(frames[-1].filename).is_relative_to(_TOOLKIT)
    kind = type(error).__name__
    if raised_here or isinstance(error, _ABOUT_CODE):
        return FederationError(f"the migration failed ({kind}: {error})", side=side, release=release)
    where = next((frame for frame in reversed(frames) if Path(frame.filename).parent.parent.name == "versions"), None)
    where = where or (frames[-1] if frames else None)
    place = f" in {Path(where.filename).name}, line {where.lineno}" if where else ""
    redact(error, f"{kind}{place}")
    return FederationError(
        f"the migration failed ({kind}{place})",
        side=side,
        release=release,
        hint="the exception's text may quote a value and is left out",
    )
