"""Members gone bad: each has a session and tickets like everybody, and holds up, misleads or uses up the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import blake3
import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.services import Cluster
from peer.transport.wire import HEAD_END, format_request, nonce_path, parse_answer, pieces_path
from proto.ids import Digest, peer_name, short_peer
from proto.pieces import PieceLayout, mask_to_bytes
from proto.wire.messages import Announce, Grant, PieceHashes, Source, SwarmOpened
from proto.wire.tickets import prove_connection
from tests.support.counts import assert_received
from tests.support.evil_uploads import EvilUploads
from tests.support.operator import evicts
from tests.support.pullers import REPOSITORY, pull
from tests.support.sockets import receive
from tests.unit.supernode.harness import At, BarePeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cluster.counting_proxy import CountingProxy

pytestmark = [pytest.mark.client("docker-registry"), pytest.mark.asyncio]

MIB = 1 << 20
SIZE_BYTES = 16 * MIB
LAYOUT = PieceLayout.of(SIZE_BYTES)
BAD_HOST = "127.0.0.2"


@pytest.fixture
def cluster(origin: CountingProxy, tmp_path: Path) -> Iterator[Cluster]:
    """One that admits anybody: what a member's certificate is worth is tested elsewhere."""
    with Cluster(tmp_path, origin.address, supernode_flags=["--open", "--recovery", "0s"]) as running:
        yield running


def announce(origin: CountingProxy, digest: str, *, wanted: bool, held: bool) -> Announce:
    sources = (Source(origin.address, REPOSITORY),)
    mask = mask_to_bytes(LAYOUT.full_mask if held else 0, LAYOUT.count)
    return Announce(digest, sources, wanted, LAYOUT.size_bytes, LAYOUT.piece_size_bytes, mask)


class Slots:
    """Connections of one bad member to one upload port: a transfer that trickles, and requests that wait ahead."""

    def __init__(self, member: BarePeer, address: str, supernode_key: bytes, digest: str, ticket: bytes) -> None:
        self._member = member
        self._address = address
        self._server = peer_name(supernode_key)  # type: ignore[arg-type]  # a PeerId
        self._path = pieces_path(Digest.parse(digest), 0, 0)
        self._ticket = ticket
        self._over = threading.Event()
        self._sockets: list[socket.socket] = []

    @contextlib.contextmanager
    def taken(self, requests_ahead: int) -> Iterator[None]:
        trickle = threading.Thread(target=self._trickle, args=(self._ask(ahead=False),))
        trickle.start()
        for _ in range(requests_ahead):
            self._ask(ahead=True)
        try:
            yield
        finally:
            self._over.set()
            trickle.join()
            for sock in self._sockets:
                sock.close()

    def _ask(self, *, ahead: bool) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        sock = socket.socket()
        self._sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(WAIT_S)
        sock.bind((BAD_HOST, 0))
        sock.connect((host, int(port)))
        sock.sendall(format_request(nonce_path(), "bad"))
        head = b""
        while not head.endswith(HEAD_END):
            head += receive(sock)
        nonce = parse_answer(head.removesuffix(HEAD_END)).nonce
        proof = prove_connection(self._member.identity, self._server, nonce, self._ticket)
        sock.sendall(format_request(self._path, "bad", self._ticket, proof, ahead=ahead))
        return sock

    def _trickle(self, sock: socket.socket) -> None:
        sock.settimeout(0.1)
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                sock.recv(2048)
            time.sleep(0.05)


