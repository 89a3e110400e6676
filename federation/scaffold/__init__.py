"""``federation revision``: the pair of files of a release, both halves right before anything ran.

With autogenerate the local half is what Alembic and the comparators find between the declared tables and the
hospital; the cloud half comes from the same declarations against the cloud's catalog, so it fits what the local half
will have made. What removes something goes into a contract release of its own, after an expand release with the rest.
The first release holds the link and nothing else: what is declared stands on it, and is compared once it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from alembic import command
from alembic.operations.ops import DowngradeOps, MigrationScript, UpgradeOps
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from federation.check import Difference, differences, flat
from federation.config import Config
from federation.databases import SIDES
from federation.drift.finding import ByHand, Finding
from federation.environments import alembic_config, configured
from federation.errors import FederationError, PendingChanges, Refused, Side
from federation.lockstep import Releases
from federation.operations.run import Run, run_of
from federation.scaffold.first import first
from federation.scaffold.lock_order import locked_first
from federation.scaffold.phases import Phases, split

Phase: TypeAlias = Literal["expand", "contract"]


@dataclass(frozen=True)
class Written:
    """A release that was written: its id, phase, two files, and what autogenerate has put into them."""

    release: str
    phase: Phase
    local: Path
    cloud: Path

    changes: tuple[Difference, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the release for JSON."""
        return {
            "release": self.release,
            "phase": self.phase,
            "local": str(self.local),
            "cloud": str(self.cloud),
            "changes": [change.to_dict() for change in self.changes],
        }


def revision(
    config: Config,
    message: str,
    *,
    autogenerate: bool = False,
    report: Callable[[Difference], object] = lambda _: None,
) -> list[Written]:
    """Write the pair of files of the next release; with ``autogenerate`` none, one, or two releases, or the `first`.

    ``report`` is called with each difference that no release can close: nothing is written for it.

    Raises PendingChanges when a database is not at the newest release, Refused when the ids are not numbers.
    """
    releases = Releases.load(config)
    last = releases.ids[-1] if releases.ids else "0000"
    if not last.isdigit():
        raise Refused(f"release {last} has no number that another could follow", hint="name releases 0001, 0002, …")
    phases: tuple[Phase, ...] = ("expand",)
    found: dict[Side, Phases] = {}
    if autogenerate and releases.ids:
        for side in SIDES:
            found[side], findings = _find(config, side, message)
            for finding in findings:
                for difference in differences(side, finding.to_diff_tuple()):
                    report(difference)
        phases = tuple(phase for phase in ("expand", "contract") if any(getattr(f, phase) for f in found.values()))
    ids = [f"{int(last) + 1 + n:0{len(last)}d}" for n, _ in enumerate(phases)]
    if not phases:
        return []
    files: dict[Side, list[Path]] = {"local": [], "cloud": []}
    before = {file for side in SIDES for file in _files(config, side)}
    try:
        for side in SIDES:
            files[side] = _write(
                config, side, message, dict(zip(ids, phases, strict=True)), last, autogenerate=autogenerate
            )
    except BaseException:
        for side in SIDES:
            for path in _files(config, side) - before:
                path.unlink(missing_ok=True)
        raise
    return [
        Written(release, phase, local, cloud, tuple(_changes(found, phase)))
        for release, phase, local, cloud in zip(ids, phases, files["local"], files["cloud"], strict=True)
    ]


def _changes(found: dict[Side, Phases], phase: Phase) -> Iterator[Difference]:
    """Describe the operations of a written release, as `federation check` would describe that they are missing."""
    for side in SIDES:
        ops = getattr(found[side], phase) if side in found else ()
        for diff in flat(UpgradeOps(ops=list(ops)).as_diffs()):
            yield from differences(side, diff)


def _files(config: Config, side: Side) -> set[Path]:
    """The files of a chain."""
    return set(Path(ScriptDirectory.from_config(alembic_config(config, side)).versions).glob("*.py"))


def _find(config: Config, side: Side, message: str) -> tuple[Phases, list[Finding]]:
    """What autogenerate finds on ``side``: operations by phase, and what no release can close. Writes nothing."""
    scripts: list[MigrationScript] = []

    def take(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
        scripts.extend(directives)
        directives.clear()

    _alembic_revision(config, side, message, take, autogenerate=True)
    return _without_findings(scripts[0].upgrade_ops)


def _without_findings(upgrade_ops: UpgradeOps | None) -> tuple[Phases, list[Finding]]:
    """Split the operations into their phases, apart from findings; one that is mended by hand refuses to be written."""
    ops = upgrade_ops.ops if upgrade_ops is not None else []
    findings = [op for op in ops if isinstance(op, Finding) and not isinstance(op, ByHand)]
    return split(op for op in ops if op not in findings), findings


def _write(
    config: Config, side: Side, message: str, phases: dict[str, Phase], last: str, *, autogenerate: bool
) -> list[Path]:
    def link(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
        (template,) = directives
        template.upgrade_ops, template.downgrade_ops = first(config, side)

    def pair(context: MigrationContext, _revision: object, directives: list[MigrationScript]) -> None:
        (template,) = directives
        found, _ = _without_findings(template.upgrade_ops)
        directives.clear()
        head = last if last != "0000" else "base"
        for release, phase in phases.items():
            up = UpgradeOps(ops=list(getattr(found, phase)))
            down = up.reverse_into(DowngradeOps(ops=[]))
            for half in (up, down):
                half.ops = locked_first(half.ops, config, side, run_of(context).metadata)
            directives.append(
                MigrationScript(
                    release,
                    up,
                    down,
                    message=message if phase == "expand" or len(phases) == 1 else f"{message} (contract)",
                    imports=set(template.imports),
                    head=head,
                    splice=False,
                )
            )
            head = release

    if autogenerate and last != "0000":
        written = _alembic_revision(config, side, message, pair, autogenerate=True)
    else:
        hook = link if autogenerate else None
        written = _alembic_revision(config, side, message, hook, autogenerate=False, rev_id=next(iter(phases)))
    paths = [Path(script.path) for script in written]
    for path, phase in zip(paths, phases.values(), strict=True):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('phase = "expand"', f'phase = "{phase}"', 1), encoding="utf-8")
    return paths


def _alembic_revision(
    config: Config,
    side: Side,
    message: str,
    hook: Callable[..., None] | None,
    *,
    autogenerate: bool,
    rev_id: str | None = None,
) -> list[Any]:
    settings = configured(Run(config, side, ask_hospital=False))
    # Alembic calls a hook where it runs the environment, which without autogenerate it does when told to.
    settings.set_main_option("revision_environment", str(hook is not None))
    try:
        made = command.revision(
            settings,
            message,
            autogenerate=autogenerate,
            rev_id=rev_id,
            process_revision_directives=hook,
        )
    except CommandError as error:
        kind = PendingChanges if "not up to date" in str(error) else FederationError
        raise kind(f"no release can be written ({error})", side=side, hint="federation upgrade, then again") from error
    return [script for script in (made if isinstance(made, list) else [made]) if script is not None]
