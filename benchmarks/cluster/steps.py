"""What each step of a piece's way costs one process, measured from inside: CPU, how much of it in the kernel, sleeps.

measure() puts a measuring function around each of the product's own, once, before any thread runs. A step counts its
own time alone, without that of steps within it. The kernel's part is what calls take that do nothing but ask it. The
measuring itself costs some microseconds a step, which are in the figures. It changes nothing else.
"""

from __future__ import annotations

import functools
import importlib
import json
import resource
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# How often at most it is looked what the whole process used.
_LOOK_S: Final = 0.02

# Where a step is, in the order of a piece's way: module, what in it, the step.
_STEPS: Final = (
    ("proto.wire.codec", "decode", "1 frame decoded"),
    ("peer.node.session", "Session._take", "2 grant heard"),
    ("supernode.session.session", "WebSocketSession._take", "2 report heard"),
    ("proto.runtime.driver", "Driver._turn", "3 turn of the machine"),
    ("peer.transport.client", "HttpTransport.start", "4 handed to a thread"),
    ("peer.transport.client", "HttpTransport._await_turn", "5 thread woken"),
    ("peer.transport.pool", "ConnectionPool.take", "5 thread woken"),
    ("peer.transport.connection", "HttpConnection.request", "6 request"),
    ("peer.transport.server", "UploadServer._read", "7 request read"),
    ("peer.transport.handler", "Answerer.ticket_of", "8 ticket"),
    ("peer.transport.server", "UploadServer._line_up", "9 turn of an upload"),
    ("peer.transport.server", "UploadServer._next", "9 turn of an upload"),
    ("peer.transport.handler", "Answerer.answer", "10 answer begun"),
    ("peer.transport.channel", "PlainChannel.send_file", "11 sendfile"),
    ("peer.transport.channel", "TlsChannel.send_file", "11 sendfile"),
    ("peer.transport.channel", "PlainChannel.await_left", "12 bytes left"),
    ("peer.transport.connection", "HttpConnection.read_head", "13 head received"),
    ("peer.node.workers", "_learn_with_piece", "14 signature"),
    ("peer.transport.connection", "HttpConnection.read_body", "15 received"),
    ("peer.store.writer", "Writer._hash", "16 hashed"),
    ("peer.store.writer", "Writer._put", "17 written"),
    ("peer.store.blob", "Blob.begin", "18 held"),
    ("peer.store.writer", "Writer.finish", "18 held"),
    ("peer.store.blob", "Blob.catch_up", "19 digest of the blob"),
    ("proto.runtime.driver", "Driver.post_threadsafe", "20 told the loop"),
    ("proto.wire.codec", "encode", "21 frame encoded"),
    ("peer.proxy.client_socket", "ClientSocket._send_some", "22 sent to the client"),
)
# Calls that are the kernel's work but for a few instructions.
_KERNEL: Final = (
    ("peer.transport.channel", "PlainChannel.send_file"),
    ("peer.transport.channel", "PlainChannel.await_left"),
    ("peer.transport.channel", "PlainChannel.hold"),
    ("peer.transport.channel", "PlainChannel.send"),
    ("peer.transport.channel", "PlainChannel.is_open"),
    ("peer.transport.channel", "PlainChannel.receive_now"),
    ("peer.transport.connection", "HttpConnection._send"),
    ("peer.transport.connection", "HttpConnection._wait"),
    ("peer.transport.connection", "HttpConnection._take"),
    ("peer.store.writer", "write_all"),
    ("peer.store.hashes", "write_all"),
    ("peer.store.blob_files", "write_all"),
    ("peer.store.digest", "read_into"),
    ("peer.store.disk", "DiskStore._free_bytes"),
)


@dataclass(slots=True)
class Cost:
    """Of a step, over all its calls. Sleeps are those that a thread went into by itself."""

    calls: int = 0
    cpu_s: float = 0.0
    kernel_s: float = 0.0
    sleeps: int = 0


@dataclass(slots=True)
class _Frame:
    """A step that is under way: what steps within it took, and what of its own time was the kernel's."""

    inner_s: float = 0.0
    inner_sleeps: int = 0
    kernel_s: float = 0.0


@dataclass(slots=True)
class _Whole:
    """What the process used so far."""

    user_s: float
    system_s: float
    sleeps: int

    @classmethod
    def now(cls) -> _Whole:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(used.ru_utime, used.ru_stime, used.ru_nvcsw)


@dataclass(slots=True)
class Steps:
    """Of this process."""

    costs: dict[str, Cost] = field(default_factory=dict)
    _stacks: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _first: _Whole | None = None
    _last: _Whole | None = None
    _looked_s: float = float("-inf")

    def measure(self) -> None:
        """From now on. Modules that a program does not have are left out by it never calling them."""
        for module, name in _KERNEL:
            _replace(module, name, self.kernel)
        for module, name, step in _STEPS:
            _replace(module, name, functools.partial(self.step, step))

    def write(self, path: Path) -> None:
        """Keep all, as JSON: the steps, and the whole process from the first of them to the last."""
        costs = {name: [cost.calls, cost.cpu_s, cost.kernel_s, cost.sleeps] for name, cost in self.costs.items()}
        first, last = self._first, self._last
        whole = [0.0, 0.0, 0]
        if first is not None and last is not None:
            whole = [last.user_s - first.user_s, last.system_s - first.system_s, last.sleeps - first.sleeps]
        path.write_text(json.dumps({"steps": costs, "whole": whole}))

    def _stack(self) -> list[_Frame]:
        stack: list[_Frame] | None = getattr(self._stacks, "frames", None)
        if stack is None:
            stack = self._stacks.frames = []
        return stack

    def step(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, which counts for the step."""
        cost = self.costs.setdefault(name, Cost())

        @functools.wraps(call)
        def measured(*arguments: Any, **named: Any) -> Any:
            stack, frame = self._stack(), _Frame()
            stack.append(frame)
            began_sleeps = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            began_s = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                spent_s = time.thread_time() - began_s
                sleeps = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - began_sleeps
                stack.pop()
                if stack:
                    stack[-1].inner_s += spent_s
                    stack[-1].inner_sleeps += sleeps
                with self._lock:
                    cost.calls += 1
                    cost.cpu_s += spent_s - frame.inner_s
                    cost.kernel_s += frame.kernel_s
                    cost.sleeps += sleeps - frame.inner_sleeps
                    self._look()

        return measured

    def kernel(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, whose time counts as the kernel's in the step around it."""

        @functools.wraps(call)
        def measured(*arguments: Any, **named: Any) -> Any:
            began_s = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                stack = self._stack()
                if stack:
                    stack[-1].kernel_s += time.thread_time() - began_s

        return measured

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self._last = _Whole.now()
            self._first = self._first or self._last


def _replace(module: str, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a function around one of a module, or of a class in it."""
    owner: Any = importlib.import_module(module)
    *classes, last = name.split(".")
    for each in classes:
        owner = getattr(owner, each)
    setattr(owner, last, wrap(vars(owner)[last]))
