"""``federation plan [RELEASE]``."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from federation.cli.output import COLOURS, Result, common, styled
from federation.cli.steps import ReleaseCommand
from federation.config import Config
from federation.errors import PendingChanges
from federation.lockstep import Direction
from federation.lockstep.planned import PlannedStep, plan_hash, preview
from federation.preview.changes import grouped


@click.command("plan", cls=ReleaseCommand)
@click.argument("release", default="head")
@click.option("--check", is_flag=True, help="Exit with 3 when there is something to do.")
@click.option("--sql", "with_sql", is_flag=True, help="Show the SQL of each step, to be read.")
@common
def command(config: Config, release: str, *, check: bool, with_sql: bool) -> Result:
    """Show the steps that would bring both databases to RELEASE, up or down. Writes nothing.

    A step's objects are marked: + is made, ~ changed, - dropped. Tables and columns that are dropped and hold values
    are named with how many, then the locks.
    """
    steps = preview(config, release)
    digest = plan_hash(steps)
    data = {"steps": [_data(item, with_sql=with_sql) for item in steps], "sha256": digest}
    exit_code = PendingChanges.exit_code if check and steps else 0
    if not steps:
        return Result(data, "nothing to do", exit_code)
    return Result(data, _script(steps, digest) if with_sql else _table(steps, digest), exit_code)


def _data(item: PlannedStep, *, with_sql: bool) -> dict[str, object]:
    step = item.step
    return {
        "release": step.release,
        "side": step.side,
        "direction": step.direction.value,
        "message": item.message,
        "phase": item.phase,
        "reversible": item.reversible,
        "file_sha256": item.file_sha256,
        "locks": [{"mode": lock.mode, "relation": ".".join(lock.relation)} for lock in item.locks],
        "rewrites": [{"table": ".".join(one.table), "rows": one.rows} for one in item.rewrites],
        "locks_unknown": list(_unknown(item)),
        "changes": [{"mark": one.mark, "kind": one.kind, "name": one.name} for one in item.changes],
        "drops": [one.to_dict() for one in item.drops],
        "breaks_older_clouds": item.breaks_older_clouds,
        **({"sql": item.sql} if with_sql else {}),
    }


def _unknown(item: PlannedStep) -> Iterator[str]:
    """Name the statements whose locks are not fully known."""
    if item.statements is None and item.reason is not None:
        yield item.reason
    yield from item.unknown


def _notes(item: PlannedStep) -> Iterator[str]:
    if item.breaks_older_clouds:
        yield f"breaks older clouds: {item.breaks_older_clouds}"
    yield from map(str, item.rewrites)
    yield from map(str, item.locks)
    yield from (f"unknown: {statement}" for statement in _unknown(item))


def _kind(item: PlannedStep) -> str:
    return item.phase if item.reversible else f"{item.phase}, irreversible"


def _table(steps: list[PlannedStep], digest: str) -> Group:
    table = Table("", "release", "side", "what", box=None, pad_edge=False)
    for item in steps:
        mark = styled("+", "green") if item.step.direction is Direction.UP else styled("-", "red")
        notes = [*([] if _kind(item) == "expand" else [_kind(item)]), *_notes(item)]
        lines = [styled(item.message, "")]
        lines += [styled(f"  {change}", COLOURS[change[0]]) for change in grouped(item.changes)]
        lines += [styled(f"  drops {loss}", "bold red") for loss in item.drops]
        what = Text("\n").join([*lines, *(styled(f"  {note}", "dim") for note in notes)])
        table.add_row(mark, item.step.release, item.step.side, what)
    return Group(table, f"sha256 {digest}")


def _script(steps: list[PlannedStep], digest: str) -> str:
    """The SQL of the steps, what the table says in comments above each."""
    parts = [f"-- sha256 {digest}: to be read; `federation upgrade` and `downgrade` run it, together with their books"]
    for item in steps:
        head = f"-- {item.step} ({_kind(item)}): {item.message}"
        notes = [*grouped(item.changes), *(f"drops {loss}" for loss in item.drops), *_notes(item)]
        parts.append("\n".join([head, *(f"--   {note}" for note in notes)]))
        if item.sql:
            parts.append(item.sql)
    return "\n\n".join(parts)
