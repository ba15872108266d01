"""What the supernode's messages become: events for the downloader, and what the rest of the node is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peer.downloader.contract import (
    Event,
    HashesLearned,
    Received,
    SupernodeAnswered,
    SupernodeConnected,
    SupernodeLost,
)
from peer.node.message_handler import MessageHandler
from peer.transport.delivery import DeliverySlot
from proto.errors import TicketInvalid
from proto.ids import Digest
from proto.wire.messages import (
    SEED_NODE,
    Doubted,
    Grant,
    InlineBlob,
    Message,
    NodeKnown,
    PieceHashes,
    Preheat,
    Source,
    SwarmOpened,
    Voided,
    Vouched,
)

if TYPE_CHECKING:
    from peer.store.base import SignedHashes
    from proto.pieces import PieceLayout

DIGEST = Digest.of(b"a blob of four pieces")
SWARM = 7
SEED = NodeKnown(SEED_NODE, b"s" * 12, "10.0.0.1:65003")


class Script:
    """A handler with a keeper that notes what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.given: list[object] = []
        self.forged = self.useless = False
        self.handler = MessageHandler(self, DeliverySlot(), self.events.append)

    def hears(self, *said: Message) -> list[Event]:
        before = len(self.events)
        for message in said:
            self.handler.received(message)
        return self.events[before:]

    def keep_ticket(self, digest: Digest, ticket: bytes) -> None:
        self.given.append((digest, ticket))

    def check_hashes(self, digest: Digest, layout: PieceLayout, hashes: PieceHashes) -> None:
        if self.forged:
            raise TicketInvalid("not the supernode's")

    def learn_hashes(self, digest: Digest, signed: SignedHashes) -> bool:
        return not self.useless

    def connect_to_seed(self, seed: NodeKnown, opened: SwarmOpened) -> None:
        self.given.append((seed, opened.ticket))

    def lease_granted(self) -> None:
        self.given.append("lease")

    def preheat(self, digest: Digest, preheat: Preheat) -> None:
        self.given.append((digest, preheat))

    def keep(self, digests: frozenset[Digest]) -> None:
        self.given.append(digests)

    def suspect(self, digest: Digest, piece: int) -> None:
        self.given.append((digest, piece))


def swarm_opened(size_bytes: int = 1024, piece_size_bytes: int = 256) -> SwarmOpened:
    return SwarmOpened(SWARM, str(DIGEST), size_bytes, piece_size_bytes, b"ticket")


def test_what_is_the_downloader_s_alone_goes_there_as_it_came() -> None:
    voided = Voided(SWARM, "no match")
    assert Script().hears(voided) == [Received(voided)]


def test_a_ticket_is_kept_with_its_blob() -> None:
    script = Script()
    assert script.hears(swarm_opened()) == [Received(swarm_opened())]
    assert script.given == [(DIGEST, b"ticket")]


@pytest.mark.parametrize("message", [Grant(1, SWARM, 0, 2, 5000), InlineBlob(1, SWARM, b"content")])
def test_leases_are_counted(message: Message) -> None:
    script = Script()
    assert script.hears(message) == [Received(message)]
    assert script.given == ["lease"]


def test_checked_hashes_are_learned() -> None:
    assert Script().hears(swarm_opened(), PieceHashes(SWARM, 1, bytes(64), b""))[1:] == [HashesLearned(DIGEST, 0b110)]


@pytest.mark.parametrize(
    "hashes",
    [
        PieceHashes(SWARM, 1, bytes(65), b""),
        PieceHashes(SWARM, 3, bytes(64), b""),
        PieceHashes(SWARM, -1, bytes(32), b""),
        PieceHashes(99, 0, bytes(32), b""),
    ],
)
def test_hashes_that_fit_no_blob_are_ignored(hashes: PieceHashes) -> None:
    script = Script()
    script.hears(swarm_opened())
    assert script.hears(hashes) == []


def test_hashes_that_the_supernode_did_not_sign_are_ignored() -> None:
    script = Script()
    script.forged = True
    assert script.hears(swarm_opened(), PieceHashes(SWARM, 0, bytes(32), b""))[1:] == []


def test_hashes_that_are_of_no_use_are_no_news() -> None:
    script = Script()
    script.useless = True
    assert script.hears(swarm_opened(), PieceHashes(SWARM, 0, bytes(32), b""))[1:] == []


def test_the_seed_is_connected_to_for_a_blob_of_several_pieces() -> None:
    script = Script()
    script.hears(SEED, swarm_opened(piece_size_bytes=1024))
    assert (SEED, b"ticket") not in script.given
    script.hears(swarm_opened())
    assert (SEED, b"ticket") in script.given


def test_numbers_end_with_their_session() -> None:
    script = Script()
    script.hears(SEED, swarm_opened())
    script.handler.session_lost(silent=False)
    script.handler.supernode_answered()
    script.handler.session_opened()
    assert script.events[-3:] == [SupernodeLost(), SupernodeAnswered(), SupernodeConnected()]
    assert script.hears(PieceHashes(SWARM, 0, bytes(32), b"")) == []
    script.given.clear()
    script.hears(swarm_opened())
    assert (SEED, b"ticket") not in script.given


def test_a_piece_that_another_node_got_corrupt_is_read_again() -> None:
    script = Script()
    script.hears(swarm_opened())
    assert script.hears(Doubted(SWARM, 3), Doubted(SWARM, 4), Doubted(SWARM + 1, 0)) == []
    assert script.given[1:] == [(DIGEST, 3)]


def test_what_is_to_be_here_before_a_client_comes_goes_to_the_keeper() -> None:
    script = Script()
    preheat = Preheat(str(DIGEST), Source("registry.example", "app"), 1024)
    assert script.hears(preheat, Preheat("nonsense", preheat.source, 1)) == []
    assert script.given == [(DIGEST, preheat)]


def test_that_the_supernode_compared_the_digest_is_nobody_s_news() -> None:
    assert Script().hears(Vouched(SWARM)) == []
