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

_BUFFER_BYTES: Final = 64 * KIB


def ask(pool: ConnectionPool, source: PieceSource, path: str, ticket: bytes, timeout_s: float) -> bytes | None:
    """The body of the answer, None for "not held". Raises PeerBusy, TicketInvalid or RemoteError."""
    give_up_s = time.monotonic() + timeout_s
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    peer = short_peer(source.peer)
    while True:
        connection = pool.take(source.address)
        try:
            if not connection.used:
                pool.open(connection, buffer)
            return _ask_over(pool, connection, path, ticket, give_up_s, buffer)
        except ConnectionLost as lost:
            connection.close()
            # A warm connection may have been closed by the other side while it was idle.
            if not (lost.early and connection.used):
                raise RemoteError(f"peer {peer}: connection lost") from None
        except AnswerLate:
            connection.close()
            raise RemoteError(f"peer {peer}: no answer within {timeout_s:g} s") from None
        except BaseException:
            connection.close()
            raise


def _ask_over(
    pool: ConnectionPool, connection: HttpConnection, path: str, ticket: bytes, give_up_s: float, buffer: memoryview
) -> bytes | None:
    connection.request(path, ticket)
    answer, rest = connection.read_head(buffer, give_up_s - time.monotonic())
    if answer.length_bytes > HASHES_BYTES_MAX or len(rest) > answer.length_bytes:
        raise FrameInvalid(f"an answer of {answer.length_bytes} bytes: at most {HASHES_BYTES_MAX}")
    body = bytearray(answer.length_bytes)
    view = memoryview(body)
    view[: len(rest)] = rest
    filled = len(rest)
    while filled < len(body):
        filled += connection.read_body(view[filled:], give_up_s)
    pool.give(connection, keep=answer.keep_alive)
    if answer.status == 404:
        return None
    if answer.status == 503:
        raise PeerBusy(f"{connection.address} is busy: ask another peer")
    if answer.status == 403:
        raise TicketInvalid(f"{connection.address} refused our ticket: announce again")
    if answer.status != 200:
        raise FrameInvalid(f"{connection.address} answered {answer.status}")
    return bytes(body)
