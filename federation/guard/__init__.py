"""Schema ``federation`` on either side: the version table and the history, kept by every step of either chain."""

from federation.guard.history import history_rows, record
from federation.guard.housekeeping import SCHEMA, VERSION_TABLE, current_release, forget, prepare

__all__ = ["SCHEMA", "VERSION_TABLE", "current_release", "forget", "history_rows", "prepare", "record"]
