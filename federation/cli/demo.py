"""``federation demo``."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from federation.cli.output import Result, common, console, err
from federation.config import Config
from federation.demo import tell
from federation.demo.screen import Screen
from federation.errors import FederationError, Interrupted


@click.command("demo")
@click.option(
    "--keep", is_flag=True, help="Leave both servers running until Ctrl-C, and print the exports to use them."
)
@common
def command(_config: Config, *, keep: bool) -> Result:
    """Start a hospital's server and a cloud, move the app's tables, read them as three callers; leave nothing behind.

    With --keep or --json the story is told on standard error. So `federation demo --keep > env.sh`, when the story has
    ended, has left a file for `. ./env.sh` in another terminal.
    """
    context = click.get_current_context()
    screen = Screen(console(stderr=keep or context.params["as_json"], markup=True))
    told = tell(context.params["config_path"], screen)
    with _interruptible():
        if not keep:
            with told as seen:
                data = seen.to_dict()
            return Result(data, "Both servers are gone again. `federation demo --keep` leaves them running.")
        seen = context.with_resource(told)
    context.call_on_close(_wait)  # after the result is printed, and before the servers end
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in seen.environment.items())
    return Result(seen.to_dict() | {"environment": seen.environment}, exports)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Ctrl-C into Interrupted, and pass an existing Interrupted through."""
    # A script's background job begins with SIGINT ignored, and Python leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; both servers are gone") from None
    except FederationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__
        if cause is None:
            raise
        raise Interrupted("interrupted; both servers are gone") from None


def _wait() -> None:
    """Until Ctrl-C."""
    sys.stdout.flush()
    err.print("Both servers run until Ctrl-C. With the exports, in another terminal: federation status", soft_wrap=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sys.exit(Interrupted.exit_code)
