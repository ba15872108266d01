"""Pieces by TLS between members: the same transport, and who is given nothing."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.store.disk import DiskStore
from peer.transport.base import PieceSource
from peer.transport.client import HttpTransport
from peer.transport.server import UploadServer
from peer.transport.wire import nonce_path, pieces_path
from proto.config.values import HostPort
from proto.errors import RemoteError
from proto.ids import peer_name
from proto.wire.tickets import Identity, issue_ticket
from tests.conformance.transport_suite import TransportSuite, Wire
from tests.support.blobs import fill
from tests.support.member_certificates import MemberCertificates
from tests.unit.peer.transport.upload_harness import DOWNLOADER, LARGE, SMALL, SUPERNODE, UPLOADER, Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peer.transport.member_tls import MemberTls

NOT_LONG_S = 1e10


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    supernode, downloader, uploader = (Identity.generate() for _ in range(3))
    members = MemberCertificates()
    source = DiskStore(tmp_path / "source", size_limit_bytes=1 << 30, free_floor_bytes=0)
    target = DiskStore(tmp_path / "target", size_limit_bytes=1 << 30, free_floor_bytes=0)
    server = UploadServer(
        HostPort("127.0.0.1", 0),
        source,
        lambda: supernode.peer,
        peer_name(uploader.peer),
        slots=4,
        queue_max=1000,
        tls=members.tls_of(uploader),
        encrypted_alone=lambda digest: True,
    )
    transport = HttpTransport(
        downloader,
        workers=4,
        connect_timeout_s=WAIT_S,
        slot_wait_s=WAIT_S,
        tls=members.tls_of(downloader),
        encrypt_all=True,
    )
    yield Wire(supernode, downloader, uploader, source, target, server, transport)
    transport.close()
    server.close()
    source.close()
    target.close()


class TestEncryptedTransport(TransportSuite):
    pass


@pytest.fixture
def members() -> MemberCertificates:
    return MemberCertificates()


@pytest.fixture
def server(members: MemberCertificates, tmp_path: Path) -> Iterator[UploadServer]:
    """It holds SMALL, which is private."""
    uploader = Identity.generate()
    with_store = DiskStore(tmp_path / "store", size_limit_bytes=1 << 30, free_floor_bytes=0)
    fill(with_store, SMALL).close()
    serving = UploadServer(
        HostPort("127.0.0.1", 0),
        with_store,
        lambda: SUPERNODE.peer,
        UPLOADER,
        tls=members.tls_of(uploader),
        encrypted_alone=lambda digest: digest == SMALL.digest,
    )
    yield serving
    serving.close()
    with_store.close()


def test_a_plain_connection_gets_nothing_of_a_private_blob(server: UploadServer) -> None:
    with Client(server) as client:
        answer, body = client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())
        assert (answer.status, b"by TLS between members" in body) == (403, True)
    wait_until(lambda: server.counters.refused["plain"] == 1)


class TlsClient(Client):
    """A client that shows this member's certificate, whoever it is by its tickets."""

    def __init__(self, server: UploadServer, tls: MemberTls, *, receive_buffer_bytes: int = 0) -> None:
        super().__init__(server, receive_buffer_bytes=receive_buffer_bytes)
        assert tls.client is not None
        self.sock = tls.client.wrap_socket(self.sock)


def test_a_member_with_a_ticket_of_its_own_gets_it(server: UploadServer, members: MemberCertificates) -> None:
    with TlsClient(server, members.tls_of(DOWNLOADER)) as client:
        answer, body = client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())
        assert (answer.status, body) == (200, SMALL.content[:4096])


def test_a_receiver_that_takes_nothing_is_cut_off(members: MemberCertificates, tmp_path: Path) -> None:
    store = DiskStore(tmp_path, size_limit_bytes=1 << 30, free_floor_bytes=0)
    fill(store, LARGE).close()
    tls = members.tls_of(Identity.generate())
    server = UploadServer(
        HostPort("127.0.0.1", 0), store, lambda: SUPERNODE.peer, UPLOADER, send_timeout_s=1.0, tls=tls
    )
    with TlsClient(server, members.tls_of(DOWNLOADER), receive_buffer_bytes=4096) as client:
        client.begin_large()
        wait_until(lambda: server.counters.refused["stalled"] + server.counters.refused["gone"] >= 1)
        wait_until(lambda: server.active == 0)
    server.close()
    store.close()


def test_a_certificate_of_another_member_than_the_tickets_gets_nothing(
    server: UploadServer, members: MemberCertificates
) -> None:
    with TlsClient(server, members.tls_of(Identity.generate())) as client:
        assert client.ask(pieces_path(SMALL.digest, 0, 0), *client.ticket())[0].status == 403


def test_who_is_certified_by_somebody_else_is_not_spoken_to(server: UploadServer) -> None:
    stranger = MemberCertificates().tls_of(DOWNLOADER)
    with pytest.raises((OSError, EOFError)):
        TlsClient(server, stranger).ask(nonce_path())


def test_who_shows_no_certificate_is_not_spoken_to(server: UploadServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Client(server) as client:
        client.sock = context.wrap_socket(client.sock)
        with pytest.raises((OSError, EOFError)):
            client.ask(nonce_path())


def test_a_handshake_that_does_not_end_keeps_nobody_waiting(server: UploadServer, members: MemberCertificates) -> None:
    with socket.create_connection(("127.0.0.1", int(server.address.split(":")[1]))) as silent:
        silent.sendall(b"\x16\x03\x01")
        wait_until(lambda: server.connections == 1)
        test_a_member_with_a_ticket_of_its_own_gets_it(server, members)


def test_another_node_at_that_address_is_asked_for_nothing(server: UploadServer, members: MemberCertificates) -> None:
    transport = HttpTransport(DOWNLOADER, tls=members.tls_of(DOWNLOADER))
    ticket = issue_ticket(SUPERNODE, SMALL.digest, DOWNLOADER.peer, NOT_LONG_S)
    expected = PieceSource(peer_name(Identity.generate().peer), server.address, encrypted=True)
    with pytest.raises(RemoteError, match="another node"):
        transport.bitfield(expected, SMALL.digest, ticket, WAIT_S)
    transport.close()
