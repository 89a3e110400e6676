"""Schema ``federation`` on either side: version table, history and guard, kept by every step of either chain."""

from federation.guard import storage
from federation.guard.books import (
    SCHEMA,
    VERSION_TABLE,
    current_release,
    forget,
    prepare,
    require_own,
    restore_books,
    set_trigger,
)
from federation.guard.history import history_rows, last_row, record, record_repair
from federation.guard.mark import mark, settle, settle_over_link
from federation.guard.nothing_lost import without_loss
from federation.guard.offline import from_its_release
from federation.guard.pair import Comparison, compare, part, renew, require_whole

__all__ = [
    "SCHEMA",
    "VERSION_TABLE",
    "Comparison",
    "compare",
    "current_release",
    "forget",
    "from_its_release",
    "history_rows",
    "last_row",
    "mark",
    "part",
    "prepare",
    "record",
    "record_repair",
    "renew",
    "require_own",
    "require_whole",
    "restore_books",
    "set_trigger",
    "settle",
    "settle_over_link",
    "storage",
    "without_loss",
]
