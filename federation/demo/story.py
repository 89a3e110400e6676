"""The story that ``federation demo`` tells. It checks what it shows: what must not be seen ends it with an error."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from rich.markup import escape

from federation.administration import bootstrap
from federation.config import Config
from federation.databases import SIDES
from federation.demo.callers import Answer, Api, Caller, Explained
from federation.demo.loading import analyze, load, require_nothing_kept
from federation.demo.material import Material, Read, load_material
from federation.demo.screen import Screen
from federation.errors import VerificationFailed
from federation.lockstep import Direction, Outcome, State, Status, Step, downgrade, read_status, upgrade
from federation.lockstep.planned import preview
from federation.servers import Pair

OTHER_SITE = UUID(int=2)
"""Another hospital of the same app: the demo's own is 1."""


@dataclass
class Seen:
    """All that the demo has shown, and the variables that lead to its databases (they hold passwords)."""

    environment: Mapping[str, str] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)
    runs: list[Outcome] = field(default_factory=list)
    loaded: dict[str, int] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    sent: Explained | None = None
    status: Status | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON, without the variables."""
        return {
            "servers": self.servers,
            "runs": [run.to_dict() for run in self.runs],
            "loaded": self.loaded,
            "reads": [answer.to_dict() for answer in self.answers],
            "sent": self.sent and {"sql": self.sent.remote_sql, "rows_fetched": self.sent.fetched},
            "status": self.status and self.status.to_dict(),
            "seconds": round(self.seconds, 2),
        }


@contextmanager
def tell(file: Path | None, screen: Screen) -> Iterator[Seen]:
    """Tell it, for the federation.toml ``file``; in the block the two servers still run, with both databases at head.

    Of our environment only FEDERATION_PG_BIN counts: whatever else it names is somebody's real database. Raises
    VerificationFailed when somebody sees what is not theirs, or the hospital's account not all that is.
    """
    started = time.perf_counter()
    material = load_material(Config.load(file, {}))
    with ExitStack() as stack:
        screen.chapter("A hospital's server and a Supabase-like cloud come up")
        with screen.busy("starting two servers"):
            pair = stack.enter_context(Pair())
        story = _Story(pair, Config.load(file, pair.environment()), screen, material)
        story.servers(time.perf_counter() - started)
        story.bootstrap()
        story.upgrade()
        story.load()
        with Api.open(pair.authenticator_url()) as api:
            story.read(api)
            story.explain(api)
            story.there_and_back(api)
        story.seen.seconds = time.perf_counter() - started
        story.releases()
        yield story.seen


class _Story:
    """One telling; its chapters are its methods, in order."""

    def __init__(self, pair: Pair, config: Config, screen: Screen, material: Material) -> None:
        self.pair, self.config, self.screen, self.material = pair, config, screen, material
        self.seen = Seen(pair.environment())
        self.hospital = Caller("this hospital", config.roles.callers[0], config.site(), owns=True)
        self.callers = [
            self.hospital,
            Caller("another hospital", config.roles.callers[0], OTHER_SITE),
            *(Caller(role, role) for role in config.roles.denied),
        ]

    def servers(self, seconds: float) -> None:
        """What came up."""
        for side, server in (("local", self.pair.local), ("cloud", self.pair.cloud)):
            self.seen.servers[side] = server.binaries.version
            self.screen.line(f"[bold]{side}[/]", f"PostgreSQL {server.binaries.version} at {server.host}:{server.port}")
        self.screen.line(f"[dim]{seconds:.1f} s[/]")

    def bootstrap(self) -> None:
        """What an administrator does, once."""
        self.screen.chapter("Each administrator runs `federation bootstrap` once")
        for side in SIDES:
            started = time.perf_counter()
            with self.screen.busy(f"bootstrap {side}"):
                bootstrap.apply(self.config, side)
            seconds = time.perf_counter() - started
            self.screen.line(f"[bold]{side}[/]", "roles, database and privileges", f"[dim]{seconds:.2f} s[/]")

    def upgrade(self) -> None:
        """Both chains."""
        self.screen.chapter("`federation upgrade`: both chains in lockstep, the hospital first")
        self.go(Direction.UP, "head")

    def load(self) -> None:
        """Rows, at the hospital and nowhere else."""
        self.screen.chapter("The hospital's tables are filled, at the hospital")
        for table in self.material.tables(self.config.site()):
            with self.screen.bar(table.name, table.count) as advance:
                load(self.config, table, advance)
            self.seen.loaded[table.name] = table.count
        with self.screen.busy("analyze"):
            analyze(self.config)
        self.screen.line("[dim]ANALYZE: the cloud learns how many rows there are, and no value[/]")

    def read(self, api: Api) -> None:
        """Every query as every caller."""
        self.screen.chapter("The app's queries, through the cloud, as PostgREST sends them")
        api.ask(self.material.reads[0], self.hospital)  # opens the link, as the first request of a pooled connection
        answers = [[self.ask(api, read, caller) for caller in self.callers] for read in self.material.reads]
        self.screen.table(
            ["query", *(caller.title for caller in self.callers)],
            [[escape(read.title), *map(_cell, row)] for read, row in zip(self.material.reads, answers, strict=True)],
        )
        self.screen.line(
            "[dim]one pooled connection; for each query a transaction with the caller's role and claims, rolled back[/]"
        )

    def explain(self, api: Api) -> None:
        """What was sent."""
        for read in self.material.reads:
            if not read.explained:
                continue
            sent = self.seen.sent = api.explain(read, self.hospital)
            self.screen.chapter(f"“{escape(read.title)}” was one query at the hospital")
            self.screen.table(
                [*map(escape, sent.columns)], [[escape(_shown(value)) for value in row] for row in sent.rows]
            )
            self.screen.line(f"EXPLAIN: the hospital sent [bold]{sent.fetched}[/] rows for this Remote SQL")
            self.screen.sql(sent.remote_sql)

    def there_and_back(self, api: Api) -> None:
        """A release is undone and done again; the rows are still there."""
        read = self.material.reads[0]
        self.screen.chapter("`federation downgrade -1` and `federation upgrade`: a rollback, the cloud first, and back")
        for direction, target in ((Direction.DOWN, "-1"), (Direction.UP, "head")):
            release = self.go(direction, target).release or "base"
            if direction is Direction.DOWN:
                self.screen.line("[dim]what the release made is dropped with its values; the tables keep their rows[/]")
            answer = self.ask(api, read, self.hospital)
            self.screen.line(f"[bold]at {release}[/]", f"“{escape(read.title)}”, as this hospital: {_cell(answer)}")

    def releases(self) -> None:
        """The two releases side by side."""
        status = self.seen.status = read_status(self.config)
        if status.state is not State.WHOLE or status.local != status.head:
            raise VerificationFailed(f"the databases are not at head: {status.to_dict()}")
        require_nothing_kept(self.config)
        self.screen.chapter("The two databases, side by side")
        versions = self.seen.servers
        self.screen.table(
            ["", "hospital (local)", "cloud"],
            [
                ["release", f"[bold green]{status.local}[/]", f"[bold green]{status.cloud}[/]"],
                ["server", f"PostgreSQL {versions['local']}", f"PostgreSQL {versions['cloud']}"],
                ["rows kept", f"{sum(self.seen.loaded.values()):,}", "none, and none in its statistics"],
            ],
        )
        self.screen.line(f"[bold green]✓[/] {status.state.value}; seen and checked in {self.seen.seconds:.1f} s")

    def go(self, direction: Direction, target: str) -> Outcome:
        """Run to ``target``, a line a step."""
        planned = preview(self.config, target)
        messages = {(one.step.release, one.step.side): escape(one.message) for one in planned}
        colour = "green" if direction is Direction.UP else "yellow"

        def progress(step: Step, seconds: float) -> None:
            self.screen.line(f"[{colour}]{step}[/]", f"[dim]{seconds:.2f} s[/]", messages[step.release, step.side])

        run = upgrade if direction is Direction.UP else downgrade
        outcome = run(self.config, target, progress=progress)
        self.seen.runs.append(outcome)
        return outcome

    def ask(self, api: Api, read: Read, caller: Caller) -> Answer:
        """Ask, and check the answer. Raises VerificationFailed."""
        answer = api.ask(read, caller)
        self.seen.answers.append(answer)
        complaint = _complaint(answer, denied=caller.role in self.config.roles.denied)
        if complaint is not None:
            raise VerificationFailed(
                f"“{read.title}” as {caller.title}: {answer}, but {complaint}",
                side="cloud",
                hint="this is a defect: please report it with the servers' versions",
            )
        return answer


def _complaint(answer: Answer, *, denied: bool) -> str | None:
    """What should have been seen; None when it was."""
    expected = answer.read.expected
    if denied:
        return None if answer.rows is None else "the role must not be let in"
    if not answer.caller.owns:
        return "no row is theirs" if answer.rows else None
    if expected is None:
        return None if answer.rows else "there are some"
    return None if answer.rows == expected else f"there are {expected:,}"


def _cell(answer: Answer) -> str:
    """As the table has it."""
    colour = "yellow" if answer.rows is None else "green" if answer.rows else "red"
    took = f"  [dim]{answer.milliseconds:.1f} ms[/]" if answer.rows else ""
    return f"[{colour}]{answer}[/]{took}"


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return "" if value is None else str(value)
