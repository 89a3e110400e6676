"""``federation forget``."""

from __future__ import annotations

import click

from federation.cli.output import Result, common
from federation.config import Config
from federation.lockstep.forget import forget


@click.command("forget")
@common
def command(config: Config) -> Result:
    """At base: remove schema federation, version table and history with it, from both databases."""
    forget(config)
    return Result({"forgotten": True}, "schema federation is gone from both databases")
