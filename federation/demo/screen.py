"""What the demo looks like: rules, tables and a moving bar on a terminal; elsewhere plain lines that never wrap."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich import box
from rich.console import Console
from rich.markup import render
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table

INDENT = 2


class Screen:
    """Texts are rich's markup; what comes from a database or an error is escaped by whoever passes it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._chapters = itertools.count(1)
        self._plain = not console.is_terminal or console.is_dumb_terminal

    def chapter(self, title: str) -> None:
        """Begin the next part of the story."""
        number = next(self._chapters)
        if self._plain:
            self._print(f"{number}. {title}")
        else:
            self._console.print()
            self._console.print(Rule(f"[bold cyan]{number}[/]  [bold]{title}[/]", align="left", style="cyan"))

    def line(self, *parts: str) -> None:
        """One line; the last part goes on below itself where it does not fit."""
        if self._plain:
            self._print(" " * INDENT + "  ".join(parts))
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in parts[:-1]:
            grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(*parts)
        self._console.print(Padding(grid, (0, 0, 0, INDENT), expand=False))

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Something moves while it takes its time."""
        return nullcontext() if self._plain else self._console.status(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Cells under their columns; as plain lines, each in the order of the columns."""
        if self._plain:
            cells = [[render(cell).plain for cell in row] for row in (columns, *rows)]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            for line in cells:
                text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
                self._console.print(" " * INDENT + text.rstrip(), soft_wrap=True, markup=False)
            return
        table = Table(*columns, box=box.ROUNDED, header_style="bold")
        for row in rows:
            table.add_row(*row)
        self._console.print(Padding(table, (0, 0, 0, INDENT), expand=False))

    def sql(self, text: str) -> None:
        """A statement; plain, on one line."""
        if self._plain:
            self._console.print(" " * INDENT + text, soft_wrap=True, markup=False)
        else:
            syntax = Syntax(text, "sql", theme="ansi_dark", background_color="default", word_wrap=True)
            self._console.print(Padding(syntax, (0, 0, 0, INDENT)))

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar that moves by what its function is called with; a line at the end, when plain."""
        if self._plain:
            started = time.perf_counter()
            yield lambda _: None
            self.line(title, f"{total:,} rows", f"{time.perf_counter() - started:.2f} s")
            return
        columns = (
            TextColumn(" " * (INDENT - 1) + "{task.description:<20}"),
            BarColumn(complete_style="cyan", finished_style="green"),
            TextColumn("{task.completed:>7,.0f} rows"),
            TextColumn("[dim]{task.elapsed:.2f} s[/]"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=total)
            yield lambda rows: progress.advance(task, rows)

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
