"""What upgrade and downgrade share: their option, a line a step, the last line."""

from __future__ import annotations

import re

import click

from federation.cli.output import err
from federation.lockstep import Direction, Outcome, Step


class ReleaseCommand(click.Command):
    """A command whose RELEASE may be ``-1``: a number is no option, and any other option must be known."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put relative releases behind ``--``."""
        relative = [arg for arg in args if re.fullmatch(r"-\d+", arg)]
        return super().parse_args(
            ctx, [arg for arg in args if arg not in relative] + (["--", *relative] if relative else [])
        )


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
