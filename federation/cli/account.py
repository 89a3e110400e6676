"""``federation account add|list|remove|sync``."""

from __future__ import annotations

import json
from uuid import UUID

import click
from rich.table import Table

from federation.administration import accounts
from federation.cli.output import Result, common
from federation.config import Config


@click.group("account")
def command() -> None:
    """The callers that the hospital admits, and their claims."""


@command.command("add")
@click.argument("sub", type=click.UUID)
@click.option("--claims", default="{}", show_default=True, help="A JSON object; sub and role are added.")
@common
def add(config: Config, sub: UUID, claims: str) -> Result:
    """Admit the account SUB, or replace its claims."""
    added = accounts.add(config, sub, accounts.parse_claims(claims))
    return Result(added, f"account {sub}: " + ("claims replaced" if added["replaced"] else "admitted"))


@command.command("list")
@common
def list_(config: Config) -> Result:
    """Show the accounts that the hospital admits."""
    listed = accounts.list_(config)
    table = Table("sub", "claims", "added", box=None, pad_edge=False)
    for account in listed:
        table.add_row(str(account["sub"]), json.dumps(account["claims"]), str(account["added_at"]))
    return Result({"accounts": listed}, table)


@command.command("remove")
@click.argument("sub", type=click.UUID)
@common
def remove(config: Config, sub: UUID) -> Result:
    """Take the account SUB off the list; it sees nothing from its next transaction on."""
    removed = accounts.remove(config, sub)
    return Result(removed, f"account {sub} " + ("is no longer admitted" if removed["removed"] else "was not listed"))


@command.command("sync")
@common
def sync(config: Config) -> Result:
    """Make the list follow accounts.query of federation.toml, a query on the cloud."""
    done = accounts.sync(config)
    return Result(done, ", ".join(f"{number} {what}" for what, number in done.items()))
