"""Draw the pictures of README.md and docs/design/: ``python tools/draw.py`` writes them, ``--check`` compares them.

Each picture is a fixed arrangement of boxes and arrows in SVG, drawn with the standard library alone. The colours
follow the reader's theme. Each picture has its own background, so it is legible wherever it is shown.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "design"

LIGHT = {
    "back": "#ffffff",
    "text": "#1f2328",
    "faint": "#57606a",
    "line": "#6e7781",
    "side": "#f6f8fa",
    "plain": "#ffffff",
    "cloud": "#ddf4ff",
    "local": "#dafbe1",
    "stop": "#ffebe9",
}
DARK = {
    "back": "#0d1117",
    "text": "#e6edf3",
    "faint": "#9da7b3",
    "line": "#8b949e",
    "side": "#161b22",
    "plain": "#21262d",
    "cloud": "#0c2d4a",
    "local": "#0f3320",
    "stop": "#4c1518",
}
LINE = 18
"""Pixels from one line of text to the next."""


@dataclass
class Drawing:
    """One picture: its size, a title for readers who cannot see it, and its parts in drawing order."""

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, area: tuple[int, int, int, int], kind: str, head: str, *lines: str) -> None:
        """Draw a box at ``area`` (x, y, width, height) with a bold head line and plain lines below it."""
        x, y, width, height = area
        self.parts.append(f'<rect class="box {kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>')
        top = y + 22 if kind == "side" else y + (height - LINE * len(lines)) // 2 + 5
        self.text(x + width // 2, top, head, "head")
        for number, line in enumerate(lines, 1):
            self.text(x + width // 2, top + number * LINE, line, "faint" if kind == "side" else "text")

    def text(self, x: int, y: int, text: str, kind: str = "faint") -> None:
        """Write a line of text, centred at ``x``."""
        self.parts.append(f'<text class="{kind}" x="{x}" y="{y}">{escape(text, quote=False)}</text>')

    def arrow(self, *points: tuple[int, int], dashed: bool = False) -> None:
        """Draw a line through the points, with a head at the last one."""
        path = " ".join(f"{x},{y}" for x, y in points)
        kind = "arrow dashed" if dashed else "arrow"
        self.parts.append(f'<polyline class="{kind}" points="{path}" marker-end="url(#head)"/>')

    def svg(self) -> str:
        """Return the picture as SVG."""
        size = f'width="{self.width}" height="{self.height}"'
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {self.width} {self.height}" role="img">',
                f"<title>{escape(self.title, quote=False)}</title>",
                f"<style>\n{_style()}\n</style>",
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
                'orient="auto-start-reverse"><path class="tip" d="M0,0 L10,5 L0,10 z"/></marker></defs>',
                f'<rect class="back" {size} rx="10"/>',
                *self.parts,
                "</svg>\n",
            )
        )


def _style() -> str:
    """Return the style sheet: the light colours, and the dark ones where the reader's theme is dark."""
    dark = "\n".join(f"  {line}" for line in _colours(DARK))
    return "\n".join(
        (
            "text { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; text-anchor: middle }",
            ".head { font-weight: 600 }",
            ".arrow { fill: none; stroke-width: 1.5 }",
            ".dashed { stroke-dasharray: 5 4 }",
            *_colours(LIGHT),
            f"@media (prefers-color-scheme: dark) {{\n{dark}\n}}",
        )
    )


def _colours(theme: dict[str, str]) -> list[str]:
    return [
        f".back {{ fill: {theme['back']} }}",
        f".text, .head {{ fill: {theme['text']} }}",
        f".faint {{ fill: {theme['faint']} }}",
        f".tip {{ fill: {theme['line']} }}",
        f".box, .arrow {{ stroke: {theme['line']} }}",
        *(f".{kind} {{ fill: {theme[kind]} }}" for kind in ("side", "plain", "cloud", "local", "stop")),
    ]


