"""This node's side of the session: its own identity, and the supernode's key that it trusts.

What the messages mean is the message handler's.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from proto.wire.tickets import sign_hello

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.node.node import Node
    from proto.wire.messages import Challenge, Hello, Message
    from proto.wire.tickets import Identity

logger = logging.getLogger(__name__)


class SupernodeConnection:
    """Implements peer.node.session.SessionOwner.

    `describe` says who this node is, all but the proof. An address without a host: as the supernode sees it.
    """

    def __init__(self, node: Node, identity: Identity, describe: Callable[[], Hello]) -> None:
        self._node = node
        self._identity = identity
        self._describe = describe

    def hello(self, challenge: Challenge) -> Hello:
        proof = sign_hello(self._identity, challenge.nonce, challenge.supernode)
        return replace(self._describe(), proof=proof, delivery_port=self._node.delivery.select(challenge.transport))

    def opened(self, challenge: Challenge) -> None:
        self._node.supernode_key.trust(challenge.supernode)
        self._node.session_opened()

    def lost(self, reason: str) -> None:
        logger.debug("link_lost reason=%s", reason)
        self._node.session_lost()

    def received(self, message: Message) -> None:
        self._node.received(message)
