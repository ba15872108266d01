"""This node's side of the session: its own identity, and the supernode's key that it trusts.

What the messages mean is the message handler's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peer.node.message_handler import MessageHandler
from peer.transport.base import PieceSource
from proto.errors import TicketInvalid
from proto.ids import PeerId, PeerName, short_peer
from proto.wire.messages import PROTOCOL_VERSION, Hello
from proto.wire.tickets import KEY_BYTES, check_hashes, sign_hello

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peer.node.node import Node
    from peer.store.base import SignedHashes
    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.messages import Challenge, Message, NodeKnown, PieceHashes
    from proto.wire.tickets import Identity

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """This node in a Hello. Rates in bytes/s, 0 if unknown. An address without a host: as the supernode sees it."""

    upload_address: str
    boot_id: str
    zone: str
    upload_slots: int
    download_slots: int
    upload_rate_bytes_s: Callable[[], int]
    download_rate_bytes_s: Callable[[], int]
    agent: str


class SupernodeConnection:
    """Implements peer.node.session.SessionOwner, and keeps what the messages bring (message_handler.NodeKeeper).

    `key_file` remembers the supernode's public key over restarts.
    """

    def __init__(self, node: Node, identity: Identity, profile: Profile, key_file: Path) -> None:
        self._node = node
        self._identity = identity
        self._profile = profile
        self._key_file = key_file
        self._key = read_key(key_file)
        self._messages = MessageHandler(self, node.delivery, node.driver.post)

    @property
    def supernode_key(self) -> bytes | None:
        """32 bytes, or None while no supernode was ever met. Safe to call from any thread."""
        return self._key

    # --- the session -------------------------------------------------------------------------------------------

    def hello(self, challenge: Challenge) -> Hello:
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
            delivery_port=self._node.delivery.select(challenge.transport),
        )

    def opened(self, challenge: Challenge) -> None:
        if challenge.supernode != self._key:
            self._remember_key(challenge.supernode)
        self._node.metrics.supernode_connected.set(1)
        self._node.blobs.tell_delivery()
        self._messages.session_opened()

    def lost(self, reason: str) -> None:
        self._node.metrics.supernode_connected.set(0)
        logger.debug("link_lost reason=%s", reason)
        self._messages.session_lost()

    def received(self, message: Message) -> None:
        self._messages.received(message)

    def _remember_key(self, key: bytes) -> None:
        if self._key is not None:
            logger.warning(
                "supernode_changed old=%s new=%s: tickets of the old one are no longer accepted",
                short_peer(PeerId(self._key)), short_peer(PeerId(key)),
            )  # fmt: skip
        self._key = key
        try:
            part = self._key_file.with_suffix(".part")
            part.write_bytes(key)
            part.replace(self._key_file)
        except OSError as error:
            logger.error("supernode_key_not_kept %s: %s", self._key_file, error.strerror)

    # --- peer.node.message_handler.NodeKeeper ------------------------------------------------------------------

    def keep_ticket(self, digest: Digest, ticket: bytes) -> None:
        self._node.blobs.of(digest).ticket = ticket

    def check_hashes(self, digest: Digest, layout: PieceLayout, hashes: PieceHashes) -> None:
        if self._key is None:
            raise TicketInvalid("no supernode was ever met")
        check_hashes(self._key, digest, layout, hashes.first, hashes.hashes, hashes.signature)

    def learn_hashes(self, digest: Digest, signed: SignedHashes) -> bool:
        return self._node.blobs.learn_hashes(digest, signed)

    def connect_to_seed(self, seed: NodeKnown) -> None:
        self._node.workers.connect(PieceSource(PeerName(seed.peer), seed.address))

    def lease_granted(self) -> None:
        self._node.metrics.lease("granted")


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
