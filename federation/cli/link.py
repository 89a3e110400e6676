"""``federation link apply``."""

from __future__ import annotations

from typing import Any

import click

from federation.administration import link
from federation.cli.output import Result, common
from federation.config import Config


@click.group("link")
def command() -> None:
    """The way from the cloud to the hospital."""


@command.command("apply")
@common
def apply(config: Config) -> Result:
    """Set the link's address and passwords anew from the environment; no release is needed for that."""
    applied = link.apply(config)
    return Result(applied, _shown(applied))


def _shown(applied: dict[str, Any]) -> str:
    address, proved = applied["address"], ", ".join(applied["proved"])
    return f"the cloud reaches the hospital at {address['host']}:{address['port']} as {proved or 'nobody yet'}"
