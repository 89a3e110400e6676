"""The error of a promise that is not kept."""

from __future__ import annotations

from federation.errors import LockHeld, Side, Unreachable, VerificationFailed, from_database

HINT = "`federation check` compares both sides"


def failed(message: str, side: Side) -> VerificationFailed:
    """The error that names the object and its side."""
    return VerificationFailed(message, side=side, hint=HINT)


def as_failed(error: BaseException, side: Side, what: str) -> Exception:
    """``what`` failed with a database's ``error``; Unreachable and LockHeld stay what they are."""
    found = from_database(error, side=side)
    return found if isinstance(found, (Unreachable, LockHeld)) else failed(f"{what} ({found.message})", side)
