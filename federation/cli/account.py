"""``federation account add|list|remove|sync``."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from uuid import UUID

import click

from federation.administration import accounts
from federation.cli.output import Result, common, listing
from federation.config import Config
from federation.errors import Refused


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
    table = listing("sub", "claims", "added", whole={"sub", "added"})
    for account in listed:
        added = datetime.fromisoformat(str(account["added_at"])).isoformat(timespec="seconds")
        table.add_row(str(account["sub"]), json.dumps(account["claims"]), added)
    return Result({"accounts": listed}, table)


@command.command("remove")
@click.argument("sub", type=click.UUID)
@common
def remove(config: Config, sub: UUID) -> Result:
    """Take the account SUB off the list; it sees nothing from its next transaction on."""
    removed = accounts.remove(config, sub)
    return Result(removed, f"account {sub} " + ("is no longer admitted" if removed["removed"] else "was not listed"))


@command.command("sync")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--yes", is_flag=True, help="Do not ask before new claims or roles are admitted; needed without a terminal."
)
@common
def sync(config: Config, *, dry_run: bool, yes: bool) -> Result:
    """Make the list follow accounts.query of federation.toml, a query on the cloud."""

    def approve(changes: accounts.Changes) -> bool:
        if dry_run or yes or not changes.new:
            return not dry_run
        new = ", ".join(changes.new)
        if not sys.stdin.isatty():
            raise Refused(
                f"the cloud's query brings what no account has so far: {new}",
                side="local",
                hint="see --dry-run; list the claims in accounts.claims of federation.toml, or say --yes",
            )
        return click.confirm(
            f"The cloud's query brings what no account has so far: {new}. Admit it?", err=True, abort=True
        )

    done = accounts.sync(config, approve)
    told = f"{len(done.added)} added, {len(done.changed)} changed, {len(done.removed)} removed"
    return Result(done.to_dict() | {"dry_run": dry_run}, f"would be: {told}" if dry_run else told)
