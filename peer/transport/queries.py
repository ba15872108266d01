"""Questions to other peers about a blob: one request and its small answer, on the caller's own thread.

What the answer means is the caller's; pieces are peer.transport.client's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from peer.transport.connection import AnswerLate, ConnectionLost
from peer.transport.wire import HASHES_BYTES_MAX
from proto.errors import FrameInvalid, PeerBusy, RemoteError, TicketInvalid
from proto.ids import short_peer
from proto.pieces import KIB

if TYPE_CHECKING:
    from peer.transport.base import PieceSource
    from peer.transport.connection import HttpConnection
    from peer.transport.pool import ConnectionPool
    from peer.transport.wire import Answer

_BUFFER_BYTES: Final = 64 * KIB


def ask(pool: ConnectionPool, source: PieceSource, path: str, ticket: bytes, timeout_s: float) -> bytes | None:
    """The body of the answer, None for "not held". Raises PeerBusy, TicketInvalid or RemoteError."""
    give_up_s = time.monotonic() + timeout_s
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    peer = short_peer(source.peer)
    while True:
        connection = pool.take(source.address, encrypted=source.encrypted)
        keep = False
        try:
            if not connection.used:
                connection.open(buffer)
            connection.request(path, source.peer, ticket)
            answer, body = _read_answer(connection, give_up_s, buffer)
            keep = answer.keep_alive
        except ConnectionLost as lost:
            # A warm connection may have been closed by the other side while it was idle.
            if lost.early and connection.used:
                continue
            raise RemoteError(f"peer {peer}: connection lost") from None
        except AnswerLate:
            raise RemoteError(f"peer {peer}: no answer within {timeout_s:g} s") from None
        finally:
            pool.give(connection, keep=keep)
        return _checked(answer.status, body, source.address)


def _read_answer(connection: HttpConnection, give_up_s: float, buffer: memoryview) -> tuple[Answer, bytes]:
    answer, rest = connection.read_head(buffer, give_up_s - time.monotonic())
    if answer.length_bytes > HASHES_BYTES_MAX or len(rest) > answer.length_bytes:
        raise FrameInvalid(f"an answer of {answer.length_bytes} bytes: at most {HASHES_BYTES_MAX}")
    body = bytearray(answer.length_bytes)
    view = memoryview(body)
    view[: len(rest)] = rest
    filled = len(rest)
    while filled < len(body):
        filled += connection.read_body(view[filled:], give_up_s)
    return answer, bytes(body)


def _checked(status: int, body: bytes, address: str) -> bytes | None:
    if status == 404:
        return None
    if status == 503:
        raise PeerBusy(f"{address} is busy: ask another peer")
    if status == 403:
        raise TicketInvalid(f"{address} refused our ticket: announce again")
    if status != 200:
        raise FrameInvalid(f"{address} answered {status}")
    return body