def two_databases() -> Drawing:
    """Draw what stands in which database, and the two ways between them: a request and a release."""
    drawing = Drawing(
        960,
        480,
        "The app's cloud database holds views and foreign tables; the hospital's database holds the rows and decides.",
    )
    drawing.box(
        (330, 16, 300, 56), "plain", "federation upgrade, downgrade", "one release = one transaction on each side"
    )
    drawing.box((20, 104, 400, 360), "side", "cloud: the app's database on Supabase")
    drawing.box((540, 104, 400, 360), "side", "local: the hospital's own PostgreSQL")
    drawing.box((40, 140, 360, 40), "cloud", "Alembic chain versions/cloud: 0001, 0002, …")
    drawing.box((560, 140, 360, 40), "local", "Alembic chain versions/local: 0001, 0002, …")
    drawing.arrow((330, 44), (70, 44), (70, 139))
    drawing.arrow((630, 44), (890, 44), (890, 139))
    drawing.text(200, 36, "2. cloud")
    drawing.text(760, 36, "1. local")
    drawing.box(
        (40, 206, 360, 60), "plain", "the app, PostgREST, functions", "unchanged: the same names, the same queries"
    )
    drawing.box((40, 296, 360, 60), "cloud", "views public.patients, …", "name the caller to the hospital first")
    drawing.box(
        (40, 386, 360, 60), "cloud", "foreign tables federation_link.patients, …", "no row, no value in the statistics"
    )
    drawing.arrow((220, 266), (220, 295))
    drawing.arrow((220, 356), (220, 385))
    drawing.arrow((400, 416), (480, 416), (480, 236), (559, 236))
    drawing.text(480, 204, "postgres_fdw")
    drawing.text(480, 222, "over TLS")
    drawing.box((560, 206, 360, 60), "local", "the list of accounts", "who may be bound, with which claims")
    drawing.box((560, 296, 360, 60), "local", "the app's own policies", "decide here about every row")
    drawing.box((560, 386, 360, 60), "local", "tables public.patients, …", "the patient rows, and they stay here")
    drawing.arrow((740, 266), (740, 295))
    drawing.arrow((740, 356), (740, 385))
    return drawing


def lockstep() -> Drawing:
    """Draw an upgrade over time: two commits, and what a run that is killed before, between or after them leaves."""
    drawing = Drawing(
        960, 380, "An upgrade commits at the hospital first and in the cloud second; each commit holds its version row."
    )
    drawing.box((20, 20, 920, 110), "side", "local")
    drawing.box((20, 150, 920, 110), "side", "cloud")
    drawing.box((180, 56, 250, 60), "local", "the step of 0005", "DDL, version row, history: COMMIT")
    drawing.box((500, 186, 250, 60), "cloud", "the step of 0005", "DDL, version row, history: COMMIT")
    drawing.box((790, 116, 130, 60), "plain", "verify", "both databases")
    drawing.arrow((40, 86), (179, 86))
    drawing.text(105, 76, "at 0004")
    drawing.arrow((40, 216), (499, 216))
    drawing.text(105, 206, "at 0004")
    drawing.arrow((430, 86), (640, 86), (640, 185))
    drawing.text(535, 76, "at 0005")
    drawing.arrow((750, 216), (855, 216), (855, 177))
    drawing.box((20, 290, 400, 70), "plain", "killed before the first COMMIT", "both are at 0004")
    drawing.box((440, 290, 230, 70), "stop", "killed between the two", "next: federation upgrade 0005")
    drawing.box((690, 290, 250, 70), "plain", "killed after the second", "both are at 0005")
    return drawing


