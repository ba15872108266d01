"""Nonsense on every port of running programs: each piece of it is refused by name, and the others are served on."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import time
from typing import TYPE_CHECKING

import aiohttp
import msgpack
import pytest
import pytest_asyncio

from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.proxy_process import CountingProxyProcess
from benchmarks.cluster.services import Cluster
from peer.transport.wire import bitfield_path, format_request, nonce_path, parse_answer, pieces_path
from proto.ids import Digest, peer_name
from proto.wire import codec
from proto.wire.handshake import PROTOCOL_VERSION, Challenge, Hello, Pong, Refused, Welcome
from proto.wire.messages import Announce, Source, SwarmOpened, Withdraw
from proto.wire.tickets import TICKET_LEEWAY_S, Identity, issue_ticket, prove_connection, sign_hello
from tests.support.counts import assert_received
from tests.support.descriptors import open_files
from tests.support.held import stored_layout
from tests.support.pullers import REPOSITORY, blob_target, get, pull
from tests.unit.supernode.harness import At, BarePeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from benchmarks.cluster.registry import Registry
    from benchmarks.cluster.services import Peer

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 2 * MIB
SOME_DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture(scope="module")
def cluster(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for the whole module: it must survive all of it."""
    directory = tmp_path_factory.mktemp("cluster")
    with (
        CountingProxyProcess(registry.host_port) as origin,
        Cluster(directory, origin.address, supernode_flags=["--open"]) as running,
    ):
        running.add_peer()
        running.wait_for_sessions(1)
        yield running


@pytest.fixture
def peer(cluster: Cluster, push: Callable[[int], str]) -> Iterator[Peer]:
    """The peer; afterwards it must serve a client as ever, by way of the supernode, with no more files open."""
    (peer,) = cluster.peers
    before = {service.name: open_files(service.process) for service in (peer, cluster.supernode)}
    yield peer
    digest = push(300_000)
    swarm_bytes = peer.received_bytes("seed")
    assert pull(peer.proxy, digest).sha256 == digest
    assert_received(peer, seed=swarm_bytes + 300_000)
    # A warm connection each way and to the origin may have come; what was refused must be gone.
    wait_until(
        lambda: all(open_files(service.process) <= before[service.name] + 8 for service in (peer, cluster.supernode)),
        "no more open files than before",
    )


# --- the peer's proxy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v2/library/random/blobs/", 404, "UNSUPPORTED"),
        (f"/v2/Library/blobs/{SOME_DIGEST}", 400, "NAME_INVALID"),
        (f"/v2/a/../../etc/blobs/{SOME_DIGEST}", 400, "NAME_INVALID"),
        (f"/v2/%2e%2e/%2e%2e/blobs/{SOME_DIGEST}", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 300}/blobs/{SOME_DIGEST}", 400, "NAME_INVALID"),
        (f"/v2/{'a/' * 2000}b/blobs/{SOME_DIGEST}", 400, "NAME_INVALID"),
        (f"/v2/%ff/blobs/{SOME_DIGEST}", 400, "NAME_INVALID"),
        ("/v2/library/random/uploads/1", 404, "UNSUPPORTED"),
        (f"{blob_target(SOME_DIGEST)}?ns=evil.example", 404, "NAME_UNKNOWN"),
        (f"{blob_target(SOME_DIGEST)}?ns=127.0.0.1:1", 404, "NAME_UNKNOWN"),
        (f"{blob_target(SOME_DIGEST)}?ns=http://quay.io/", 400, "NAME_INVALID"),
        (f"{blob_target(SOME_DIGEST)}?ns=user@quay.io", 400, "NAME_INVALID"),
        (f"{blob_target(SOME_DIGEST)}?ns=a%0d%0ab", 400, "NAME_INVALID"),
        (f"{blob_target(SOME_DIGEST)}?ns=", 400, "NAME_INVALID"),
        (f"{blob_target(SOME_DIGEST)}?ns=quay.io&ns=gcr.io", 400, "NAME_INVALID"),
        (f"/v2/evil.example:5000/library/random/blobs/{SOME_DIGEST}", 404, "NAME_UNKNOWN"),
        (f"{blob_target(SOME_DIGEST)}?{'q' * 9000}", 400, "NAME_INVALID"),
    ],
)
def test_a_malformed_request_is_a_registry_error(peer: Peer, target: str, status: int, code: str) -> None:
    refusals = refusals_noted(peer)
    answer = get(peer.proxy, target)
    assert (answer.status, json.loads(answer.start)["errors"][0]["code"]) == (status, code)
    wait_until(lambda: refusals_noted(peer) == refusals + 1, "a line in the log")


