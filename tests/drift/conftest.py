"""What the tests of releases that autogenerate writes share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from deployments import copy_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deployments import Deployment


@pytest.fixture
def declaring(federated: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """At head, in a folder of its own, to which releases may be added and whose declarations may be changed."""
    federated.root = copy_root(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "versions"}
    yield federated
    for name in list(sys.modules):
        if name.partition(".")[0] == "versions":
            del sys.modules[name]
    sys.modules.update(kept)
