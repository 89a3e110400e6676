"""The pictures of the repository: drawn by tools/draw.py, and legible in a light and in a dark theme."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from deployments import ROOT
from tool import tool

draw = tool("draw")

CHARACTER = 7.6
"""Pixels that a character of 13 px takes at most, on average."""


def test_the_pictures_in_the_repository_are_what_the_tool_draws() -> None:
    assert {path.name for path in (ROOT / "docs" / "design").glob("*.svg")} == set(draw.PICTURES)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "draw.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_picture_that_was_edited_by_hand_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(draw, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["draw.py"])
    draw.main()
    edited = tmp_path / "two-databases.svg"
    edited.write_text(edited.read_text().replace("cloud", "sky"))
    monkeypatch.setattr(sys, "argv", ["draw.py", "--check"])
    with pytest.raises(SystemExit, match=re.escape(str(edited))):
        draw.main()


@pytest.mark.parametrize("name", draw.PICTURES)
def test_the_text_of_a_picture_stays_inside_it(name: str) -> None:
    drawing = draw.PICTURES[name]()
    for x, y, text in re.findall(r'<text class="\w+" x="(\d+)" y="(\d+)">(.*?)</text>', drawing.svg()):
        half = len(text) * CHARACTER / 2
        assert half <= int(x) <= drawing.width - half, text
        assert 0 < int(y) < drawing.height, text


def brightness(colour: str) -> float:
    """The relative luminance of ``#rrggbb``: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [draw.LIGHT, draw.DARK], ids=["light", "dark"])
def test_text_is_legible_on_every_background_of_a_theme(theme: dict[str, str]) -> None:
    """A contrast of 4.5 or more: https://www.w3.org/TR/WCAG22/#contrast-minimum"""
    for back in ("back", "side", "plain", "cloud", "local", "stop"):
        for text in ("text", "faint"):
            bright, dim = sorted((brightness(theme[back]), brightness(theme[text])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (back, text)
