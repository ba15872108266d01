"""This node's side of the session: its own identity, and the supernode's key that it trusts.

What the messages mean is the message handler's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proto.wire.messages import PROTOCOL_VERSION, Hello
from proto.wire.tickets import sign_hello

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.node.node import Node
    from proto.wire.messages import Challenge, Message
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
    """Implements peer.node.session.SessionOwner."""

    def __init__(self, node: Node, identity: Identity, profile: Profile) -> None:
        self._node = node
        self._identity = identity
        self._profile = profile

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
        self._node.supernode_key.trust(challenge.supernode)
        self._node.session_opened()

    def lost(self, reason: str) -> None:
        logger.debug("link_lost reason=%s", reason)
        self._node.session_lost()

    def received(self, message: Message) -> None:
        self._node.received(message)
