"""Chains of four for the guard's tests: three that add, the last takes a column away (contract)."""

from __future__ import annotations

from pathlib import Path

import chains_of_three as three


def write(root: Path) -> Path:
    """0001 to 0003 as in chains_of_three; 0004 undoes 0002's column, the cloud first."""
    chains = {
        side: {**chain, "0004": chain["0002"][::-1]} for side, chain in (("local", three.LOCAL), ("cloud", three.CLOUD))
    }
    three.write(root, local=chains["local"], cloud=chains["cloud"])
    for side in chains:
        file = root / "versions" / side / "0004.py"
        file.write_text(file.read_text() + '\n\nphase = "contract"\n')
    return root


def add_an_expand_release(root: Path) -> None:
    """0005: one more column, at the hospital."""
    text = three.REVISION.format(
        message="release 0005",
        release="0005",
        previous="0004",
        up='op.add_column("note", sa.Column("colour", sa.Text))',
        down='op.drop_column("note", "colour")',
    )
    (root / "versions/local/0005.py").write_text(text)
    (root / "versions/cloud/0005.py").write_text(
        three.REVISION.format(message="release 0005", release="0005", previous="0004", up="pass", down="pass")
    )
