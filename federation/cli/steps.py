"""What upgrade and downgrade share: their option, a line a step, the last line."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from federation.cli.output import err, styled
from federation.errors import Refused
from federation.lockstep import Direction, Outcome, Step
from federation.lockstep.planned import PlannedStep


class ReleaseCommand(click.Command):
    """A command whose RELEASE may be ``-1``: a number is no option, and any other option must be known."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put relative releases behind ``--``."""
        relative = [arg for arg in args if re.fullmatch(r"-\d+", arg)]
        return super().parse_args(
            ctx, [arg for arg in args if arg not in relative] + (["--", *relative] if relative else [])
        )


def conduct(command: Callable[..., None]) -> Callable[..., None]:
    """``--on-failure`` and ``--wait``."""
    for option in (
        click.option("--wait", is_flag=True, help="While another run is under way, wait for its end."),
        click.option(
            "--on-failure",
            type=click.Choice(["rollback", "stop"]),
            default="rollback",
            show_default=True,
            help="When a release fails: undo what was done of it, or leave it for a later run.",
        ),
    ):
        command = option(command)
    return command


def drops(steps: Sequence[PlannedStep]) -> list[str]:
    """Name what holds values and is dropped, a line each."""
    return [f"{item.step.side} {item.step.release} drops {loss}" for item in steps for loss in item.drops]


def approve_losses(steps: Sequence[PlannedStep]) -> None:
    """Ask before values are dropped. Raises Refused where there is no terminal to ask on."""
    unknown = [item.step for item in steps if item.phase == "contract" and item.statements is None]
    said = drops(steps)
    said += [f"what {step.side} {step.release} drops is not known before it runs" for step in unknown]
    if not said:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{'; '.join(said)}; nothing was changed", hint="say --yes if that is meant")
    for line in said:
        err.print(styled(line, "bold red"))
    click.confirm("Go on?", abort=True, err=True)


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """A pipeline's SIGTERM is answered as Ctrl-C is: the release under way is undone or finished."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_step(step: Step, seconds: float) -> None:
    """One line on standard error."""
    colour = "green" if step.direction is Direction.UP else "yellow"
    err.print(styled(str(step), colour), f" {step.direction.value}d to {step.to or 'base'}  {seconds:.2f} s")


def shown(outcome: Outcome) -> str:
    """The last line."""
    release = outcome.release or "base"
    return f"both databases are at {release}" if outcome.steps else f"nothing to do: both databases are at {release}"
