"""read_hello: where a peer that announces itself may be sent for."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from proto.wire.handshake import PROTOCOL_VERSION, Hello
from proto.wire.tickets import Identity, sign_hello
from supernode.session.hello import read_hello

if TYPE_CHECKING:
    from supernode.control.peer_session import PeerInfo

SUPERNODE, PEER = Identity.generate(), Identity.generate()
NONCE = b"n" * 32
ALLOWED = (ipaddress.ip_network("10.7.0.0/16"), ipaddress.ip_network("fd00::/8"))


def info(upload_address: str, remote: str = "10.0.0.5", delivery_port: int = 0) -> PeerInfo:
    proof = sign_hello(PEER, NONCE, SUPERNODE.peer)
    hello = Hello(
        PROTOCOL_VERSION, PEER.peer, "boot", proof, upload_address, "", 4, 4, 0, 0, "test", delivery_port=delivery_port
    )
    return read_hello(hello, remote, NONCE, SUPERNODE.peer, ALLOWED)


@pytest.mark.parametrize(
    ("announced", "remote", "address"),
    [
        (":65002", "10.0.0.5", "10.0.0.5:65002"),
        ("10.0.0.5:65002", "10.0.0.5", "10.0.0.5:65002"),
        ("10.0.0.5:65002", "::ffff:10.0.0.5", "10.0.0.5:65002"),
        (":65002", "::ffff:10.0.0.5", "10.0.0.5:65002"),
        ("[fe80::1]:65002", "fe80::1", "[fe80::1]:65002"),
        ("10.7.1.2:65002", "10.0.0.5", "10.7.1.2:65002"),
        ("[fd00::7]:65002", "10.0.0.5", "[fd00::7]:65002"),
    ],
)
def test_others_are_sent_to_where_it_connects_from_or_the_operator_allows(
    announced: str, remote: str, address: str
) -> None:
    peer = info(announced, remote)
    assert (peer.address, peer.upload_slots, peer.address_refused) == (address, 4, "")


@pytest.mark.parametrize("announced", ["10.0.0.6:22", "registry.example.com:443", "a..b:80", "169.254.169.254:80"])
def test_nobody_is_sent_elsewhere_and_the_peer_may_fetch(announced: str) -> None:
    peer = info(announced, delivery_port=65004)
    assert (peer.upload_slots, peer.download_slots, peer.address_refused) == (0, 4, announced)
    assert peer.address.startswith("10.0.0.5:")
    assert peer.delivery_address == "10.0.0.5:65004"