def refusals_noted(peer: Peer) -> int:
    return sum("refused kind=" in line for line in peer.process.log())


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND"])
def test_a_method_that_registries_do_not_have_is_a_registry_error(peer: Peer, method: str) -> None:
    connection = http.client.HTTPConnection(peer.proxy, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request(method, f"/v2/{REPOSITORY}/blobs/uploads/", body=b"x" * 10)
        response = connection.getresponse()
        assert response.status == 405
        assert json.loads(response.read())["errors"][0]["code"] == "UNSUPPORTED"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", (206, 0, 10)),
        ("bytes=-10", (206, SIZE_BYTES - 10, SIZE_BYTES)),
        (f"bytes={SIZE_BYTES - 1}-{10**18}", (206, SIZE_BYTES - 1, SIZE_BYTES)),
        (f"bytes={SIZE_BYTES}-", (416, 0, 0)),
        (f"bytes={10**18}-", (416, 0, 0)),
        ("bytes=-0", (416, 0, 0)),
        # what is no range means nothing: the whole blob
        ("bytes=9-5", (200, 0, SIZE_BYTES)),
        ("bytes=a-b", (200, 0, SIZE_BYTES)),
        ("pieces=0-1", (200, 0, SIZE_BYTES)),
        (f"bytes={'9' * 5000}-", (200, 0, SIZE_BYTES)),
    ],
)
def test_ranges_good_and_bad(peer: Peer, blob: str, asked: str, expected: tuple[int, int, int]) -> None:
    status, start, end = expected
    answer = get(peer.proxy, blob_target(blob), headers={"Range": asked})
    assert answer.status == status
    if status == 416:
        assert json.loads(answer.start)["errors"][0]["code"] == "RANGE_INVALID"
        assert answer.headers["content-range"] == f"bytes */{SIZE_BYTES}"
    else:
        assert answer.complete
        assert answer.received_bytes == end - start


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"\r\n" * 1000 + b"nonsense",
    ],
    ids=["tls", "no path", "version", "length", "header", "noise"],
)
def test_what_is_no_http_ends_its_own_connection_alone(peer: Peer, request_bytes: bytes) -> None:
    with connected(peer.proxy) as sock, contextlib.suppress(OSError):
        sock.sendall(request_bytes)
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(65536)
        assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0], answer


# --- sessions --------------------------------------------------------------------------------------------------------

BAD_FRAMES = {
    "not msgpack": b"\xc1",
    "not an array": msgpack.packb({"a": 1}),
    "truncated": codec.encode([Pong(1)])[:-1],
    "wrong types": msgpack.packb([[18, "x", 1, 2, 3]]),
    "too large": bytes(codec.FRAME_BYTES_MAX + 1),
    "monstrous": bytes(3 * codec.FRAME_BYTES_MAX),
    "too many messages": msgpack.packb([[6, 1]] * (codec.MESSAGES_MAX + 1)),
    "nested too deep": b"\x91" * 100_000,
    "the supernode's": codec.encode([Welcome(1, 2.0, "x")]),
    "a second hello": codec.encode([Hello(1, b"", "", b"", "", "", 0, 0, 0, 0, "")]),
    "no digest": codec.encode([Withdraw("md5:abc")]),
    "negative sizes": codec.encode([Announce(SOME_DIGEST, (), True, -1, 0, b"")]),
    "malformed source": codec.encode([Announce(SOME_DIGEST, (Source("a/b", "C"),), True, 0, 0, b"")]),
}


