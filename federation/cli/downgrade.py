"""``federation downgrade RELEASE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from federation.cli.output import Result, common, err, styled
from federation.cli.steps import ReleaseCommand, conduct, drops, print_step, shown, stopped_by_sigterm
from federation.config import Config
from federation.lockstep import downgrade
from federation.lockstep.planned import PlannedStep
from federation.lockstep.run import OnFailure


@click.command("downgrade", cls=ReleaseCommand)
@click.argument("release")
@click.option("--yes", is_flag=True, help="Do not ask; needed without a terminal.")
@conduct
@common
def command(config: Config, release: str, *, yes: bool, on_failure: OnFailure, wait: bool) -> Result:
    """Bring both databases down to RELEASE (an id, base, or -1), cloud first. Undoing a release drops its rows."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("a downgrade drops what its releases made: say --yes, since nobody can be asked")

    def approve(steps: Sequence[PlannedStep]) -> None:
        if not steps:
            return
        for line in drops(steps):
            err.print(styled(line, "bold red"))
        click.confirm(f"Undo releases down to {release}, with what they hold?", abort=True, err=True)

    with stopped_by_sigterm():
        outcome = downgrade(
            config,
            release,
            on_failure=on_failure,
            wait=wait,
            progress=print_step,
            approve=None if yes else approve,
        )
    return Result(outcome.to_dict(), shown(outcome))
