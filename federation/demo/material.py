"""What the deployment brings to its demo: rows for the hospital, and queries as its app asks them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from federation.config import Config
from federation.errors import PreconditionMissing


@dataclass(frozen=True)
class Table:
    """``count`` rows for one table of the exported schema; ``rows`` is iterated once, while they are loaded."""

    name: str
    columns: tuple[str, ...]
    rows: Iterable[Sequence[object]]
    count: int


@dataclass(frozen=True)
class Read:
    """One query, as the app sends it.

    ``expected`` is how many rows the hospital's account must see: at least one when it is None. ``counts``: the query
    answers with that number instead of the rows. ``writes``: it is an UPDATE or the like, so the transaction is not
    READ ONLY; it is rolled back as all are. ``explained``: its rows are shown, and what of it was sent to the hospital.
    """

    title: str
    sql: str
    expected: int | None = None
    counts: bool = False
    writes: bool = False
    explained: bool = False


@dataclass(frozen=True)
class Material:
    """``tables`` for the site's id, in the order in which they are filled, and ``reads``.

    The first read is asked one release below head too.
    """

    tables: Callable[[UUID], Iterable[Table]]
    reads: tuple[Read, ...]


def load_material(config: Config) -> Material:
    """The module that ``[demo] module`` names, importable from the folder of federation.toml.

    Raises PreconditionMissing when none is named, or when it cannot be imported or lacks ``tables`` or ``reads``.
    """
    name = config.demo.module
    if name is None:
        raise PreconditionMissing(
            f"the federation.toml in {config.root} names no rows for a demo",
            hint='name a module there ([demo] module = "versions.demo"), or another file with --config',
        )
    # As Alembic does for its own files (prepend_sys_path): a console script's path does not hold the clone.
    sys.path.insert(0, str(config.root))
    try:
        module = importlib.import_module(name)
        return Material(module.tables, module.reads)
    except (ImportError, AttributeError) as error:
        raise PreconditionMissing(
            f"demo.module names {name}, which is no demo ({error})",
            hint=f"it is imported from {config.root} and holds tables(site) and reads",
        ) from error
    finally:
        sys.path.remove(str(config.root))
