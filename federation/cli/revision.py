"""``federation revision``."""

from __future__ import annotations

import click

from federation.cli.output import Result, common
from federation.config import Config
from federation.scaffold import revision


@click.command("revision")
@click.option("-m", "--message", required=True, help="What the release is for, in a few words.")
@click.option("--autogenerate", is_flag=True, help="Fill both halves from the declarations and the two databases.")
@common
def command(config: Config, message: str, *, autogenerate: bool) -> Result:
    """Write the pair of files of the next release. Databases are read, not changed."""
    written = revision(config, message, autogenerate=autogenerate)
    lines = [f"{item.release} {item.phase}\n  {item.local}\n  {item.cloud}" for item in written]
    data = {"releases": [item.to_dict() for item in written]}
    return Result(data, "\n".join(lines) or "nothing differs from the declarations: no file was written")
