"""What a Hello says, checked: who the peer is, where it serves pieces, what its links carry. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proto.config.values import HostPort, parse_host_port, parse_zone, plain_address
from proto.errors import DigestInvalid, TicketInvalid
from proto.ids import peer_id_from_bytes
from proto.wire.handshake import PROTOCOL_VERSION
from proto.wire.tickets import check_hello
from supernode.control.peer_session import TEXT_MAX, PeerInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proto.config.values import Network
    from proto.ids import PeerId
    from proto.wire.handshake import Hello

SLOTS_MAX: Final = 64


class SessionEnd(Exception):
    """Ends the session. `code` is a Refused code, or empty when there is nobody left to tell.

    `silent`: the peer was not heard of any more.
    """

    def __init__(self, code: str, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.silent = silent


def read_hello(
    hello: Hello,
    remote: str,
    nonce: bytes,
    supernode_key: bytes,
    advertise_allow: Sequence[Network] = (),
    member: PeerId | None = None,
) -> PeerInfo:
    """Check a Hello; `member` is whose certificate it was. Raises SessionEnd with code version, identity or frame.

    A peer whose pieces are to be fetched from another address than it connects from, and from none of
    `advertise_allow`, may fetch and is asked for nothing.
    """
    if hello.version != PROTOCOL_VERSION:
        raise SessionEnd("version", f"protocol version {hello.version}: this supernode speaks {PROTOCOL_VERSION}")
    try:
        peer = peer_id_from_bytes(hello.peer)
        check_hello(peer, nonce, supernode_key, hello.proof)
    except (DigestInvalid, TicketInvalid) as error:
        raise SessionEnd("identity", str(error)) from None
    if member is not None and peer != member:
        raise SessionEnd("identity", "Hello is by another key than the certificate")
    try:
        address, refused = _address(hello.upload_address, remote, advertise_allow)
        zone = parse_zone(hello.zone)
    except ValueError as error:
        raise SessionEnd("frame", f"Hello: {error}") from None
    numbers = (hello.upload_slots, hello.download_slots, hello.upload_rate_bytes_s, hello.download_rate_bytes_s)
    if min(numbers) < 0 or max(len(hello.boot_id), len(hello.agent)) > TEXT_MAX:
        raise SessionEnd("frame", "Hello: slots and rates are not negative, texts not above 256 characters")
    return PeerInfo(
        peer=peer,
        boot_id=hello.boot_id,
        address=str(address),
        zone=zone,
        address_refused=refused,
        upload_slots=0 if refused else min(hello.upload_slots, SLOTS_MAX),
        download_slots=min(hello.download_slots, SLOTS_MAX),
        upload_rate_bytes_s=float(hello.upload_rate_bytes_s) or None,
        download_rate_bytes_s=float(hello.download_rate_bytes_s) or None,
        agent=hello.agent,
        delivery_address=str(HostPort(address.host, hello.delivery_port)) if 0 < hello.delivery_port < 65536 else "",
    )


def _address(announced: str, remote: str, advertise_allow: Sequence[Network]) -> tuple[HostPort, str]:
    """Where the peer serves pieces, and what it said where that may not be told to others. Raises ValueError."""
    address = parse_host_port(announced)
    if address.port == 0 or len(announced) > TEXT_MAX:
        raise ValueError("upload_address: HOST:PORT with a port above 0 expected")
    seen = HostPort(str(plain_address(remote)), address.port)
    if address.host in ("0.0.0.0", "::"):
        return seen, ""
    try:
        host = plain_address(address.host)
    except ValueError:
        return seen, announced
    if str(host) == seen.host or any(host in network for network in advertise_allow):
        return HostPort(str(host), address.port), ""
    return seen, announced