@pytest.mark.asyncio
async def test_bad_frames_end_their_own_sessions_and_leave_nothing_open(cluster: Cluster, peer: Peer) -> None:
    supernode = cluster.supernode
    files_before = open_files(supernode.process)
    for frame in BAD_FRAMES.values():
        async with BarePeer.connected(At(supernode.ready["api"])) as stranger:
            with contextlib.suppress(ConnectionError):  # hung up before it was read to its end
                await stranger.socket.send_bytes(frame)
            await stranger.ended()
            assert all(refused.code == "frame" for refused in stranger.of(Refused))
    cluster.wait_for_sessions(1)
    wait_until(lambda: open_files(supernode.process) <= files_before, "the sessions' sockets closed")
    # the monstrous one was never read, so it is refused by the WebSocket itself
    wait_until(
        lambda: sum("code=frame" in line for line in supernode.process.log()) >= len(BAD_FRAMES) - 1, "lines in the log"
    )


@pytest.mark.parametrize("wrong", ["version", "identity", "address"])
@pytest.mark.asyncio
async def test_a_wrong_hello_is_refused_by_name(cluster: Cluster, peer: Peer, wrong: str) -> None:
    api = cluster.supernode.ready["api"]
    me = Identity.generate()
    async with aiohttp.ClientSession() as client, client.ws_connect(f"ws://{api}/v1/session") as link:
        (challenge,) = codec.decode((await link.receive()).data)
        assert isinstance(challenge, Challenge)
        proof = sign_hello(me, challenge.nonce, challenge.supernode)
        hello = Hello(
            PROTOCOL_VERSION + 1 if wrong == "version" else PROTOCOL_VERSION,
            Identity.generate().peer if wrong == "identity" else me.peer,
            "boot",
            proof,
            "nowhere" if wrong == "address" else ":7",
            "",
            4,
            4,
            0,
            0,
            "test",
        )
        await link.send_bytes(codec.encode([hello]))
        refused = codec.decode((await link.receive()).data)[-1]
        assert isinstance(refused, Refused)
        assert refused.code == {"address": "frame"}.get(wrong, wrong)
    cluster.supernode.process.wait_for_line(f"session_ended .*code={refused.code}")


# --- the upload port -------------------------------------------------------------------------------------------------


class UploadClient:
    """One connection to an upload port."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._sock = connect(address)
        self._file = self._sock.makefile("rb")
        self.nonce = b""
        self.status, _ = self.ask(nonce_path())

    def __enter__(self) -> UploadClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._sock.close()

    def ask(self, path: str, ticket: bytes = b"", proof: bytes = b"") -> tuple[int, bytes]:
        """Status and body."""
        return self.send(format_request(path, self._address, ticket, proof))

    def send(self, request: bytes) -> tuple[int, bytes]:
        """The answer to a request of the caller's own making."""
        self._sock.sendall(request)
        lines: list[bytes] = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            lines.append(line)
        answer = parse_answer(b"".join(lines).removesuffix(b"\r\n"))
        self.nonce = answer.nonce or self.nonce
        return answer.status, self._file.read(answer.length_bytes)


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


def connected(address: str) -> contextlib.closing[socket.socket]:
    return contextlib.closing(connect(address))


@pytest.fixture
def blob(peer: Peer, push: Callable[[int], str]) -> str:
    """One that the peer holds."""
    digest = push(SIZE_BYTES)
    assert pull(peer.proxy, digest).complete
    return digest


