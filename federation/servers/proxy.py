"""A link that can be slow, silent or down: a TCP proxy on loopback in front of a server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"

CHUNK = 1 << 16
"""The most bytes that are read at once."""

ON_THE_WAY = 1024
"""The most chunks that may be held back in each direction."""


@dataclass
class Tally:
    """The answers of PostgreSQL servers, counted: rows, and round trips.

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


class Proxy:
    """From ``with`` to the end of it, ``port`` of loopback leads to ``target`` at ``host``, by a thread of its own.

    ``delay`` is the time of a round trip in seconds, half of it added in each direction, and may be changed at any
    time; bandwidth is not limited. A session that begins while ``counting`` is on is counted in ``tally``, which the
    caller may replace; its server must not use TLS.
    """

    def __init__(self, target: int, delay: float = 0.0, *, host: str = HOST) -> None:
        self.target, self.host, self.delay = target, host, delay
        self.port = 0
        self.counting = False
        self.tally = Tally()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link proxy", daemon=True)
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._do(self._hang_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def silent(self) -> bool:
        """Whether every byte is kept back."""
        return not self._speaks.is_set()

    def silence(self) -> None:
        """Keep every byte back, of sessions that are open and of new ones, which are accepted and go no further.

        As a machine that acknowledges and whose server says nothing.
        """
        self._do(self._set_speaking(on=False))

    def speak(self) -> None:
        """Hand over the bytes that were kept back, and everything from now on."""
        self._do(self._set_speaking(on=True))

    def refuse(self) -> None:
        """Reset every session that is open and refuse new ones: as a machine without a server."""
        self._do(self._hang_up())

    def accept(self) -> None:
        """Take new sessions again."""
        self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Return when the thread has done it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _set_speaking(self, *, on: bool) -> None:
        (self._speaks.set if on else self._speaks.clear)()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, HOST, self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def _hang_up(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await asyncio.sleep(0)  # the transports are closed in the loop's next round

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio made one for this
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            # A server that waits for a session's first byte does not shut down, for up to authentication_timeout.
            await self._speaks.wait()
            server_reader, server_writer = await asyncio.open_connection(self.host, self.target)
        except (OSError, asyncio.CancelledError):
            self._writers.discard(writer)
            writer.close()
            return
        finally:
            self._tasks.discard(task)
        messages = _Messages() if self.counting else None
        for source, sink, seen in ((reader, server_writer, None), (server_reader, writer, messages)):
            self._writers.add(sink)
            task = self._loop.create_task(self._carry(source, sink, seen))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: _Messages | None) -> None:
        """One direction of one connection: what is read is written half a delay later, in its order."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY)

        async def deliver() -> None:
            with suppress(ConnectionError):
                while True:
                    due, data = await queue.get()
                    if (wait := due - time.monotonic()) > 0:
                        await asyncio.sleep(wait)
                    await self._speaks.wait()
                    if not data:
                        return
                    sink.write(data)
                    await sink.drain()

        delivery = self._loop.create_task(deliver())
        with suppress(asyncio.CancelledError):
            with suppress(ConnectionError):
                while data := await source.read(CHUNK):
                    if seen:
                        seen.count(data, self.tally)
                    await queue.put((time.monotonic() + self.delay / 2, data))
            await queue.put((time.monotonic() + self.delay / 2, b""))
            await delivery
        delivery.cancel()
        self._writers.discard(sink)
        with suppress(ConnectionError):
            sink.close()
