"""Reads through the cloud, as PostgREST runs a request: who asks, what comes back, what of it was sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from federation.demo.material import Read
from federation.errors import VerificationFailed, from_database


@dataclass(frozen=True)
class Caller:
    """Somebody with a JWT: ``role`` and, when logged in, ``sub``. ``owns``: the rows are theirs."""

    title: str
    role: str
    sub: UUID | None = None
    owns: bool = False

    @property
    def claims(self) -> str:
        """The claims that PostgREST puts into ``request.jwt.claims``."""
        return json.dumps({"role": self.role} | ({"sub": str(self.sub)} if self.sub else {}))


@dataclass(frozen=True)
class Answer:
    """What a caller got: ``rows``, or None and why it was ``refused``."""

    read: Read
    caller: Caller
    rows: int | None
    milliseconds: float
    refused: str | None = None

    def __str__(self) -> str:
        if self.rows is None:
            return "permission denied" if (self.refused or "").startswith("permission denied") else "refused"
        return f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}"

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "read": self.read.title,
            "caller": self.caller.title,
            "role": self.caller.role,
            "sub": self.caller.sub,
            "rows": self.rows,
            "refused": self.refused,
            "milliseconds": round(self.milliseconds, 2),
        }


@dataclass(frozen=True)
class Explained:
    """``rows`` that the caller got, the one statement that the hospital was sent, and how many rows it answered."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    remote_sql: str
    fetched: int


class Api:
    """PostgREST's way in: one pooled connection of the authenticator, on which all callers take turns."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, url: str) -> Iterator[Api]:
        """Log in; an error of the cloud becomes a FederationError."""
        try:
            with psycopg.connect(url) as connection:
                yield cls(connection)
        except psycopg.Error as error:
            raise from_database(error, side="cloud") from error

    def ask(self, read: Read, caller: Caller) -> Answer:
        """Run ``read`` for ``caller``. A caller who may not do it is an answer; anything else is an error."""
        started = time.perf_counter()
        try:
            with self._request(caller, read_only=not read.writes) as cursor:
                rows = cursor.execute(read.sql.encode()).fetchall()
        except psycopg.errors.InsufficientPrivilege as error:
            return Answer(read, caller, None, _since(started), error.diag.message_primary)
        return Answer(read, caller, rows[0][0] if read.counts else len(rows), _since(started))

    def explain(self, read: Read, caller: Caller) -> Explained:
        """The rows of ``read``, and how the cloud's planner got them.

        Raises VerificationFailed unless it was one statement, and the hospital sent no row that was not asked for.
        """
        with self._request(caller, read_only=True) as cursor:
            rows = cursor.execute(read.sql.encode()).fetchall()
            columns = tuple(column.name for column in cursor.description or ())
            cursor.execute(b"EXPLAIN (ANALYZE, VERBOSE, TIMING OFF, FORMAT JSON) " + read.sql.encode())
            scans = list(_foreign_scans((cursor.fetchone() or ([],))[0][0]["Plan"]))
        fetched = sum(map(_fetched, scans))
        if len(scans) != 1 or fetched != len(rows):
            raise VerificationFailed(
                f"“{read.title}” answers {len(rows):,} rows, and {fetched:,} were fetched by {len(scans)} statements",
                side="cloud",
            )
        return Explained(columns, rows, scans[0]["Remote SQL"], fetched)

    @contextmanager
    def _request(self, caller: Caller, *, read_only: bool) -> Iterator[psycopg.Cursor[Any]]:
        """One transaction, rolled back: GET and HEAD are READ ONLY, the role and the claims end with it."""
        self._connection.read_only = read_only
        with self._connection.transaction(force_rollback=True), self._connection.cursor() as cursor:
            cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(caller.role)))
            cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [caller.claims])
            yield cursor


def _foreign_scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Remote SQL" in plan:
        yield plan
    for part in plan.get("Plans", ()):
        yield from _foreign_scans(part)


def _fetched(scan: dict[str, Any]) -> int:
    """Rows that crossed the link: EXPLAIN gives averages a loop, and apart from them what the cloud threw away."""
    rows: float = (scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]
    return round(rows)


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
