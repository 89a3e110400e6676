"""``federation history``."""

from __future__ import annotations

import click
from rich.table import Table

from federation.cli.output import Result, common
from federation.config import Config
from federation.lockstep.history import read_history


@click.command("history")
@common
def command(config: Config) -> Result:
    """Show what was done to both databases, oldest first."""
    entries = read_history(config)
    table = Table(
        "when", "side", "from", "to", "result", "seconds", "role", "host", "overridden", box=None, pad_edge=False
    )
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
