"""``federation revision``."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.text import Text

from federation.check import Difference
from federation.cli.output import COLOURS, Result, common, styled
from federation.config import Config
from federation.scaffold import Written, revision


@click.command("revision")
@click.option("-m", "--message", required=True, help="What the release is for, in a few words.")
@click.option("--autogenerate", is_flag=True, help="Fill both halves from the declarations and the two databases.")
@common
def command(config: Config, message: str, *, autogenerate: bool) -> Result:
    """Write the pair of files of the next release. Databases are read, not changed."""
    left: list[Difference] = []
    written = revision(config, message, autogenerate=autogenerate, report=left.append)
    data = {
        "releases": [item.to_dict() for item in written],
        "left": [difference.to_dict() for difference in left],
    }
    return Result(data, Text("\n").join(_lines(written, left)))


def _lines(written: list[Written], left: list[Difference]) -> Iterator[Text]:
    """Say of each release its files and what is in them, and then what no release closes."""
    for item in written:
        yield styled(f"{item.release} {item.phase}", "bold")
        yield from (styled(f"  {path}", "") for path in (item.local, item.cloud))
        yield from map(_line, item.changes)
    if not written:
        differs = "differs that a release could change" if left else "differs from the declarations"
        yield styled(f"nothing {differs}: no file was written", "")
    if left:
        yield styled("no release closes:", "bold")
        yield from map(_line, left)


def _line(change: Difference) -> Text:
    detail = f"  {change.detail}" if change.detail else ""
    return styled(f"  {change.mark} {change.side} {change.what} {change.name}{detail}", COLOURS[change.mark])
