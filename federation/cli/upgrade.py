"""``federation upgrade [RELEASE]``."""

from __future__ import annotations

import click

from federation.cli.output import Result, common
from federation.cli.steps import on_failure, print_step, shown
from federation.config import Config
from federation.lockstep import upgrade
from federation.lockstep.run import OnFailure


@click.command("upgrade")
@click.argument("release", default="head")
@on_failure
@common
def command(config: Config, release: str, on_failure: OnFailure) -> Result:
    """Bring both databases up to RELEASE (default: head), local first."""
    outcome = upgrade(config, release, on_failure=on_failure, progress=print_step)
    return Result(outcome.to_dict(), shown(outcome))
