"""A link with delay: a TCP proxy on loopback that holds back what it passes on, and counts what passes.

``delay`` is the time of a round trip: half of it is added in each direction. Bandwidth is not limited.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"

CHUNK = 1 << 16
"""Bytes that are read at once."""

ON_THE_WAY = 1024
"""Chunks a direction that may be held back at one time."""


@dataclass
class Tally:
    """What PostgreSQL servers answered: rows, and round trips.

    postgres_fdw waits for ReadyForQuery after everything that it sends, so these are its round trips.
    """

    rows: int = 0
    round_trips: int = 0


class _Messages:
    """The messages of one server's bytes, however they are cut.

    https://www.postgresql.org/docs/current/protocol-message-formats.html
    """

    def __init__(self) -> None:
        self._skip, self._head = 0, b""

    def count(self, data: bytes, tally: Tally) -> None:
        """Count the messages that begin in ``data``."""
        if data == b"N" and not self._skip and not self._head:  # no TLS: the one answer that has no length
            return
        data, at = self._head + data, self._skip
        self._head = b""
        while at + 5 <= len(data):
            if data[at] == ord("D"):  # DataRow
                tally.rows += 1
            elif data[at] == ord("Z"):  # ReadyForQuery
                tally.round_trips += 1
            at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        self._skip = max(at - len(data), 0)
        self._head = data[at:] if at < len(data) else b""


class DelayProxy:
    """From ``with`` to the end of it, ``port`` of loopback leads to ``target`` of loopback, with a delay.

    It runs in a thread of its own. ``delay`` (seconds a round trip) may be changed at any time. A session that begins
    while ``counting`` is on is counted in ``tally``, which the caller may replace; its server must not use TLS.
    """

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self.target, self.delay = target, delay
        self.port = 0
        self.counting = False
        self.tally = Tally()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="delay proxy", daemon=True)
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, HOST, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.close()
            return
        messages = _Messages() if self.counting else None
        for source, sink, seen in ((reader, server_writer, None), (server_reader, writer, messages)):
            task = self._loop.create_task(self._carry(source, sink, seen))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: _Messages | None) -> None:
        """One direction of one connection: what is read is written half a delay later, in its order."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY)

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    return
                sink.write(data)
                await sink.drain()

        delivery = self._loop.create_task(deliver())
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await source.read(CHUNK):
                if seen:
                    seen.count(data, self.tally)
                await queue.put((time.monotonic() + self.delay / 2, data))
        with suppress(ConnectionError, asyncio.CancelledError):
            await queue.put((time.monotonic() + self.delay / 2, b""))
            await delivery
        delivery.cancel()
        with suppress(ConnectionError):
            sink.close()
