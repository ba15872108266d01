"""Who says anything at all to a supernode: members gone bad, in sessions of their own, and strangers who get none.

They run in a process of their own, which leaves the processors to others: theirs would be other machines' in a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.cluster.processes import WAIT_S, run
from proto.ids import Digest
from proto.pieces import PieceLayout, mask_to_bytes
from proto.runtime import tls
from proto.wire import codec, messages
from proto.wire.messages import FetchReason, Message, Source
from proto.wire.tickets import Identity
from tests.support.pullers import REPOSITORY
from tests.unit.supernode.harness import At, BarePeer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence


IN_A_FRAME = 50
# A member waits until so many were taken before it says more.
FRAMES_AHEAD = 5
# Of one member, for each frame: it may be refused for as long as it likes to try.
SESSIONS_PER_FRAME_MAX = 4
# Generous.
SECONDS_PER_MESSAGE_MAX = 0.02
# So many of its messages break the protocol, which ends its session.
_BREAKS_PROTOCOL = 1 / 200
_UPGRADE = (
    b"GET /v1/session HTTP/1.1\r\nHost: supernode\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass(frozen=True)
class Attack:
    """By so many at once, who say so many things in all about these blobs of `upstream`, all of one size.

    `join_file` is empty for a supernode with --open.
    """

    api_address: str
    join_file: str
    upstream: str
    digests: list[str]
    size_bytes: int
    strangers: bool
    messages: int
    bad_ones: int = 8

    def carry_out(self) -> int:
        """In another process, to the end; how many sessions or connections it took. Raises ProcessError."""
        argv = ["nice", "-n", "10", sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(self))]
        timeout_s = WAIT_S + self.messages * SECONDS_PER_MESSAGE_MAX
        return int(run(argv, cwd=Path(__file__).parents[2], timeout_s=timeout_s).stdout)

    def run(self) -> int:
        """The same in this one."""
        return sum(asyncio.run(self._attack()))

    async def _attack(self) -> list[int]:
        return await asyncio.gather(*(self._by_one(random.Random(seed)) for seed in range(self.bad_ones)))

    async def _by_one(self, rng: random.Random) -> int:
        words = Vocabulary(rng, self.upstream, self.digests, self.size_bytes)
        count = self.messages // self.bad_ones
        if self.strangers:
            return await trespass(words, rng, self.api_address, count)
        join_file = Path(self.join_file) if self.join_file else None
        return await misbehave(words, At(self.api_address, join_file), count)


class Vocabulary:
    """Messages that a peer may send about these blobs, all of one size, with fields that may make sense."""

    def __init__(self, rng: random.Random, upstream: str, digests: Sequence[str], size_bytes: int) -> None:
        self._rng = rng
        self._upstream = upstream
        self._digests = digests
        self._layout = PieceLayout.of(size_bytes)

    def batch(self) -> list[Message]:
        return [self._something() for _ in range(IN_A_FRAME)]

    def _something(self) -> Message:
        rng, count = self._rng, self._layout.count
        number, piece = rng.randrange(6), rng.randrange(count)
        if rng.random() < _BREAKS_PROTOCOL:
            piece = rng.choice([-2, count])
        kind = rng.randrange(8)
        if kind < 3:
            return self._announce()
        if kind == 3:
            return messages.Withdraw(self._digest())
        if kind == 4:
            return messages.Stored(rng.randrange(50), number, piece, rng.randrange(1000))
        if kind == 5:
            return messages.Failed(rng.randrange(50), rng.choice([FetchReason.CORRUPT, FetchReason.BUSY, "nonsense"]))
        if kind == 6:
            return messages.ReaderMoved(number, piece)
        if rng.random() < 0.5:
            return messages.BlobChecked(number, False)
        return messages.OriginTried(number, rng.choice(["", "denied"]))

    def _digest(self) -> str:
        return self._rng.choice([*self._digests, str(Digest.of(self._rng.randbytes(4)))])

    def _announce(self) -> Message:
        rng, layout = self._rng, self._layout
        source = Source(rng.choice([self._upstream, self._upstream, "registry.invalid"]), self._repository())
        whole = rng.random() < 0.2
        held = layout.full_mask if whole else rng.getrandbits(layout.count)
        # Another size than the blob's makes of hashes a breach of the protocol.
        size_bytes = layout.size_bytes if whole else rng.choice([layout.size_bytes, layout.size_bytes, 0, 1])
        hashes = rng.randbytes(32 * layout.count) if whole else b""
        mask = mask_to_bytes(held, layout.count)
        return messages.Announce(
            self._digest(), (source,), rng.random() < 0.5, size_bytes, layout.piece_size_bytes, mask, hashes
        )

    def _repository(self) -> str:
        return self._rng.choice([REPOSITORY, "no/such"])


async def misbehave(words: Vocabulary, supernode: At, count: int) -> int:
    """A member says so many things, in as many sessions as that takes; how many sessions."""
    identity, said, sessions = Identity.generate(), 0, 0
    while said < count and sessions < SESSIONS_PER_FRAME_MAX * (1 + count // IN_A_FRAME):
        sessions += 1
        try:
            async with BarePeer.connected(supernode, identity) as peer:
                while said < count:
                    for _ in range(FRAMES_AHEAD):
                        await peer.send(*words.batch())
                        said += IN_A_FRAME
                    await peer.heard()
        except (aiohttp.ClientError, AssertionError, ConnectionError, TimeoutError):
            # Ended for a frame that breaks the protocol, or not let in while the one before is not over.
            continue
    assert said >= count, f"said {said} of {count} things in {sessions} sessions"
    return sessions


async def trespass(words: Vocabulary, rng: random.Random, address: str, count: int) -> int:
    """A stranger says so many things to who does not let it in, over one connection after the other; how many."""
    said = connections = 0
    async with contextlib.AsyncExitStack() as silent:
        while said < count:
            connections += 1
            # What breaks off is what the stranger is to see.
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                said += await _intrude(words, rng, address, silent)
    return connections


async def _intrude(words: Vocabulary, rng: random.Random, address: str, silent: contextlib.AsyncExitStack) -> int:
    """One connection, and what is said there whether anybody listens or not; how many things."""
    host, _, port = address.rpartition(":")
    context: ssl.SSLContext | None = rng.choice([None, tls.unverified_context()])
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    kind = rng.randrange(20)
    if kind == 0:
        # Says nothing more, and stays.
        silent.push_async_callback(_close, writer)
        return 1
    try:
        if kind == 1:
            body = json.dumps({"token": "abcdefgh", "request": rng.randbytes(40).hex(), "proof": ""}).encode()
            writer.write(b"POST /v1/join HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        elif kind == 2:
            writer.write(rng.randbytes(2000))
        else:
            writer.write(_UPGRADE + b"".join(_masked(codec.encode([each])) for each in words.batch()))
        async with asyncio.timeout(30.0):
            await writer.drain()
            await reader.read()
    finally:
        await _close(writer)
    return IN_A_FRAME if kind > 2 else 1


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _masked(payload: bytes) -> bytes:
    """A binary WebSocket frame of a client (RFC 6455, 5.2), with a mask of zeros."""
    if len(payload) < 126:
        return bytes([0x82, 0x80 | len(payload)]) + bytes(4) + payload
    return bytes([0x82, 0x80 | 126]) + len(payload).to_bytes(2) + bytes(4) + payload


if __name__ == "__main__":
    print(Attack(**json.loads(sys.argv[1])).run())
