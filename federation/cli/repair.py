"""``federation repair``."""

from __future__ import annotations

import click

from federation.cli.output import Result, common
from federation.config import Config
from federation.errors import Side
from federation.lockstep.repair import accept, repair


@click.command("repair")
@click.option(
    "--accept",
    "accepted",
    type=click.Choice(["local", "cloud"]),
    multiple=True,
    help="Take a database that was restored to an earlier point as it is now; what it lost stays lost.",
)
@common
def command(config: Config, accepted: tuple[Side, ...]) -> Result:
    """Make what the releases make and somebody has dropped; or accept a database that was restored. Drops nothing."""
    if accepted:
        status = accept(config, accepted)
        lines = [f"{' and '.join(accepted)}: accepted as it is now"]
        if status.next_command:
            lines.append(f"next: {status.next_command}")
        return Result({"accepted": list(accepted), "next": status.next_command}, "\n".join(lines))
    made = repair(config)
    shown = "\n".join(f"{item.side}: made {item.object}" for item in made) or "nothing is missing"
    return Result({"made": [item.to_dict() for item in made]}, shown)
