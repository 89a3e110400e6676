"""What an administrator works with: psql, and the configuration of both databases at head."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deployments import Deployment

    from federation.config import Config
    from federation.servers import Binaries, Server


@pytest.fixture
def psql(binaries: Binaries, tmp_path: Path) -> Callable[[Server, str], subprocess.CompletedProcess[str]]:
    """Runs a script as a server's superuser, as an administrator would, against its database postgres."""

    def run(server: Server, script: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "bootstrap.sql"
        file.write_text(script)
        return subprocess.run(
            [binaries.program("psql"), "--no-psqlrc", "--file", file, server.url()],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=60,
        )

    return run


@pytest.fixture
def config(federated: Deployment) -> Config:
    return federated.config
