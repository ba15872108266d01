"""The way of payload bytes to a client: past the event loop, on a duplicate of the response's own socket.

aiohttp writes the headers; once they have left its buffer, threads send the body with sendfile (from the store) or
send (in passing), and aiohttp goes on with the connection afterwards. The file description stays non-blocking, as
the event loop set it: a thread never waits in the kernel longer than a short poll for the store's bytes. Nothing
here knows blobs, ranges or origins.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Final, TypeVar

from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from aiohttp import web

T = TypeVar("T")

# A client that takes no byte for this long is gone: containerd gives up after the same time without a byte.
STALL_LIMIT_S: Final = 300.0
# What one turn of a thread may send, so that a fast client does not keep a thread from the others.
_TURN_BYTES: Final = 8 * 1024 * 1024
# What has just been written here and is no longer than this leaves without a thread's turn, which would cost more.
AT_ONCE_MAX_BYTES: Final = 64 * 1024
# A reader on this machine empties its socket in well under this; going back to the event loop costs as much.
_POLL_MS: Final = 4


class ClientGone(ConnectionError):
    """The client hung up or takes no more bytes. Normal; aiohttp ends the connection quietly when it sees this."""


class ClientSocket:
    """The socket of one response, after its headers. Made by `take_over`; close() it in every case."""

    def __init__(self, transport: asyncio.Transport, pool: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._pool = pool
        original = transport.get_extra_info("socket")
        if original is None or transport.is_closing():
            raise ClientGone("client hung up before its response")
        self._socket = socket.socket(original.family, original.type, original.proto, fileno=os.dup(original.fileno()))
        self._socket.settimeout(0)

    async def send_file(self, file_fd: int, offset: int, count: int, sent: Callable[[int], None]) -> None:
        """Send `count` bytes of an open file from `offset` on; `sent` is called with the length of each part that left.

        Raises ClientGone, also for a client that stalls longer than STALL_LIMIT_S, and LocalError for the file.
        """
        end = offset + count
        while offset < end:
            part = await self.run(self._send_some, file_fd, offset, min(end - offset, _TURN_BYTES))
            offset += part
            if part:
                sent(part)
            else:
                await self.writable()

    def send_at_once(self, file_fd: int, offset: int, count: int) -> int:
        """Send what the socket takes now, on the event loop: for bytes that are in memory, AT_ONCE_MAX_BYTES at most.

        Returns the bytes that left. Errors are left to send_file, which meets them again.
        """
        try:
            return os.sendfile(self._socket.fileno(), file_fd, offset, count)
        except OSError:
            return 0

    async def send_text(self, content: bytes) -> None:
        """Send a few bytes of framing, on the event loop. Raises ClientGone."""
        while content:
            try:
                content = content[self._socket.send(content) :]
            except BlockingIOError:
                await self.writable()
            except OSError as error:
                raise ClientGone(f"client hung up: {error.strerror}") from error

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call in the pool. Does not return, even cancelled, while the thread may still use the socket."""
        future = self._loop.run_in_executor(self._pool, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.cut()
            await asyncio.wait({future})
            if not future.cancelled():
                future.exception()
            raise

    def send(self, content: memoryview | bytes) -> None:
        """Send all of it; blocking, for threads. Raises ClientGone."""
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                self._poll(int(STALL_LIMIT_S * 1000), or_gone=True)
            except OSError as error:
                raise ClientGone(f"client hung up: {error.strerror}") from error

    def send_some(self, content: memoryview) -> int:
        """In a thread: send until the socket stays full for a moment. Returns the bytes that left.

        Raises ClientGone, never after bytes have left in this call.
        """
        done = 0
        while done < len(content):
            try:
                done += self._socket.send(content[done:])
            except BlockingIOError:
                if not self._poll(_POLL_MS):
                    break
            except OSError as error:
                if done:
                    break
                raise ClientGone(f"client hung up: {error.strerror}") from error
        return done

    def cut(self) -> None:
        """End the connection where it is: the client sees a short body, never a wrong one. Idempotent."""
        with contextlib.suppress(OSError):  # not connected any more, which is what is wanted
            self._socket.shutdown(socket.SHUT_RDWR)
        self._transport.abort()

    def close(self) -> None:
        """Give the duplicate back. The connection lives on with aiohttp unless it was cut. Idempotent."""
        self._socket.close()

    def _send_some(self, file_fd: int, offset: int, count: int) -> int:
        """In a thread: send until the socket stays full for a moment. Returns the bytes that left.

        Raises ClientGone, or LocalError when the file cannot be read; never after bytes have left in this call,
        because the caller must know of them: trouble that lasts is met again in the next one.
        """
        done = 0
        while done < count:
            try:
                part = os.sendfile(self._socket.fileno(), file_fd, offset + done, count - done)
            except BlockingIOError:
                if self._poll(_POLL_MS):
                    continue
                break
            except OSError as error:
                if done:
                    break
                if error.errno == errno.EIO:
                    raise LocalError(f"reading the store failed at byte {offset}: check the disk") from error
                raise ClientGone(f"client hung up: {error.strerror}") from error
            if part == 0:
                if done:
                    break
                raise LocalError(f"the store's file ends at byte {offset}: it was changed from outside")
            done += part
        return done

    def _poll(self, timeout_ms: int, *, or_gone: bool = False) -> bool:
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLOUT)
        ready = bool(poller.poll(timeout_ms))
        if or_gone and not ready:
            raise ClientGone(f"client took no byte for {timeout_ms // 1000} s")
        return ready

    async def writable(self) -> None:
        """Wait on the event loop, holding no thread, until the socket takes bytes again."""
        ready = asyncio.Event()
        self._loop.add_writer(self._socket.fileno(), ready.set)
        try:
            async with asyncio.timeout(STALL_LIMIT_S):
                await ready.wait()
        except TimeoutError:
            raise ClientGone(f"client took no byte for {STALL_LIMIT_S:.0f} s") from None
        finally:
            self._loop.remove_writer(self._socket.fileno())


async def take_over(request: web.Request, response: web.StreamResponse, pool: Executor) -> ClientSocket:
    """Send the response's headers, wait until they left aiohttp's buffer, and hand over its socket.

    Raises ClientGone. Afterwards the body is the caller's, and `response.write_eof()` ends it as usual.
    """
    transport = request.transport
    if transport is None:
        raise ClientGone("client hung up before its response")
    # A high-water mark of 0 makes drain() wait for an empty buffer: the body must not overtake the headers.
    transport.set_write_buffer_limits(high=0)
    writer = await response.prepare(request)
    while writer is not None and transport.get_write_buffer_size() > 0:
        if transport.is_closing():
            raise ClientGone("client hung up before its response")
        await writer.drain()
        await asyncio.sleep(0)
    transport.set_write_buffer_limits()
    return ClientSocket(transport, pool)
