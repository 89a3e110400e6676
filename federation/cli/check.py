"""``federation check``."""

from __future__ import annotations

import click
from rich.console import Group, RenderableType
from rich.table import Table

from federation.check import check
from federation.cli.output import COLOURS, Result, common, styled
from federation.config import Config
from federation.errors import PendingChanges


@click.command("check")
@common
def command(config: Config) -> Result:
    """Compare both databases with what is declared, and the cloud with the hospital. Writes nothing; 3 if they differ.

    + is declared and missing, - is there and not declared, ~ is there and differs.
    """
    found = check(config)
    table = Table("", "side", "what", "name", "detail", box=None, pad_edge=False)
    for item in found:
        table.add_row(styled(item.mark, COLOURS[item.mark]), item.side, item.what, item.name, item.detail)
    shown: RenderableType = table if found else "both databases are as declared"
    if any(item.what in {"privilege", "grant"} for item in found):
        shown = Group(table, "`federation repair` grants and revokes what the releases do")
    return Result({"differences": [item.to_dict() for item in found]}, shown, PendingChanges.exit_code if found else 0)
