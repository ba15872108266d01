"""Ending blocking work from another thread: a flag, and the sockets that must be shut down to wake it.

It knows nothing of what the work is. Cancelling is final.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from peer.transport.sockets import shut_down

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator


class FetchCancelled(Exception):
    """Raised in the thread that worked, once its work was cancelled. No error: somebody wanted it."""


class Cancellation:
    """Shared by the thread that works and those that may end it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._children: set[Cancellation] = set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """End the work now: sleeping and blocked calls return at once. Idempotent."""
        with self._lock:
            self._event.set()
            for sock in self._sockets:
                shut_down(sock)
            for child in self._children:
                child.cancel()

    def check(self) -> None:
        """Raise FetchCancelled once cancelled."""
        if self._event.is_set():
            raise FetchCancelled

    def pause(self, seconds: float) -> None:
        """Sleep, or raise FetchCancelled as soon as cancelled."""
        if self._event.wait(seconds):
            raise FetchCancelled

    def attach(self, sock: socket.socket) -> None:
        """Have this socket shut down by cancel(). Raises FetchCancelled if that has happened."""
        with self._lock:
            self.check()
            self._sockets.add(sock)

    def detach(self, sock: socket.socket) -> None:
        """The socket is no longer this work's. Idempotent."""
        with self._lock:
            self._sockets.discard(sock)

    @contextlib.contextmanager
    def child(self) -> Iterator[Cancellation]:
        """A part of the work that can be ended by itself, and ends with the whole."""
        child = Cancellation()
        with self._lock:
            self.check()
            self._children.add(child)
        try:
            yield child
        finally:
            with self._lock:
                self._children.discard(child)
