"""The example's project, copied, to be run as its users do and to be broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from deployments import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = ROOT / "examples" / "app-tests"


@dataclass
class Project:
    """A folder with chains, and tests of its own."""

    root: Path
    python: str = sys.executable

    @property
    def toml(self) -> Path:
        return self.root / "federation.toml"

    def edit(self, file: str, before: str, after: str) -> None:
        text = (self.root / file).read_text()
        assert before in text, f"{file} does not hold {before}"
        (self.root / file).write_text(text.replace(before, after))

    def write(self, file: str, text: str) -> None:
        (self.root / file).write_text(text)

    def command(self, *arguments: str) -> list[str]:
        return [self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]

    @property
    def environ(self) -> dict[str, str]:
        ours = ("FEDERATION_", "PG", "PYTEST_")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def pytest(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """The project's tests, as a process of its own."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    return Project(root)
