"""Schema ``federation`` on either side: version table, history and guard, kept by every step of either chain."""

from federation.guard.history import history_rows, record
from federation.guard.housekeeping import SCHEMA, VERSION_TABLE, current_release, forget, prepare, set_trigger
from federation.guard.mark import mark, settle, settle_over_link
from federation.guard.values import without_loss

__all__ = [
    "SCHEMA",
    "VERSION_TABLE",
    "current_release",
    "forget",
    "history_rows",
    "mark",
    "prepare",
    "record",
    "set_trigger",
    "settle",
    "settle_over_link",
    "without_loss",
]
