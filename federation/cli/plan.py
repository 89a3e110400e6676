"""``federation plan [RELEASE]``."""

from __future__ import annotations

import click
from rich.table import Table

from federation.cli.output import Result, common
from federation.cli.steps import ReleaseCommand
from federation.config import Config
from federation.errors import PendingChanges
from federation.lockstep import Direction
from federation.lockstep.preview import preview


@click.command("plan", cls=ReleaseCommand)
@click.argument("release", default="head")
@click.option("--check", is_flag=True, help="Exit with 3 when there is something to do.")
@common
def command(config: Config, release: str, *, check: bool) -> Result:
    """Show the steps that would bring both databases to RELEASE, up or down. Writes nothing."""
    steps = preview(config, release)
    data = {
        "steps": [
            {
                "release": item.step.release,
                "side": item.step.side,
                "direction": item.step.direction.value,
                "message": item.message,
            }
            for item in steps
        ]
    }
    table = Table("", "release", "side", "what", box=None, pad_edge=False)
    for item in steps:
        mark = "[green]+[/]" if item.step.direction is Direction.UP else "[red]-[/]"
        table.add_row(mark, item.step.release, item.step.side, item.message)
    shown = table if steps else "nothing to do"
    return Result(data, shown, PendingChanges.exit_code if check and steps else 0)
