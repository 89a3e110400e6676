"""What every command shares: ``--config``, ``--json``, errors as one sentence with their exit code.

Results go to standard output, progress and errors to standard error; with ``--json`` standard output holds one
object, errors included. Names, reasons and texts come from databases: they are never read as markup, and no control
character of theirs reaches a terminal.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from federation.config import Config
from federation.errors import FederationError, Interrupted
from federation.server_text import UNPRINTABLE, printable

SCHEMA_VERSION = 1
"""Version of the JSON objects; a key that changes its meaning raises it, a new key does not."""

# A session that broke or was interrupted is told of in one sentence; what these two log about it besides would stand
# there without a handler. Whoever sets up logging still reads it.
for _library in ("psycopg", "sqlalchemy"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

COLOURS = {"+": "green", "~": "yellow", "-": "red"}
"""Of the marks of what is made or missing, changed or otherwise, dropped or surplus."""

_UNWRAPPED = 10_000
"""Columns of what is no terminal: a log's lines are not folded."""


class _Console(Console):
    """A console on which a string is shown as it is; colour comes with `rich.text.Text`."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Show control characters in place of obeying them, in table cells too."""
        return super().render_str(printable(text, keep="\n\t"), **options)


def console(*, stderr: bool = False, markup: bool = False) -> Console:
    """Make a console on standard output, or on standard error; ``markup`` is for texts of the toolkit's own."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNWRAPPED
    return _Console(stderr=stderr, highlight=False, markup=markup, emoji=False, width=width)


def listing(*columns: str, whole: Collection[str] = ()) -> Table:
    """Make a table in which nothing is cut; the columns in ``whole``, ids and times, are not folded either."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in whole, overflow="fold")
    return table


def styled(text: str, style: str) -> Text:
    """``text`` in a colour, whatever it holds."""
    return Text(printable(text), style)


out, err = console(), console(stderr=True)


@dataclass(frozen=True)
class Result:
    """What a command found: ``data`` for JSON, ``shown`` for people, ``exit_code`` for pipelines."""

    data: Mapping[str, Any]
    shown: RenderableType
    exit_code: int = 0


def _swallowed(unraisable: sys.UnraisableHookArgs) -> None:
    """Ctrl-C comes again where Python has dropped it, as it drops all that is raised in a destructor.

    https://docs.python.org/3/library/sys.html#sys.unraisablehook
    """
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    main = threading.main_thread().ident
    assert main is not None  # noqa: S101  # it runs
    again = threading.Timer(0.01, signal.pthread_kill, (main, signal.SIGINT))  # not from within the destructor
    again.daemon = True
    again.start()


def common(function: Callable[..., Result]) -> Callable[..., None]:
    """Give a command ``--config`` and ``--json``; it gets a Config first and returns a Result."""

    @click.option("--config", "config_path", type=click.Path(path_type=Path), help="Path of federation.toml.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
    @functools.wraps(function)
    def wrapper(*, config_path: Path | None, as_json: bool, **arguments: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # an arrow that a terminal cannot show stops nothing
        if sys.unraisablehook is sys.__unraisablehook__:
            sys.unraisablehook = _swallowed
        try:
            config = Config.load(config_path)
            if config.env_file is not None:
                err.print(f"federation: reading {config.env_file}", style="dim", soft_wrap=True)
            result = function(config, **arguments)
        except FederationError as error:
            _fail(error, as_json=as_json)
        except KeyboardInterrupt:
            _fail(Interrupted("interrupted"), as_json=as_json)
        else:
            if as_json:
                _print_json(result.data)
            else:
                _print(result.shown)
            sys.exit(result.exit_code)

    return wrapper


def _print(shown: RenderableType) -> None:
    """Print a result; what is piped has no blanks at the end of its lines, which a table pads."""
    if out.is_terminal:
        out.print(shown, soft_wrap=isinstance(shown, str))
    elif isinstance(shown, str):
        print(shown)  # noqa: T201  # SQL or exports: what is piped is what psql or a shell reads
    else:
        with out.capture() as captured:
            out.print(shown)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))  # noqa: T201


def _fail(error: FederationError, *, as_json: bool) -> None:
    if as_json:
        _print_json(error.to_dict())
    else:
        err.print(styled("federation:", "bold red"), str(error), soft_wrap=True)
    sys.exit(error.exit_code)


def _print_json(data: Mapping[str, Any]) -> None:
    text = json.dumps({"schema_version": SCHEMA_VERSION, **data}, ensure_ascii=False, default=str)
    print(UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text))  # noqa: T201
