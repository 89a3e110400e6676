"""``federation history``."""

from __future__ import annotations

import click

from federation.cli.output import Result, common, listing
from federation.config import Config
from federation.lockstep.history import read_history


@click.command("history")
@click.option("-n", "--last", type=click.IntRange(min=1), help="Only the last so many.")
@common
def command(config: Config, *, last: int | None) -> Result:
    """Show what was done to both databases, oldest first."""
    entries = read_history(config)
    entries = entries[-last:] if last is not None else entries
    names = ("when", "side", "from", "to", "result", "seconds", "role", "host", "overridden")
    table = listing(*names, whole={"when", "side", "from", "to"})
    for entry in entries:
        table.add_row(
            entry.started_at.isoformat(timespec="seconds"),
            entry.side,
            entry.from_release,
            entry.to_release,
            entry.result,
            f"{entry.seconds:.2f}",
            entry.role,
            entry.host or entry.client or "",
            entry.override or "",
        )
    return Result({"history": [entry.to_dict() for entry in entries]}, table if entries else "no history")
