"""CONTRIBUTING.md names what is there, and the hooks of a commit are the linters of `make lint`."""

from __future__ import annotations

import re

from deployments import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_path_and_target_that_the_page_names_exists() -> None:
    for path in re.findall(r"`((?:federation|tests|tools|docs|versions)/[\w/.]*)`", PAGE):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"^make ([\w-]+)", PAGE, re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_page_names_every_room() -> None:
    rooms = {file.parent.name for file in (ROOT / "federation").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"`federation/(\w+)`", PAGE))


def test_the_hooks_of_a_commit_are_the_linters() -> None:
    hooks = re.findall(r"^ +entry: \.venv/bin/(.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert hooks == re.findall(r"^\t\$\(BIN\)/((?:ruff|mypy).*)$", MAKEFILE, re.MULTILINE)
