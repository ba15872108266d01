"""What the supernode's messages mean on this node: events for the downloader, and what is kept beside it.

Used by the service and by the simulator. It knows no socket, clock, thread or file. Piece hashes are checked before
anybody hears of them; all else goes to the downloader as it came. What numbers stand for ends with their session.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from peer.downloader.contract import HashesLearned, Received, SupernodeAnswered, SupernodeConnected, SupernodeLost
from peer.store.base import HASH_BYTES, SignedHashes
from proto.errors import DigestInvalid, FrameInvalid, TicketInvalid
from proto.ids import Digest
from proto.pieces import PieceLayout
from proto.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.downloader.contract import Event
    from peer.transport.delivery import DeliverySlot

logger = logging.getLogger(__name__)


class NodeKeeper(Protocol):
    """What the rest of the node does with messages that are not the downloader's alone."""

    def keep_ticket(self, digest: Digest, ticket: bytes) -> None:
        """Other nodes give the blob's pieces for it."""

    def check_hashes(self, digest: Digest, layout: PieceLayout, hashes: messages.PieceHashes) -> None:
        """Raises TicketInvalid unless the supernode signed them for this blob."""

    def learn_hashes(self, digest: Digest, signed: SignedHashes) -> bool:
        """Keep checked hashes with the blob; False where they are of no use."""

    def connect_to_seed(self, seed: messages.NodeKnown, opened: messages.SwarmOpened) -> None:
        """Its pieces set the pace of all: none of them shall wait for a connection."""

    def lease_granted(self) -> None:
        """Count it."""

    def preheat(self, digest: Digest, preheat: messages.Preheat) -> None:
        """Have it here, or no longer."""

    def keep(self, digests: frozenset[Digest]) -> None:
        """Evict none of these, and no others are to be kept."""

    def suspect(self, digest: Digest, piece: int) -> None:
        """Read a piece of ours again: another node got it corrupt."""


class MessageHandler:
    """One a node; sessions come one after another. `post` queues an event for the downloader."""

    def __init__(self, keeper: NodeKeeper, delivery: DeliverySlot, post: Callable[[Event], None]) -> None:
        self._keeper = keeper
        self._delivery = delivery
        self._post = post
        self._swarms: dict[int, tuple[Digest, PieceLayout]] = {}
        # The supernode's own upload server, once this session named it.
        self._seed: messages.NodeKnown | None = None

    def session_opened(self) -> None:
        """Numbers start anew."""
        self._forget_numbers()
        self._post(SupernodeConnected())

    def supernode_answered(self) -> None:
        """An attempt at a session got an answer."""
        self._post(SupernodeAnswered())

    def session_lost(self, *, silent: bool) -> None:
        """Its numbers mean nothing any more. `silent`: the supernode said nothing more; else the connection ended."""
        self._forget_numbers()
        self._post(SupernodeLost(silent))

    def _forget_numbers(self) -> None:
        self._seed = None
        self._swarms.clear()

    def received(self, message: messages.Message) -> None:
        """A message other than the session's own (Ping and its like)."""
        if isinstance(message, messages.Grant | messages.InlineBlob):
            self._keeper.lease_granted()
        elif isinstance(message, messages.PieceHashes):
            self._hashes_received(message)
            return
        elif isinstance(message, messages.Doubted):
            self._doubted(message)
            return
        elif isinstance(message, messages.Preheat):
            self._preheat(message)
            return
        elif isinstance(message, messages.Keep):
            self._keep(message)
            return
        elif isinstance(message, messages.Vouched):
            return  # this node compares the digest itself
        elif isinstance(message, messages.SwarmOpened):
            self._swarm_opened(message)
        elif isinstance(message, messages.NodeKnown):
            self._node_known(message)
        elif self._delivery.current.received(message, self._swarms):
            return
        self._post(Received(message))

    def _doubted(self, message: messages.Doubted) -> None:
        digest, layout = self._swarms.get(message.swarm, (None, None))
        if digest is not None and layout is not None and 0 <= message.piece < layout.count:
            self._keeper.suspect(digest, message.piece)

    def _preheat(self, message: messages.Preheat) -> None:
        try:
            self._keeper.preheat(Digest.parse(message.digest), message)
        except DigestInvalid as error:
            logger.warning("preheat_ignored %s", error)

    def _keep(self, message: messages.Keep) -> None:
        try:
            self._keeper.keep(frozenset(map(Digest.parse, message.digests)))
        except DigestInvalid as error:
            logger.warning("keep_ignored %s", error)

    def _node_known(self, message: messages.NodeKnown) -> None:
        if message.delivery_address:
            self._delivery.current.node_known(message.node, message.delivery_address)
        if message.node == messages.SEED_NODE:
            self._seed = message

    def _swarm_opened(self, message: messages.SwarmOpened) -> None:
        try:
            digest = Digest.parse(message.digest)
            layout = PieceLayout(message.size_bytes, message.piece_size_bytes)
        except (DigestInvalid, FrameInvalid) as error:
            logger.warning("swarm_ignored %s", error)
            return
        self._swarms[message.swarm] = (digest, layout)
        if self._seed is not None and layout.count > 1:
            self._keeper.connect_to_seed(self._seed, message)
        self._keeper.keep_ticket(digest, message.ticket)

    def _hashes_received(self, message: messages.PieceHashes) -> None:
        digest, layout = self._swarms.get(message.swarm, (None, None))
        if digest is None or layout is None:
            return
        count, rest = divmod(len(message.hashes), HASH_BYTES)
        if rest or message.first < 0 or message.first + count > layout.count:
            logger.warning("hashes_ignored digest=%s: they do not fit the blob", digest.short)
            return
        try:
            self._keeper.check_hashes(digest, layout, message)
        except TicketInvalid as error:
            logger.warning("hashes_ignored digest=%s %s", digest.short, error)
            return
        signed = SignedHashes(message.first, message.hashes, message.signature)
        if self._keeper.learn_hashes(digest, signed):
            self._post(HashesLearned(digest, signed.pieces))
