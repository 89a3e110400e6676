"""Python run as a user who is not root and owns nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest


def run(arguments: Sequence[str], folder: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Our own Python may be root's alone; the system's does, if it is of the same version."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with suppress(PermissionError, FileNotFoundError):
            return subprocess.run(
                [python, "-B", *arguments],
                cwd=folder,
                env=environ,
                user=65534,
                group=65534,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )
    pytest.skip("no Python of this version that others may run")
