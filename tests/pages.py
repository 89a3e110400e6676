"""What a page shows, and what is printed."""

from __future__ import annotations

import re


def first_missing(shown: list[str], output: str) -> str | None:
    """The first line of ``shown`` that ``output`` does not hold below those before it."""
    printed = iter(output.splitlines())
    for line in shown:
        pattern = re.compile(".*".join(re.escape(part) for part in line.rstrip().split("…")))
        if line.strip() != "…" and not any(pattern.fullmatch(real.rstrip()) for real in printed):
            return line
    return None
