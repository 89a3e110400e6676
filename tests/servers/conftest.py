"""One pair of servers for each version of PostgreSQL that this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from federation.servers import Binaries, Pair, find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", params=find_binaries(), ids=lambda binaries: binaries.version)
def binaries(request: pytest.FixtureRequest) -> Binaries:
    found: Binaries = request.param
    return found


@pytest.fixture(scope="session")
def pair(binaries: Binaries) -> Iterator[Pair]:
    with Pair(binaries, settings={"log_statement": "all", "log_min_duration_statement": "0"}) as pair:
        yield pair
