"""The story that ``federation demo`` tells. It checks what it shows: what must not be seen ends it with an error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from rich.markup import escape

from federation.administration import bootstrap
from federation.config import Config
from federation.databases import SIDES
from federation.demo.callers import Answer, Api, Caller, Explained
from federation.demo.loading import analyze, load
from federation.demo.material import Material, Read, load_material
from federation.demo.screen import Screen
from federation.errors import VerificationFailed
from federation.lockstep import Direction, Outcome, State, Status, Step, downgrade, read_status, upgrade
from federation.lockstep.preview import preview
from federation.servers import Pair

OTHER_SITE = UUID(int=2)
"""Another hospital of the same app: the demo's own is 1."""


@dataclass
class Seen:
    """All that the demo has shown."""

    servers: dict[str, str] = field(default_factory=dict)
    runs: list[Outcome] = field(default_factory=list)
    loaded: list[dict[str, object]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    explained: Explained | None = None
    status: Status | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "servers": self.servers,
            "runs": [run.to_dict() for run in self.runs],
            "loaded": self.loaded,
            "reads": [answer.to_dict() for answer in self.answers],
            "sent": self.explained and {"sql": self.explained.remote_sql, "rows_fetched": self.explained.fetched},
            "status": self.status and self.status.to_dict(),
            "seconds": round(self.seconds, 2),
        }


def tell(pair: Pair, config: Config, screen: Screen) -> Seen:
    """Tell it on two running servers, of which ``config`` is the deployment. They are at head afterwards.

    Raises VerificationFailed when somebody sees what is not theirs, or the hospital's account not all that is.
    """
    return _Story(pair, config, screen, load_material(config)).tell()


class _Story:
    """One telling; its chapters are its methods, in order."""

    def __init__(self, pair: Pair, config: Config, screen: Screen, material: Material) -> None:
        self.pair, self.config, self.screen, self.material = pair, config, screen, material
        self.seen = Seen()
        self.hospital = Caller("this hospital", config.roles.callers[0], config.site(), owns=True)
        self.callers = [
            self.hospital,
            Caller("another hospital", config.roles.callers[0], OTHER_SITE),
            *(Caller(role, role) for role in config.roles.denied),
        ]

    def tell(self) -> Seen:
        started = time.perf_counter()
        self.bootstrap()
        self.upgrade()
        self.load()
        with Api.open(self.pair.authenticator_url()) as api:
            self.read(api)
            self.explain(api)
            self.there_and_back(api)
        self.seen.seconds = time.perf_counter() - started
        self.releases()
        return self.seen
