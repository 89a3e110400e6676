"""The command ``federation``: one small file a command, imported only when it is called; no logic here."""

from __future__ import annotations

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
