"""Sessions on the two databases, the lock of a run, and who holds a lock that is waited for."""

from federation.databases.holders import naming_holders
from federation.databases.patience import patiently
from federation.databases.run_lock import RUN_LOCK, RunLock, run_lock
from federation.databases.sessions import (
    ANALYZE_TIMEOUT,
    DATABASE_ERRORS,
    OLDEST_SERVER,
    SIDES,
    asked,
    asking,
    connect,
    ddl,
    link_timeout,
    over_the_link,
    session_of,
)

__all__ = [
    "ANALYZE_TIMEOUT",
    "DATABASE_ERRORS",
    "OLDEST_SERVER",
    "RUN_LOCK",
    "SIDES",
    "RunLock",
    "asked",
    "asking",
    "connect",
    "ddl",
    "link_timeout",
    "naming_holders",
    "over_the_link",
    "patiently",
    "run_lock",
    "session_of",
]
