"""One world of attackers and victim for each pair of servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from attack_world import World, build

if TYPE_CHECKING:
    from deployments import Deployments


@pytest.fixture(scope="session")
def world(deployments: Deployments) -> Iterator[World]:
    with deployments.at_head() as deployment, build(deployment) as world:
        yield world
