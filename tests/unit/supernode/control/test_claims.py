"""Hashes by the word of the member that is elected to fetch: who may give it, what goes by it, and what ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proto.pieces import mask_to_bytes
from proto.wire.messages import Announce, Failed, FetchReason, Grant, OriginStatus, PieceHashes, Stored, Voided
from supernode.control.verification import VOIDED_S
from supernode.scheduler.contract import (
    FailReason,
    FetchFailed,
    FetchFromOrigin,
    GrantLease,
    PeerOffers,
    PieceStored,
    TryOrigin,
)
from tests.unit.supernode.control.bench import SOURCE, Bench

if TYPE_CHECKING:
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession

HASH = b"h" * 32
OTHER_HASH = b"x" * 32
PIECES = 4


class Election:
    """A private blob of which one member fetches for all, and another one waits."""

    def __init__(self, pieces: int = PIECES) -> None:
        self.bench = Bench()
        self.author, self.other = self.bench.join(), self.bench.join("10.0.0.2:1")
        self.swarm = self.bench.open(b"blob", pieces)
        self.bench.control.admission.make_private(self.swarm, (SOURCE.upstream,))
        for session in (self.author, self.other):
            self.bench.enter(session, self.swarm)
        self.elect(self.author)

    def elect(self, session: PeerSession, pieces: int | None = None) -> None:
        """For these pieces, or all."""
        wanted = self.swarm.layout.full_mask if pieces is None else pieces
        self.bench.control.commands.carry_out(TryOrigin(self.swarm.number, session.node, wanted))

    def claims(self, session: PeerSession, piece: int, claim: bytes = HASH) -> list[PieceStored]:
        """The member has the piece from the origin; what the scheduler is told."""
        self.bench.events.clear()
        self.bench.handler.received(session, Stored(0, self.swarm.number, piece, 0, claim=claim))
        return [event for event in self.bench.events if isinstance(event, PieceStored)]

    def takes(self, session: PeerSession, piece: int, claim: bytes = HASH) -> None:
        """It gets the piece by a lease from the author."""
        self.bench.lease(session, 7, self.swarm, piece, self.author.node, claim)
        self.bench.handler.received(session, Stored(7, self.swarm.number, piece, 5))

    def offered(self) -> dict[int, list[tuple[PeerSession, bytes]]]:
        """By piece who the seed is to bring it from, when all is to be fetched, and to which hash it is held."""
        self.bench.control.commands.carry_out(FetchFromOrigin(1, self.swarm.number, self.swarm.layout.full_mask))
        sessions = {session.info.peer: session for session in (self.author, self.other)}
        found = self.bench.seed.offers.items()
        return {piece: [(sessions[offer.peer], offer.claim) for offer in offers] for piece, offers in found}


def unknown(swarm: OpenSwarm) -> bool:
    """Whether nothing of what members say is taken for known."""
    return not swarm.hashes.known


def test_the_elected_member_s_piece_is_there_for_others_at_once_and_is_not_kept_as_known() -> None:
    election = Election()
    [stored] = election.claims(election.author, 1)
    assert (stored.peer, stored.piece, stored.unvouched) == (election.author.node, 1, True)
    assert unknown(election.swarm)
    assert election.bench.saved.hashes == []
    assert not election.bench.heard(election.other).of(PieceHashes)


@pytest.mark.parametrize("claim", [b"", b"short"])
def test_without_a_hash_it_is_only_on_offer(claim: bytes) -> None:
    election = Election()
    assert election.claims(election.author, 1, claim) == []
    assert [event.held for event in election.bench.events if isinstance(event, PeerOffers)] == [0b0010]


def test_nobody_but_the_elected_one_gives_its_word() -> None:
    election = Election()
    assert election.claims(election.other, 1) == []


def test_a_blob_of_one_piece_waits_for_its_digest() -> None:
    election = Election(pieces=1)
    assert election.claims(election.author, 0) == []


def test_a_grant_names_the_hash_that_the_piece_is_held_to() -> None:
    election = Election()
    election.claims(election.author, 1)
    grant = GrantLease(9, election.swarm.number, 1, election.other.node, election.author.node, 5.0, False, 0, False)
    election.bench.control.commands.carry_out(grant)
    assert [each.claim for each in election.bench.heard(election.other).of(Grant)] == [HASH]


def test_who_got_it_so_passes_it_on_and_knows_no_signed_hash() -> None:
    election = Election()
    election.claims(election.author, 1)
    election.takes(election.other, 1)
    stored = [event for event in election.bench.events if isinstance(event, PieceStored)][-1]
    assert (stored.peer, stored.unvouched) == (election.other.node, True)
    member = election.swarm.members[election.other.node]
    assert (member.held, member.hashes_sent) == (0b0010, 0)


def test_what_a_member_holds_without_such_a_lease_counts_for_nothing() -> None:
    election = Election()
    election.claims(election.author, 1)
    layout = election.swarm.layout
    held = mask_to_bytes(0b0010, PIECES)
    said = Announce(str(election.swarm.digest), (SOURCE,), True, layout.size_bytes, layout.piece_size_bytes, held)
    for session, counted in ((election.other, 0), (election.author, 0b0010)):
        election.bench.announce(session, election.swarm.digest, said)
        assert election.swarm.members[session.node].held == counted


def test_the_first_word_stands_while_somebody_has_the_piece_by_it() -> None:
    election = Election()
    election.claims(election.author, 1)
    election.elect(election.other)
    assert election.claims(election.other, 1, OTHER_HASH) == []
    assert [stored.unvouched for stored in election.claims(election.other, 2)] == [True]
    election.bench.handler.lost(election.author, "gone")
    assert [stored.peer for stored in election.claims(election.other, 1, OTHER_HASH)] == [election.other.node]


def test_a_lease_by_an_earlier_word_counts_for_nothing() -> None:
    election = Election()
    election.claims(election.author, 1, OTHER_HASH)
    election.takes(election.other, 1)
    assert election.swarm.members[election.other.node].held == 0


def test_who_is_elected_hears_what_nobody_holds() -> None:
    election = Election()
    assert election.bench.heard(election.author).of(OriginStatus)[-1].pieces == b""
    election.elect(election.other, 0b1101)
    assert election.bench.heard(election.other).of(OriginStatus)[-1].pieces == mask_to_bytes(0b1101, PIECES)


def test_who_takes_nothing_by_a_word_is_kept_apart_from_who_gives_by_it() -> None:
    election = Election()
    election.claims(election.author, 1)
    election.bench.lease(election.other, 7, election.swarm, 1, election.author.node)
    election.bench.handler.received(election.other, Failed(7, FetchReason.UNHASHED))
    [failed] = [event for event in election.bench.events if isinstance(event, FetchFailed)]
    assert failed.reason is FailReason.TICKET


def test_the_seed_brings_such_pieces_held_to_the_same_hash_a_part_from_each_that_has_them_by_it() -> None:
    election = Election()
    for piece in range(PIECES):
        election.claims(election.author, piece)
    for piece in (2, 3):
        election.takes(election.other, piece)
    author, other = (election.author, HASH), (election.other, HASH)
    assert election.offered() == {0: [author], 1: [author], 2: [author, other], 3: [other, author]}


def test_once_the_digest_has_passed_who_waits_gets_the_signed_hashes() -> None:
    election = Election()
    for piece in range(PIECES):
        election.claims(election.author, piece)
    for piece in range(PIECES):
        election.bench.control.verification.seed_stored(election.swarm.number, piece, HASH, None)
    election.bench.control.verification.blob_checked(election.swarm.number, matches=True)
    assert (election.swarm.claims.authors(), election.swarm.claims.pieces) == (set(), 0)
    election.bench.handler.refresh(election.other)
    [hashes] = election.bench.heard(election.other).of(PieceHashes)
    assert hashes.hashes == HASH * PIECES


def test_wrong_content_is_dropped_by_all_and_its_author_s_word_counts_no_more_for_a_while() -> None:
    election = Election()
    election.claims(election.author, 1)
    given = {1: (election.author.info.peer, HASH)}
    election.bench.control.verification.offers_tried(election.swarm.digest, given, frozenset(), matches=False)
    for session in (election.author, election.other):
        assert election.bench.heard(session).of(Voided)
    assert election.bench.blamed == [], "no origin is blamed for a member's word"
    assert not election.bench.control.nodes.is_quarantined(election.author.info.peer)
    election.swarm = election.bench.open(b"next", PIECES)
    for later_s, counts in ((0.0, False), (VOIDED_S, True)):
        election.bench.now_s += later_s
        election.elect(election.author)
        election.bench.enter(election.author, election.swarm)
        assert bool(election.claims(election.author, int(later_s > 0))) is counts


def test_of_that_blob_nobody_s_word_counts_for_a_while() -> None:
    election = Election()
    election.claims(election.author, 1)
    election.bench.control.verification.offers_tried(election.swarm.digest, {}, frozenset(), matches=False)
    election.swarm = election.bench.open(b"blob", PIECES)
    election.bench.enter(election.other, election.swarm)
    election.elect(election.other)
    assert election.claims(election.other, 1) == []


def test_who_took_another_piece_by_a_word_drops_it_and_is_not_blamed() -> None:
    election = Election()
    election.claims(election.author, 1)
    election.takes(election.other, 1)
    election.bench.control.verification.seed_stored(election.swarm.number, 1, OTHER_HASH, None)
    assert election.bench.heard(election.other).of(Voided)
    assert not election.bench.control.nodes.is_quarantined(election.other.info.peer)
    assert election.swarm.hashes.hash_of(1) == OTHER_HASH
