"""``federation status``."""

from __future__ import annotations

import click
from rich.console import Group, RenderableType
from rich.table import Table

from federation.check import check
from federation.cli.output import Result, common
from federation.config import Config
from federation.errors import FederationError, ReleasesDiffer, SetBack, VerificationFailed
from federation.lockstep import State, Status, read_status


@click.command("status")
@common
def command(config: Config) -> Result:
    """Say where both databases are, whether they have drifted, and what to type next. Writes nothing."""
    status = read_status(config)
    drifted = _drifted(config, status)
    if status.errors:
        code = status.errors[0].exit_code
    elif status.comparison.set_back:
        code = SetBack.exit_code
    else:
        code = 0 if status.state is State.WHOLE else ReleasesDiffer.exit_code
        if status.missing:
            code = code or VerificationFailed.exit_code
    data = status.to_dict() | {"drift": drifted}
    return Result(data, _shown(status, drifted=drifted), code)


def _drifted(config: Config, status: Status) -> bool | None:
    """What is declared is the newest release: below it, or with a side that fails, there is nothing to compare with."""
    if status.state is not State.WHOLE or status.local is None or status.local != status.head:
        return None
    try:
        return bool(check(config))
    except FederationError:
        return None


def _shown(status: Status, *, drifted: bool | None) -> RenderableType:
    failed = {error.side: error for error in status.errors}
    table = Table("side", "release", "newest", box=None, pad_edge=False)
    for side, release in (("local", status.local), ("cloud", status.cloud)):
        table.add_row(side, "?" if side in failed else release or "base", status.head or "base")
    lines = [str(error) for error in status.errors] or [status.state.value]
    lines += [str(error) for error in status.comparison.set_back]
    lines += [f"{side}: missing: {', '.join(names)}" for side, names in status.missing.items()]
    if not status.comparison.compared:
        lines.append(
            "not compared: whether a database was set back can be told only where both answer and can be written"
        )
    lines += [f"{file} was edited after it ran: what it made is not what it says" for file in status.edited]
    if status.mark_is_off:
        lines.append(f"the hospital takes the cloud to be at {status.mark or 'base'}, and guards what that needs")
    if drifted is not None:
        lines.append(f"drift: {'yes (federation check)' if drifted else 'no'}")
    if status.next_command:
        lines.append(f"next: {status.next_command}")
    return Group(table, *lines)
