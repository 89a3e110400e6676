"""The two Alembic environments, ``local`` and ``cloud``: each an env.py of a few lines over one runtime."""

from __future__ import annotations

import io
from typing import Any

from alembic.config import Config as AlembicConfig

from federation.config import Config
from federation.errors import PreconditionMissing, Side


def alembic_config(config: Config, side: Side, **attributes: Any) -> AlembicConfig:
    """Alembic's configuration of ``side``: its section of the alembic.ini beside federation.toml.

    ``attributes`` reach the runtime (``connection``: the session to run on).
    """
    ini = config.root / "alembic.ini"
    if not ini.exists():
        raise PreconditionMissing(
            f"there is no {ini}",
            hint="run the command in the folder of alembic.ini, or name its federation.toml with --config",
        )
    # What Alembic prints for its own command line is of no use to ours.
    made = AlembicConfig(ini, ini_section=side, attributes={"federation": config, **attributes}, stdout=io.StringIO())
    made.messaging_opts = {"quiet": True}  # a property that is computed unless it is set; it prints past ``stdout``
    return made
