"""A proxy that reads PostgreSQL's protocol: it numbers statements, and springs a trap at one of them.

Runner and servers talk through it, and so does the cloud's server to the hospital's (``link``). It works in `poll`, in
the caller's own thread: whatever a trap does, nothing moves meanwhile.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import selectors
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

HOST = "127.0.0.1"

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
"""Answered with no, so that what follows can be read."""

Phase = Literal["before", "at", "after"]
"""``before``: the server never sees the statement. ``at``: it has just got it. ``after``: it has answered, and the
answer is kept back."""


POLL = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS l"
"""How the runner's look at who waits begins, which it takes as often as it must: it has no number."""


@dataclass(frozen=True)
class Statement:
    """A simple query or a Parse, in the order of arrival on all ways: ``way`` is local, cloud or link."""

    way: str
    text: str

    def __str__(self) -> str:
        return f"{self.way}: {' '.join(self.text.split())[:80]}"


@dataclass(eq=False)
class Channel:
    """One client's connection through the proxy. ``backend`` is the process id at the server's end."""

    way: str
    client: socket.socket
    server: socket.socket
    backend: int = 0
    started: bool = False
    sent: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    kept: bytearray | None = None
    """What the server answered since the trap's statement, while it is kept back."""
    closed: bool = False


@dataclass
class Trap:
    """Springs once, at statement ``number`` (from 0)."""

    number: int
    phase: Phase
    spring: Callable[[Channel], bool]
    """Gets the statement's channel; whether statement or answer still passes on."""
    sprung: bool = False


class Wire:
    """Listens on a port for each of ``targets`` (way: port of the server), from ``with`` to the end of it."""

    def __init__(self, targets: Mapping[str, int]) -> None:
        self._selector = selectors.DefaultSelector()
        self._targets = dict(targets)
        self._listeners = {way: socket.create_server((HOST, 0)) for way in targets}
        self.ports = {way: listener.getsockname()[1] for way, listener in self._listeners.items()}
        self.channels: list[Channel] = []
        self.statements: list[Statement] = []
        self.by_number: list[Channel] = []
        self.trap: Trap | None = None
        self._room = memoryview(bytearray(65_536))

    def __enter__(self) -> Self:
        for way, listener in self._listeners.items():
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, way)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for channel in list(self.channels):
            self.close(channel)
        for listener in self._listeners.values():
            listener.close()
        self._selector.close()

    def watch(self, file: int) -> None:
        """Let `poll` also end when ``file`` can be read."""
        self._selector.register(file, selectors.EVENT_READ, None)

    def unwatch(self, file: int) -> None:
        self._selector.unregister(file)

    def arm(self, trap: Trap | None) -> None:
        """Count from 0 again."""
        self.trap = trap
        self.statements, self.by_number = [], []

    def poll(self, seconds: float) -> list[int]:
        """Pass on what there is, after waiting for it at most ``seconds``; the files of `watch` that can be read."""
        watched = []
        for key, _ in self._selector.select(seconds):
            if isinstance(key.data, str):
                self._accept(key.data)
            elif isinstance(key.data, Channel) and not key.data.closed:
                self._read(key.data, from_client=key.fileobj is key.data.client)
            elif key.data is None:
                watched.append(key.fd)
        return watched

    def close(self, channel: Channel) -> None:
        """Hang up on both ends."""
        if channel.closed:
            return
        channel.closed = True
        self.channels.remove(channel)
        for end in (channel.client, channel.server):
            self._selector.unregister(end)
            end.close()

    def _accept(self, way: str) -> None:
        client, _ = self._listeners[way].accept()
        try:
            server = socket.create_connection((HOST, self._targets[way]))
        except OSError:  # the server is down
            client.close()
            return
        channel = Channel(way, client, server)
        self.channels.append(channel)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ, channel)

    def _read(self, channel: Channel, *, from_client: bool) -> None:
        try:
            size = (channel.client if from_client else channel.server).recv_into(self._room)
        except OSError:
            size = 0
        if not size:
            self.close(channel)
        elif from_client:
            channel.sent += self._room[:size]
            self._from_client(channel)
        else:
            channel.answered += self._room[:size]
            self._from_server(channel)

    def _from_client(self, channel: Channel) -> None:
        """Pass on whole messages, up to a statement at which the trap springs."""
        ready = bytearray()
        while (message := self._next(channel.sent, typed=channel.started)) is not None:
            if not channel.started:
                code = struct.unpack_from("!I", message, 4)[0]
                if code in {SSL_REQUEST, GSS_REQUEST}:
                    channel.client.sendall(b"N")
                    continue
                channel.started = True
            elif message[:1] in b"QP" and POLL.encode() not in message:
                self.statements.append(Statement(channel.way, _text(message)))
                self.by_number.append(channel)
                trap = self.trap
                if trap is not None and not trap.sprung and len(self.statements) == trap.number + 1:
                    if trap.phase == "before":
                        self._send(channel.server, ready)
                        ready.clear()
                        trap.sprung = True
                        if not trap.spring(channel):
                            channel.sent.clear()
                            return
                    elif trap.phase == "at":
                        self._send(channel.server, ready + message + channel.sent)
                        channel.sent.clear()
                        trap.sprung = True
                        trap.spring(channel)
                        return
                    else:
                        channel.kept = bytearray()
            ready += message
        self._send(channel.server, ready)

    def _from_server(self, channel: Channel) -> None:
        ready = bytearray()
        while (message := self._next(channel.answered, typed=True)) is not None:
            if message[:1] == b"K":
                channel.backend = struct.unpack_from("!I", message, 5)[0]
            if channel.kept is None:
                ready += message
                continue
            channel.kept += message
            if message[:1] in b"ZG" and self.trap is not None:  # ready for the next, or for COPY's rows
                self.trap.sprung = True
                kept, channel.kept = channel.kept, None
                if self.trap.spring(channel):
                    ready += kept
                elif channel.closed:
                    return
        if not channel.closed:
            self._send(channel.client, ready)

    def _send(self, end: socket.socket, data: bytes | bytearray) -> None:
        if data:
            with suppress(OSError):  # its end is read next
                end.sendall(data)

    @staticmethod
    def _next(buffer: bytearray, *, typed: bool) -> bytes | None:
        """The next whole message, taken from ``buffer``."""
        head = 1 if typed else 0
        if len(buffer) < head + 4:
            return None
        length = head + struct.unpack_from("!I", buffer, head)[0]
        if len(buffer) < length:
            return None
        message = bytes(buffer[:length])
        del buffer[:length]
        return message


def _text(message: bytes) -> str:
    body = message[5:]
    if message[:1] == b"P":
        body = body.split(b"\0", 1)[1]
    return body.split(b"\0", 1)[0].decode(errors="replace")
