"""``federation upgrade [RELEASE]``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from federation.cli.output import Result, common
from federation.cli.steps import approve_losses, conduct, print_step, shown, stopped_by_sigterm
from federation.config import Config
from federation.errors import Refused
from federation.lockstep import upgrade
from federation.lockstep.planned import PlannedStep, plan_hash
from federation.lockstep.run import Approve, OnFailure


@click.command("upgrade")
@click.argument("release", default="head")
@click.option(
    "--yes", is_flag=True, help="Do not ask before values are dropped; needed for such a release without a terminal."
)
@click.option(
    "--plan",
    "planned",
    metavar="SHA256",
    help="Run what `federation plan` showed with this hash, without asking, or nothing.",
)
@conduct
@common
def command(
    config: Config, release: str, *, yes: bool, planned: str | None, on_failure: OnFailure, wait: bool
) -> Result:
    """Bring both databases up to RELEASE (default: head), local first; asks before it drops values."""

    # Where nobody is asked, no values are counted either.
    approve: Approve | None = None if yes else approve_losses
    if planned is not None:
        approve = partial(_require_planned, planned=planned)
    with stopped_by_sigterm():
        outcome = upgrade(config, release, on_failure=on_failure, wait=wait, progress=print_step, approve=approve)
    return Result(outcome.to_dict(), shown(outcome))


def _require_planned(steps: Sequence[PlannedStep], planned: str) -> None:
    """Raise Refused unless ``steps`` are those that were planned: a full hash, so that no other plan begins like it."""
    if planned != (digest := plan_hash(steps)):
        raise Refused(
            f"what would run now has sha256 {digest} and is not what was planned; nothing was changed",
            hint="read `federation plan` again",
        )
