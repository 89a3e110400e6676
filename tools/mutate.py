"""Change the toolkit in one place at a time, and see whether the tests notice: ``make mutate``.

The mutations are listed by hand in mutations.toml, each with the tests that should fail. mutmut and cosmic-ray change
Python alone; the binding and the guard are SQL, and each test here starts servers, so that a thousand random changes
would take days. Exit code 1 when a mutation survives that is not marked as equivalent, or no longer fits the code.

    python tools/mutate.py [ID…]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_name("mutations.toml")
WORKERS = len(os.sched_getaffinity(0))
TIMEOUT = 900
"""Seconds for the tests of one mutation; a mutation that makes them hang is noticed, too."""


@dataclass(frozen=True)
class Mutation:
    """``old``, which stands in ``file`` once, becomes ``new``; ``tests`` should notice.

    ``equivalent`` says why nobody could notice, where that is so.
    """

    id: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def fits(self) -> bool:
        """Whether the list is as old as the code."""
        return (ROOT / self.file).read_text("utf-8").count(self.old) == 1


def mutations() -> list[Mutation]:
    """All that are listed."""
    entries = tomllib.loads(LIST.read_text("utf-8"))["mutation"]
    return [Mutation(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]


def tried(mutation: Mutation, copy: Path) -> str:
    """``killed``, ``survived`` or ``broken`` (the tests did not run), in a copy of the tree."""
    file = copy / mutation.file
    text = file.read_text("utf-8")
    file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *mutation.tests]
    try:
        done = subprocess.run(
            words,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        file.write_text(text, "utf-8")
    return {0: "survived", 1: "killed"}.get(done.returncode, f"broken ({done.stdout.strip()[-300:]})")


def main() -> int:
    """Try the mutations that are named, or all."""
    chosen = [one for one in mutations() if one.id in sys.argv[1:] or len(sys.argv) == 1]
    stale = [one.id for one in chosen if not one.fits()]
    if stale:
        print(f"no longer in the code: {', '.join(stale)}")
        return 1
    copies: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        Path(folder).chmod(0o755)
        for n in range(WORKERS):
            copy = Path(folder, str(n))
            ignored = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", ".hypothesis")
            shutil.copytree(ROOT, copy, ignore=ignored)
            copies.put(copy)

        def one(mutation: Mutation) -> tuple[Mutation, str]:
            copy, began = copies.get(), time.monotonic()
            try:
                verdict = tried(mutation, copy)
            finally:
                copies.put(copy)
            note = f" ({mutation.equivalent})" if mutation.equivalent else ""
            print(f"{mutation.id:6} {verdict}{note}  {mutation.file}  {time.monotonic() - began:.0f} s", flush=True)
            return mutation, verdict

        results = list(pool.map(one, chosen))
    counted = [(mutation, verdict) for mutation, verdict in results if not mutation.equivalent]
    left = [mutation.id for mutation, verdict in counted if verdict != "killed"]
    killed = len(counted) - len(left)
    share = killed / max(1, len(counted))
    print(f"{killed} of {len(counted)} killed ({share:.0%}), {len(results) - len(counted)} equivalent")
    if left:
        print(f"not killed: {', '.join(left)}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
