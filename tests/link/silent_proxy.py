"""A TCP proxy between cloud and hospital that can fall silent: both ends stay connected, and nothing comes through."""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"


class SilentProxy:
    """Forwards to ``port`` from its own ``port``, in a thread, from ``with`` to the end of it.

    `silence` keeps every byte back, of connections that are open and of new ones, which are still accepted; as a
    hospital whose machine acknowledges and whose server says nothing. `speak` hands over what was kept.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._waker = socket.socketpair()
        self._speaks = threading.Event()
        self._speaks.set()
        self._ends = False
        self._peers: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._ends = True
        self.speak()
        self._thread.join()
        for one in (self._listener, self._wakeup, self._waker, *self._peers.values()):
            one.close()
        self._selector.close()

    @property
    def silent(self) -> bool:
        return not self._speaks.is_set()

    def silence(self) -> None:
        self._speaks.clear()
        self._waker.send(b"x")

    def speak(self) -> None:
        self._speaks.set()
        self._waker.send(b"x")

    def _forward(self) -> None:
        while not self._ends:
            for key, _ in self._selector.select():
                if key.fileobj is self._wakeup:
                    self._wakeup.recv(1)
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._peers:
                    # In this very round its peer may have ended, and both be gone.
                    self._pass_on(key.fileobj)
                # What the kernel acknowledges meanwhile is answered later.
                self._speaks.wait()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection((HOST, self._target))
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            self._selector.register(one, selectors.EVENT_READ)
            self._peers[one] = other

    def _pass_on(self, source: socket.socket) -> None:
        target = self._peers[source]
        try:
            data = source.recv(65536)
            target.sendall(data)
        except OSError:
            data = b""
        if not data:
            for one in (source, target):
                self._selector.unregister(one)
                del self._peers[one]
                one.close()