def guard() -> Drawing:
    """Draw the guard's row at the hospital, and the two triggers that write it before they read."""
    drawing = Drawing(
        960, 330, "Both sides write the hospital's guard row before they read the other side's release from it."
    )
    drawing.box((20, 20, 340, 290), "side", "cloud")
    drawing.box((460, 20, 480, 290), "side", "local")
    drawing.box((40, 60, 300, 60), "cloud", "federation.alembic_version", "0004 becomes 0005")
    drawing.box((40, 160, 300, 60), "cloud", "trigger guard_version", "mark := 0005; is local_release enough?")
    drawing.box((40, 250, 300, 44), "stop", "no: the transaction fails")
    drawing.box((620, 60, 300, 60), "local", "federation.alembic_version", "0006 becomes 0005")
    drawing.box((620, 160, 300, 60), "local", "trigger guard_version", "local_release := 0005; is the mark low?")
    drawing.box((620, 250, 300, 44), "stop", "no: the transaction fails")
    drawing.box(
        (470, 60, 130, 160), "plain", "federation.guard", "one row:", "local_release", "cloud_release", "(the mark)"
    )
    drawing.arrow((190, 120), (190, 159))
    drawing.arrow((190, 220), (190, 249))
    drawing.arrow((770, 120), (770, 159))
    drawing.arrow((770, 220), (770, 249))
    drawing.arrow((340, 190), (469, 190))
    drawing.arrow((620, 190), (601, 190))
    drawing.text(410, 166, "the link")
    drawing.text(410, 182, "one UPDATE")
    return drawing


def binding() -> Drawing:
    """Draw how a query names its caller in the very session that its rows come from."""
    drawing = Drawing(
        960,
        420,
        "A query names its caller through a view of the hospital's list, in the session that its rows come from.",
    )
    drawing.box((20, 20, 400, 380), "side", "cloud")
    drawing.box((540, 20, 400, 380), "side", "local")
    drawing.box((40, 56, 360, 60), "plain", "SELECT … FROM patients", "role and request.jwt.claims, from PostgREST")
    drawing.box((40, 146, 360, 60), "cloud", "view public.patients", "its predicate calls federation.bind_claims()")
    drawing.box((40, 236, 170, 60), "cloud", "send()", "as the sender role")
    drawing.box((230, 236, 170, 60), "cloud", "foreign scan", "as the caller")
    drawing.box(
        (40, 326, 360, 60), "plain", "one connection: the mapping of PUBLIC", "so both work in the same session"
    )
    drawing.arrow((220, 116), (220, 145))
    drawing.arrow((125, 206), (125, 235))
    drawing.arrow((315, 206), (315, 235))
    drawing.arrow((125, 296), (125, 325))
    drawing.arrow((315, 296), (315, 325))
    drawing.text(112, 226, "1")
    drawing.text(302, 226, "2")
    drawing.box(
        (560, 56, 360, 60), "local", "view federation.bind over the list of accounts", "selecting a row binds it"
    )
    drawing.box(
        (560, 146, 360, 60), "local", "take(): account and role, for this transaction", "a second caller is refused"
    )
    drawing.box((560, 236, 360, 60), "local", "the app's policies", "auth.uid() reads the bound account's claims")
    drawing.box((560, 326, 360, 60), "local", "tables", "rows that the policies allow")
    drawing.arrow((400, 346), (450, 346), (450, 86), (559, 86))
    drawing.arrow((400, 366), (559, 366))
    drawing.text(490, 76, "1. who asks")
    drawing.text(480, 386, "2. which rows")
    drawing.arrow((740, 116), (740, 145))
    drawing.arrow((740, 206), (740, 235))
    drawing.arrow((740, 296), (740, 325))
    return drawing


PICTURES = {
    "two-databases.svg": two_databases,
    "lockstep.svg": lockstep,
    "guard.svg": guard,
    "binding.svg": binding,
}


def main() -> None:
    """Write the pictures that differ; with ``--check``, name them and exit with 1."""
    drawn = {FOLDER / name: draw().svg() for name, draw in PICTURES.items()}
    stale = [path for path, svg in drawn.items() if not path.exists() or path.read_text() != svg]
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(f"{path} is not what tools/draw.py draws" for path in stale) or None)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawn[path])
        print(path)


if __name__ == "__main__":
    main()
