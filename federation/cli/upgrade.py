"""``federation upgrade [RELEASE]``."""

from __future__ import annotations

import click

from federation.cli.output import Result, common
from federation.cli.steps import conduct, print_step, shown, stopped_by_sigterm
from federation.config import Config
from federation.lockstep import upgrade
from federation.lockstep.run import OnFailure


@click.command("upgrade")
@click.argument("release", default="head")
@conduct
@common
def command(config: Config, release: str, *, on_failure: OnFailure, wait: bool) -> Result:
    """Bring both databases up to RELEASE (default: head), local first."""
    with stopped_by_sigterm():
        outcome = upgrade(config, release, on_failure=on_failure, wait=wait, progress=print_step)
    return Result(outcome.to_dict(), shown(outcome))
