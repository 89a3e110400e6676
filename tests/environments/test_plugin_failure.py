"""A plugin that did not load must not pass for "nothing differs"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from federation import plugin
from federation.check import check
from federation.errors import PreconditionMissing

if TYPE_CHECKING:
    from deployments import Deployment


def test_without_its_plugin_no_environment_runs(federated: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(federated.config) == []
    monkeypatch.setattr(plugin, "failure", ImportError("no module named x"))
    with pytest.raises(PreconditionMissing, match="plugin did not load"):
        check(federated.config)
