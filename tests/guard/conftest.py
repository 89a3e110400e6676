from __future__ import annotations

from typing import TYPE_CHECKING

import guarded_chains
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment, Deployments


@pytest.fixture
def guarded(deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Four tiny releases, the last a contract, on two databases at base."""
    with deployments.at_base(guarded_chains.write(tmp_path)) as deployment:
        deployment.enter(monkeypatch)
        yield deployment
