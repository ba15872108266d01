"""This node's side of the session: who it says it is, whom it believes, and which messages need a look at their bytes.

Signed piece hashes are checked here before the downloader hears of them. Everything else goes to it as it came.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peer.downloader.contract import HashesLearned, LinkLost, LinkOpened, Received
from peer.node.live_blob import HASH_BYTES, hashes_mask
from peer.store.base import SignedHashes
from peer.transport.base import PieceSource
from peer.transport.delivery import DeliverySlot
from proto.errors import DigestInvalid, FrameInvalid, TicketInvalid
from proto.ids import Digest, PeerId, PeerName, short_peer
from proto.pieces import PieceLayout
from proto.wire.messages import (
    PROTOCOL_VERSION,
    SEED_NODE,
    Grant,
    Hello,
    InlineBlob,
    NodeKnown,
    PieceHashes,
    SwarmOpened,
)
from proto.wire.tickets import KEY_BYTES, check_hashes, sign_hello

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peer.metrics import Metrics
    from peer.node.driver import Driver
    from proto.wire.messages import Challenge, Message
    from proto.wire.tickets import Identity

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a Hello says of this node. Rates in bytes/s, 0 when not known; an empty host of the address: as seen."""

    upload_address: str
    boot_id: str
    zone: str
    upload_slots: int
    download_slots: int
    upload_rate_bytes_s: Callable[[], int]
    download_rate_bytes_s: Callable[[], int]
    agent: str


class SupernodeLink:
    """Implements peer.node.session.SessionOwner. `key_file` remembers the supernode's public key over restarts."""

    def __init__(
        self,
        driver: Driver,
        metrics: Metrics,
        identity: Identity,
        profile: Profile,
        key_file: Path,
        delivery: DeliverySlot | None = None,
    ) -> None:
        self._driver = driver
        self._metrics = metrics
        self._identity = identity
        self._profile = profile
        self._key_file = key_file
        self._key = read_key(key_file)
        self._delivery = delivery or DeliverySlot()
        self._swarms: dict[int, tuple[Digest, PieceLayout]] = {}
        # The supernode's own upload server, once this session named it.
        self._seed: PieceSource | None = None
        driver.supernode_key = self._key

    @property
    def supernode_key(self) -> bytes | None:
        """32 bytes, or None while no supernode was ever met. Safe to call from any thread."""
        return self._key

    def hello(self, challenge: Challenge) -> Hello:
        """See SessionOwner."""
        profile = self._profile
        return Hello(
            version=PROTOCOL_VERSION,
            peer=self._identity.peer,
            boot_id=profile.boot_id,
            proof=sign_hello(self._identity, challenge.nonce, challenge.supernode),
            upload_address=profile.upload_address,
            zone=profile.zone,
            upload_slots=profile.upload_slots,
            download_slots=profile.download_slots,
            upload_rate_bytes_s=profile.upload_rate_bytes_s(),
            download_rate_bytes_s=profile.download_rate_bytes_s(),
            agent=profile.agent,
            delivery_port=self._delivery.select(challenge.transport),
        )

    def opened(self, challenge: Challenge) -> None:
        """See SessionOwner."""
        if challenge.supernode != self._key:
            self._remember_key(challenge.supernode)
        self._forget_numbers()
        self._metrics.supernode_connected.set(1)
        self._driver.tell_open_blobs()
        self._driver.post(LinkOpened())

    def lost(self, reason: str) -> None:
        """See SessionOwner."""
        self._forget_numbers()
        self._metrics.supernode_connected.set(0)
        logger.debug("link_lost reason=%s", reason)
        self._driver.post(LinkLost())

    def received(self, message: Message) -> None:
        """See SessionOwner."""
        match message:
            case PieceHashes():
                self._hashes_received(message)
            case SwarmOpened():
                self._swarm_opened(message)
                self._driver.post(Received(message))
            case NodeKnown(node, peer, address, delivery_address):
                if delivery_address:
                    self._delivery.current.node_known(node, delivery_address)
                if node == SEED_NODE:
                    self._seed = PieceSource(PeerName(peer), address)
                self._driver.post(Received(message))
            case Grant() | InlineBlob():
                self._metrics.lease("granted")
                self._driver.post(Received(message))
            case _:
                if not self._delivery.current.received(message, self._swarms):
                    self._driver.post(Received(message))

    def _forget_numbers(self) -> None:
        self._seed = None
        self._swarms.clear()

    def _remember_key(self, key: bytes) -> None:
        if self._key is not None:
            logger.warning(
                "supernode_changed old=%s new=%s: tickets of the old one are no longer accepted",
                short_peer(PeerId(self._key)), short_peer(PeerId(key)),
            )  # fmt: skip
        self._key = self._driver.supernode_key = key
        try:
            part = self._key_file.with_suffix(".part")
            part.write_bytes(key)
            part.replace(self._key_file)
        except OSError as error:
            logger.error("supernode_key_not_kept %s: %s", self._key_file, error.strerror)

    def _swarm_opened(self, message: SwarmOpened) -> None:
        try:
            digest = Digest.parse(message.digest)
            layout = PieceLayout(message.size_bytes, message.piece_size_bytes)
        except (DigestInvalid, FrameInvalid) as error:
            logger.warning("swarm_ignored %s", error)
            return
        self._swarms[message.swarm] = (digest, layout)
        if self._seed is not None and layout.count > 1:
            # Its pieces set the pace of all: none of them shall wait for a connection.
            self._driver.connect(self._seed)
        self._driver.blob(digest).ticket = message.ticket

    def _hashes_received(self, message: PieceHashes) -> None:
        digest, layout = self._swarms.get(message.swarm, (None, None))
        if digest is None or layout is None or self._key is None:
            return
        count, rest = divmod(len(message.hashes), HASH_BYTES)
        if rest or message.first < 0 or message.first + count > layout.count:
            logger.warning("hashes_ignored digest=%s: they do not fit the blob", digest.short)
            return
        try:
            check_hashes(self._key, digest, layout, message.first, message.hashes, message.signature)
        except TicketInvalid as error:
            logger.warning("hashes_ignored digest=%s %s", digest.short, error)
            return
        signed = SignedHashes(message.first, message.hashes, message.signature)
        if self._driver.learn(self._driver.blob(digest), signed):
            self._driver.post(HashesLearned(digest, hashes_mask(signed)))


def read_key(path: Path) -> bytes | None:
    """The supernode's public key as remembered; None when there is none that is whole."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.error("supernode_key_not_read %s: %s", path, error.strerror)
        return None
    return key if len(key) == KEY_BYTES else None
