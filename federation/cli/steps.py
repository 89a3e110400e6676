"""What upgrade and downgrade share: their option, a line a step, the last line."""

from __future__ import annotations

import click

from federation.cli.output import err
from federation.lockstep import Direction, Outcome, Step

on_failure = click.option(
    "--on-failure",
    type=click.Choice(["rollback", "stop"]),
    default="rollback",
    show_default=True,
    help="When the second half of a release fails: undo the first, or leave it for a later run.",
)


def print_step(step: Step, seconds: float) -> None:
    """One line on standard error."""
    colour = "green" if step.direction is Direction.UP else "yellow"
    err.print(f"[{colour}]{step}[/]  {step.direction.value}d to {step.to or 'base'}  {seconds:.2f} s")


def shown(outcome: Outcome) -> str:
    """The last line."""
    release = outcome.release or "base"
    return f"both databases are at {release}" if outcome.steps else f"nothing to do: both databases are at {release}"
