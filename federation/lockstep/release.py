"""Releases: revision ids that exist in both chains, in one order."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from federation.config import Config
from federation.databases import SIDES
from federation.environments import alembic_config
from federation.errors import Refused, Side

_ID = re.compile(r"[0-9A-Za-z_]{1,32}")
"""What a release's id may be: the guard takes nothing else for one."""


@dataclass(frozen=True)
class Releases:
    """The releases of both chains, oldest first. Position 0 is base, position n the n-th release."""

    local: tuple[Script, ...]
    cloud: tuple[Script, ...]
    directories: dict[Side, ScriptDirectory] = field(default_factory=dict, repr=False, compare=False)
    """Both chains as Alembic has read them, once."""

    @classmethod
    def load(cls, config: Config) -> Releases:
        """Read both chains.

        Raises Refused when one has branches, when they do not hold the same ids in the same order, or when one of their
        files cannot be imported.
        """
        directories = {side: _directory(config, side) for side in SIDES}
        local, cloud = (_chain(directories[side], side, config.root) for side in SIDES)
        ids = [[script.revision for script in chain] for chain in (local, cloud)]
        if ids[0] != ids[1]:
            odd = sorted(set(ids[0]) ^ set(ids[1])) or [one for one, other in zip(*ids, strict=True) if one != other]
            raise Refused(
                f"the chains do not pair up at {', '.join(odd)}",
                hint="a release has a file of the same id in both; where a side has nothing to do, it is empty",
            )
        return cls(local, cloud, directories)

    @property
    def ids(self) -> tuple[str, ...]:
        """Their ids, oldest first."""
        return tuple(script.revision for script in self.local)

    def is_contract(self, release: str) -> bool:
        """Whether the release removes something (``phase = "contract"`` in both files): then the cloud goes first.

        Raises Refused when its two files disagree, or name another phase.
        """
        phases = {getattr(self.script(side, release).module, "phase", "expand") for side in SIDES}
        if len(phases) > 1 or not phases <= {"expand", "contract"}:
            raise Refused(
                f"release {release} is {' and '.join(sorted(map(str, phases)))}",
                hint='both of its files say phase = "expand" or both phase = "contract"',
            )
        return phases == {"contract"}

    def order(self, release: str) -> tuple[Side, Side]:
        """Which side's half comes first on the way up; the way down is the other way round."""
        return ("cloud", "local") if self.is_contract(release) else ("local", "cloud")

    def fit(self, local: int, cloud: int) -> bool:
        """Whether the hospital at ``local`` has what the cloud at ``cloud`` needs."""
        between = self.ids[min(local, cloud) : max(local, cloud)]
        return all(self.is_contract(release) == (cloud > local) for release in between)

    def contract_in_the_way(self, local: int, cloud: int) -> int | None:
        """The first contract release that local has done before the cloud's expand releases below it, or None.

        Only a restored cloud gets there: what those releases import, the hospital has removed.
        """
        for n in range(cloud + 1, local + 1):
            if self.is_contract(self.ids[n - 1]):
                if n > cloud + 1:
                    return n
                cloud = n
        return None

    def closing(self, local: int, cloud: int) -> str:
        """The command that brings two databases that are apart to one release, whatever has left them there."""
        contract = self.contract_in_the_way(local, cloud)
        if contract is not None:
            return f"federation downgrade {self.at(contract - 1) or 'base'}"
        return f"federation upgrade {self.at(max(local, cloud))}"

    def script(self, side: Side, release: str) -> Script:
        """The revision of ``release`` on ``side``."""
        return (self.local if side == "local" else self.cloud)[self.ids.index(release)]

    def position(self, release: str | None, side: Side | None = None) -> int:
        """Where ``release`` stands; None and ``base`` are 0, ``head`` the last.

        Raises Refused when no such release exists: as a database's own release, the files are older than the database.
        """
        if release in {None, "base"}:
            return 0
        if release == "head":
            return len(self.ids)
        if release in self.ids:
            return self.ids.index(str(release)) + 1
        known = f"the releases are {', '.join(self.ids) or 'none'}"
        if side is not None:
            raise Refused(f"the database is at {release}, for which there is no revision file ({known})", side=side)
        raise Refused(f"there is no release {release}", hint=known)

    def resolve(self, target: str, local: int, cloud: int) -> int:
        """The position that ``target`` means: a name, or ``-n`` below the last whole release. Raises Refused."""
        if target.startswith("-") and target[1:].isdigit():
            position = min(local, cloud) - int(target[1:])
            if position < 0:
                raise Refused(
                    f"there are no {target[1:]} releases below {self.at(min(local, cloud)) or 'base'}",
                    hint="federation downgrade base",
                )
            return position
        return self.position(target)

    def at(self, position: int) -> str | None:
        """The release at ``position``; None is base."""
        return self.ids[position - 1] if position else None


def _directory(config: Config, side: Side) -> ScriptDirectory:
    try:
        return ScriptDirectory.from_config(alembic_config(config, side))
    except CommandError as error:
        raise Refused(f"the chain cannot be read ({error})", side=side) from error


def _chain(directory: ScriptDirectory, side: Side, root: Path) -> tuple[Script, ...]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", module=r"alembic\.script")  # an id twice, a down_revision of no file
            scripts = tuple(directory.walk_revisions())[::-1]
        heads, bases = directory.get_heads(), directory.get_bases()
    except UserWarning as error:
        hint = f"each file of versions/{side} has an id of its own and follows one that is there; nothing was run"
        raise Refused(f"the chain cannot be read ({error})", side=side, hint=hint) from error
    except CommandError as error:
        raise Refused(f"the chain cannot be read ({error})", side=side) from error
    except Exception as error:  # a release's file is a program, which may raise anything
        raise Refused(
            f"a file of the chain cannot be imported ({_place(error, root)}{type(error).__name__}: {error})",
            side=side,
            hint="correct it; nothing was run",
        ) from error
    odd = [script.revision for script in scripts if not _ID.fullmatch(script.revision)]
    if odd:
        raise Refused(
            f"the release's id {odd[0]} holds more than 32 letters, digits and underscores",
            side=side,
            hint="number the releases: 0001, 0002, … (federation revision does)",
        )
    if len(heads) > 1 or len(bases) > 1 or any(script.is_merge_point for script in scripts):
        raise Refused(f"the chain has branches ({', '.join(heads)})", side=side, hint="a federation's chains are lines")
    return scripts


def _place(error: Exception, root: Path) -> str:
    """Where the user's own files raised it; a syntax error says the line itself."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}: "
    frames = [frame for frame in extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
