"""How a cluster's pieces come to this node: by the supernode's leases alone, or by nodes that settle it themselves.

The supernode says which when a session opens. What the node's shell does with a blob is told to the delivery in use;
one that needs more than leases lives in a package of its own, which is loaded when it is first asked for. A delivery
decides nothing about blobs: the downloader does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proto.errors import ConfigError
from proto.wire.handshake import SCHEDULED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proto.ids import Digest
    from proto.pieces import PieceLayout
    from proto.wire.messages import Message

logger = logging.getLogger(__name__)


class PieceDelivery:
    """The hooks. As they stand here they add nothing to leases; another delivery overrides what it needs.

    Called on the event loop and never waits, except where a hook says otherwise.
    """

    @property
    def brings_all(self) -> bool:
        """It cannot bring some pieces of a blob alone."""
        return False

    @property
    def sent_bytes(self) -> int:
        """Payload sent to other nodes, beside what the upload server counts. From any thread."""
        return 0

    def session_begins(self) -> int:
        """In a thread: a session opens, its numbers are new. Returns the delivery's own port, 0 for none."""
        return 0

    def node_known(self, node: int, address: str) -> None:
        """The node of this number takes part at this address, HOST:PORT."""

    def received(self, message: Message, swarms: Mapping[int, tuple[Digest, PieceLayout]]) -> bool:
        """A message of the supernode; `swarms` are this session's by number. False if it is not the delivery's."""
        return False

    def blob_opened(self, digest: Digest) -> None:
        """The store has it open, and its missing pieces are wanted."""

    def blob_complete(self, digest: Digest) -> None:
        """Its digest has passed."""

    def blob_left(self, digest: Digest) -> None:
        """It was given up, or has left the store. From any thread."""

    def blob_voided(self, digest: Digest) -> None:
        """What was held of it was something else."""

    def reader_moved(self, digest: Digest, piece: int) -> None:
        """A client waits for this piece."""

    def give_way(self, digest: Digest) -> None:
        """Blocking, from any thread: somebody begins to write to the blob's file. Raises LocalError if it is in use."""

    def sharing_ended(self) -> None:
        """The operator switched sharing off."""

    def set_rates(self, upload_bytes_s: int, download_bytes_s: int) -> None:
        """Change the rate limits, 0 for none."""

    def close(self) -> None:
        """Blocking. Idempotent; calls that come later do nothing."""


class DeliverySlot:
    """The delivery in use. `makers` has one for each transport that a supernode may name, leases alone apart.

    A maker may raise ImportError or ConfigError: the node says why, and has leases alone.
    """

    def __init__(self, makers: Mapping[str, Callable[[], PieceDelivery]] | None = None) -> None:
        self._makers = makers or {}
        self._transport = SCHEDULED
        self._sent_before_bytes = 0
        self.current: PieceDelivery = PieceDelivery()

    @property
    def sent_bytes(self) -> int:
        """Payload sent by this delivery and those before it."""
        return self._sent_before_bytes + self.current.sent_bytes

    def select(self, transport: str) -> int:
        """Blocking: a session opens with a supernode that uses this transport. Returns the port to tell it, or 0."""
        if transport != self._transport:
            self.close()
            if transport in self._makers:
                self._make(transport)
        return self.current.session_begins()

    def _make(self, transport: str) -> None:
        try:
            self.current = self._makers[transport]()
        except ImportError as error:
            logger.error("%s_unavailable: %s; install the package it is in on this node", transport, error)
        except ConfigError as error:
            logger.error("%s_unavailable: %s", transport, error)
        else:
            self._transport = transport

    def close(self) -> None:
        """Leases alone from now on. Blocking."""
        before, self.current, self._transport = self.current, PieceDelivery(), SCHEDULED
        before.close()
        self._sent_before_bytes += before.sent_bytes
