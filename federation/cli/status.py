"""``federation status``."""

from __future__ import annotations

import click
from rich.console import Group, RenderableType
from rich.table import Table

from federation.cli.output import Result, common
from federation.config import Config
from federation.errors import ReleasesDiffer
from federation.lockstep import State, Status, read_status


@click.command("status")
@common
def command(config: Config) -> Result:
    """Say where both databases are and what to type next. Writes nothing."""
    status = read_status(config)
    if status.errors:
        code = status.errors[0].exit_code
    else:
        code = 0 if status.state is State.WHOLE else ReleasesDiffer.exit_code
    return Result(status.to_dict(), _shown(status), code)


def _shown(status: Status) -> RenderableType:
    failed = {error.side: error for error in status.errors}
    table = Table("side", "release", "newest", box=None, pad_edge=False)
    for side, release in (("local", status.local), ("cloud", status.cloud)):
        table.add_row(side, "?" if side in failed else release or "base", status.head or "base")
    lines = [str(error) for error in status.errors] or [status.state.value]
    if status.next_command:
        lines.append(f"next: {status.next_command}")
    return Group(table, *lines)