@pytest_asyncio.fixture
async def downloader(cluster: Cluster, blob: str) -> AsyncIterator[tuple[Identity, bytes]]:
    """A peer with a good ticket for the blob."""
    async with BarePeer.connected(At(cluster.supernode.ready["api"])) as stranger:
        sources = (Source(cluster.origin, REPOSITORY),)
        await stranger.send(Announce(blob, sources, True, 0, 0, b""))
        opened = await stranger.expect(SwarmOpened)
        yield stranger.identity, opened.ticket


@pytest.mark.asyncio
async def test_no_ticket_but_the_right_one_opens_the_upload_port(
    cluster: Cluster, peer: Peer, blob: str, downloader: tuple[Identity, bytes]
) -> None:
    me, ticket = downloader
    digest, other = Digest.parse(blob), Digest.parse(SOME_DIGEST)
    supernode = Identity.load_or_create(cluster.supernode.data_dir / "identity.key")
    soon_s, past_s = time.time() + 600.0, time.time() - TICKET_LEEWAY_S - 1.0
    upload = peer.ready["upload"]
    server = peer_name(Identity.load_or_create(peer.data_dir / "identity.key").peer)
    refused = {
        "none": (b"", "a ticket is needed"),
        "garbage": (b"\x00" * 200, "does not match"),
        "truncated": (ticket[:-1], "does not match"),
        "forged": (issue_ticket(me, digest, me.peer, soon_s), "does not match"),
        "expired": (issue_ticket(supernode, digest, me.peer, past_s), "has expired"),
        "another blob's": (issue_ticket(supernode, other, me.peer, soon_s), "is for blob"),
        "somebody else's": (issue_ticket(supernode, digest, Identity.generate().peer, soon_s), "does not match"),
    }
    for name, (shown, reason) in refused.items():
        for path in (pieces_path(digest, 0, 0), bitfield_path(digest)):
            with UploadClient(upload) as client:
                status, body = client.ask(
                    path, shown, prove_connection(me, server, client.nonce, shown) if shown else b""
                )
                assert (status, reason in body.decode()) == (403, True), (name, body)
    with UploadClient(upload) as mine, UploadClient(upload) as thief:
        proof = prove_connection(me, server, mine.nonce, ticket)
        status, piece = mine.ask(pieces_path(digest, 0, 0), ticket, proof)
        assert status == 200
        assert len(piece) == stored_layout(peer.data_dir, blob).length(0)
        status, body = thief.ask(pieces_path(digest, 0, 0), ticket, proof)
        assert (status, b"does not match" in body) == (403, True)
        assert mine.ask(pieces_path(digest, 0, 999), ticket, proof)[0] == 404
    noted = "upload_refused reason=ticket"
    wait_until(
        lambda: sum(noted in line for line in peer.process.log()) >= 2 * len(refused) + 1, "a line for each refusal"
    )
    shown_text = base64.urlsafe_b64encode(ticket).decode().rstrip("=")
    assert not any(shown_text in line or ticket.hex() in line for line in peer.process.log())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/blobs/sha256:abc/pieces/0-0 HTTP/1.1\r\n\r\n",
        f"GET /v1/blobs/{SOME_DIGEST}/pieces/9-1 HTTP/1.1\r\n\r\n".encode(),
        f"GET /v1/blobs/{SOME_DIGEST}/pieces/0-999999999 HTTP/1.1\r\n\r\n".encode(),
        b"GET /v1/../../etc/passwd HTTP/1.1\r\n\r\n",
        b"POST /v1/nonce HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"GET /v1/nonce HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
    ],
    ids=["digest", "backwards", "too many", "path", "method", "header", "noise"],
)
def test_a_malformed_upload_request_is_refused_and_noted(peer: Peer, request_bytes: bytes) -> None:
    noted = sum("upload_refused reason=malformed" in line for line in peer.process.log())
    with UploadClient(peer.ready["upload"]) as client:
        assert client.send(request_bytes)[0] == 400
    wait_until(
        lambda: sum("upload_refused reason=malformed" in line for line in peer.process.log()) == noted + 1, "a log line"
    )
