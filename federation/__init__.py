"""Two Alembic chains in lockstep over postgres_fdw: rows stay at the hospital, the app stays in the cloud.

``import alembic`` comes first: Alembic loads its plugins in the middle of its own import, and a plugin that is
imported before Alembic would find it half made.
"""

import alembic as _alembic  # noqa: F401

__version__ = "0.1.0"