async def test_one_with_a_trickle_and_requests_ahead_takes_no_slot_from_others(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    first, second = push(SIZE_BYTES), push(SIZE_BYTES)
    victims = cluster.add_peers([None, None])
    async with BarePeer.connected(At(cluster.supernode.ready["api"])) as bad:
        assert (await asyncio.to_thread(pull, victims[0].proxy, first)).sha256 == first
        await bad.send(announce(origin, first, wanted=False, held=False))
        ticket = (await bad.expect(SwarmOpened)).ticket
        seed = cluster.supernode.ready["upload"]
        with Slots(bad, seed, bad.challenge.supernode, first, ticket).taken(requests_ahead=15):
            for victim in victims:
                assert (await asyncio.to_thread(pull, victim.proxy, second)).sha256 == second
    assert origin.ledger().gets(second) == 1
    assert_received(cluster, origin=0, passthrough=0)


async def test_strangers_bytes_under_claimed_hashes_reach_nobody(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    victims = cluster.add_peers([None, None])
    cluster.wait_for_sessions(2)
    hashes = b"".join(blake3.blake3(b"\xee" * LAYOUT.length(piece)).digest() for piece in range(LAYOUT.count))
    liars = [BarePeer() for _ in range(4)]
    async with contextlib.AsyncExitStack() as open_until_the_end:
        for liar in liars:
            uploads = open_until_the_end.enter_context(EvilUploads(LAYOUT))
            liar.upload_address = uploads.address
            await open_until_the_end.enter_async_context(liar.link(At(cluster.supernode.ready["api"])))
            await liar.send(replace(announce(origin, digest, wanted=False, held=True), hashes=hashes))
            await liar.expect(SwarmOpened)
        for victim in victims:
            answer = await asyncio.to_thread(pull, victim.proxy, digest)
            assert (answer.complete, answer.sha256) == (True, digest)
        for liar in liars:
            assert liar.of(PieceHashes) == []
    cluster.supernode.process.wait_for_line(f"offer_wrong peer={short_peer(liars[0].identity.peer)}")
    assert origin.ledger().gets(digest) == 1
    assert_received(cluster, origin=0, passthrough=0)
    assert victims[0].metrics().value("layercast_digest_checks_total", result="mismatch") == 0


async def test_members_that_take_nothing_of_what_they_want_hold_up_nobody(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    small, wanted_by_them, digest = push(MIB), push(SIZE_BYTES), push(SIZE_BYTES)
    victims = cluster.add_peers([None, None])
    for victim in victims:
        assert (await asyncio.to_thread(pull, victim.proxy, small)).sha256 == small
    async with contextlib.AsyncExitStack() as stack:
        takers = [
            await stack.enter_async_context(BarePeer.connected(At(cluster.supernode.ready["api"]))) for _ in range(8)
        ]
        for taker in takers:
            await taker.send(announce(origin, wanted_by_them, wanted=True, held=False))
        await asyncio.gather(*(taker.expect(Grant) for taker in takers))
        answers = await asyncio.gather(*(asyncio.to_thread(pull, victim.proxy, digest) for victim in victims))
        print(f"beside them {max(answer.elapsed_s for answer in answers):.1f} s")
    assert [(answer.complete, answer.sha256) for answer in answers] == [(True, digest)] * len(victims)
    assert_received(cluster, origin=0, passthrough=0)


class SilentUploads:
    """An upload port that takes connections, and what is asked there, and says nothing."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()


async def test_what_a_silent_member_alone_holds_comes_from_the_origin(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    first = cluster.add_peer()
    assert (await asyncio.to_thread(pull, first.proxy, digest)).sha256 == digest
    first.stop()
    wait_until(lambda: evicts(cluster.supernode, digest), "the blob to be used by nobody")
    # A new one has seen no transfers: it has no idea how long one takes.
    cluster.supernode.stop()
    cluster.supernode.start()
    second, bad = cluster.add_peer(), BarePeer()
    with SilentUploads() as bad.upload_address:
        async with bad.link(At(cluster.supernode.ready["api"])):
            await bad.send(announce(origin, digest, wanted=False, held=True))
            await bad.expect(SwarmOpened)
            answer = await asyncio.to_thread(pull, second.proxy, digest)
            print(f"{SIZE_BYTES} bytes after {answer.elapsed_s:.1f} s")
    assert (answer.complete, answer.sha256) == (True, digest)
    # By the supernode, once more for all: the node itself would have gone there long after.
    assert_received(second, seed=SIZE_BYTES, origin=0, passthrough=0)
    assert origin.ledger().blob_bytes(digest) == 2 * SIZE_BYTES


@pytest.mark.parametrize("address", ["a..b:80", "nobody.invalid:80", "127.0.0.9:22"])
async def test_one_that_announces_a_strange_address_is_asked_for_nothing(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str], address: str
) -> None:
    digest = push(SIZE_BYTES)
    victims = cluster.add_peers([None, None])
    bad = BarePeer()
    bad.upload_address = address
    async with bad.link(At(cluster.supernode.ready["api"])):
        assert (await asyncio.to_thread(pull, victims[0].proxy, digest)).sha256 == digest
        await bad.send(announce(origin, digest, wanted=False, held=True))
        await bad.expect(SwarmOpened)
        assert (await asyncio.to_thread(pull, victims[1].proxy, digest)).sha256 == digest
        await asyncio.to_thread(cluster.supernode.process.wait_for_line, "address_not_allowed")
    assert origin.ledger().gets(digest) == 1
    assert_received(cluster, origin=0, passthrough=0)
    assert victims[1].metrics().value("layercast_piece_failures_total", reason="local") == 0
