"""``federation bootstrap local|cloud``."""

from __future__ import annotations

import dataclasses

import click

from federation.administration import bootstrap
from federation.cli.output import Result, common, err
from federation.config import Config
from federation.errors import Side


@click.command("bootstrap")
@click.argument("side", type=click.Choice(["local", "cloud"]))
@click.option("--apply", is_flag=True, help="Run it, with FEDERATION_LOCAL_ADMIN_URL or FEDERATION_CLOUD_ADMIN_URL.")
@common
def command(config: Config, side: Side, *, apply: bool) -> Result:
    """Print the SQL that an administrator of SIDE runs once, for psql; or run it."""
    if apply:
        outcome = bootstrap.apply(config, side)
        for note in outcome.notes:
            err.print(f"federation: {note}", soft_wrap=True)
        lines = [*(f"done     {why}" for why in outcome.done), *(f"present  {why}" for why in outcome.present)]
        return Result({"side": side, "applied": True, **dataclasses.asdict(outcome)}, "\n".join(lines))
    script = bootstrap.render(config, side)
    return Result({"side": side, "applied": False, "sql": script}, script)
