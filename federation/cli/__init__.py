"""The command ``federation``: one small file a command, imported only when it is called; no logic here."""

from __future__ import annotations

import difflib
import importlib

import click

import federation

_COMMANDS = (
    "account",
    "analyze",
    "bootstrap",
    "check",
    "demo",
    "downgrade",
    "forget",
    "history",
    "link",
    "plan",
    "repair",
    "revision",
    "status",
    "upgrade",
)


class _LazyGroup(click.Group):
    """A group whose commands are modules of this package.

    https://click.palletsprojects.com/en/stable/complex/#lazily-loading-subcommands
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is answered with those that are written like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], _COMMANDS)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(close)}?", ctx) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(federation.__version__, prog_name="federation")
def main() -> None:
    """Upgrade and roll back a hospital's database and the app's cloud database in lockstep.

    Exit codes: 0 done; 1 unexpected error; 2 usage; 3 changes pending; 4 the databases are not at the same release;
    5 lock held; 6 a database cannot be reached; 7 verification failed; 8 refused; 9 a precondition is missing;
    130 interrupted.
    """
