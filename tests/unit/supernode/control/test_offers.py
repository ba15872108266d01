"""What members have that nobody vouches for, or fetch by themselves: who is waited for, what the seed may bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proto.ids import Digest
from proto.pieces import mask_to_bytes
from proto.wire.messages import Announce, Grant, OriginStatus, OriginTried, PieceHashes, Stored, Voided
from supernode.control.offers import FETCHES_MAX, HEADWAY_S, TRIED_MAX
from supernode.control.verification import VOIDED_S
from supernode.scheduler.contract import (
    SEED,
    FetchFromOrigin,
    GrantLease,
    PeerAnnounced,
    PeerOffers,
    PieceStored,
)
from tests.unit.supernode.control.bench import SOURCE, Bench

if TYPE_CHECKING:
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession

HASH = b"h" * 32
OTHER_HASH = b"x" * 32
PIECES = 4


def announce(bench: Bench, session: PeerSession, swarm: OpenSwarm, *, held: int = 0, fetching: int = 0) -> None:
    """The peer began alone, and wants the rest."""
    layout = swarm.layout
    said = Announce(
        str(swarm.digest),
        (SOURCE,),
        True,
        layout.size_bytes,
        layout.piece_size_bytes,
        mask_to_bytes(held, layout.count),
        fetching=mask_to_bytes(fetching, layout.count),
    )
    bench.announce(session, swarm.digest, said)


def offers(bench: Bench) -> list[tuple[int, int, int]]:
    """What the scheduler was told: node, pieces held, pieces being fetched."""
    return [(event.peer, event.held, event.fetching) for event in bench.events if isinstance(event, PeerOffers)]


def told(bench: Bench, session: PeerSession) -> list[tuple[str, bool]]:
    """What the peer was told of the origin."""
    return [(status.state, status.elected) for status in bench.heard(session).of(OriginStatus)]


def test_what_a_node_fetches_by_itself_is_known_before_what_it_wants_and_goes_on() -> None:
    bench = Bench()
    alone, swarm = bench.join(), bench.open(b"blob", PIECES)
    announce(bench, alone, swarm, held=0b0001, fetching=0b1110)
    kinds = [type(event) for event in bench.events]
    assert kinds.index(PeerOffers) < kinds.index(PeerAnnounced)
    assert offers(bench) == [(alone.node, 0b0001, 0b1110)]
    assert told(bench, alone) == [("fetching", True)]


def test_each_piece_that_it_stores_is_on_offer_until_it_wants_nothing_more() -> None:
    bench = Bench()
    alone, swarm = bench.join(), bench.open(b"blob", 2)
    announce(bench, alone, swarm, fetching=0b11)
    for piece in (0, 1):
        bench.handler.received(alone, Stored(0, swarm.number, piece, 0))
    assert offers(bench) == [(alone.node, 0, 0b11), (alone.node, 0b01, 0b10), (alone.node, 0b11, 0)]
    assert bench.events[-1] == PeerAnnounced(swarm.number, alone.node, 0, False)


def test_a_fetch_that_ends_without_the_rest_is_waited_for_no_longer() -> None:
    bench = Bench()
    alone, swarm = bench.join(), bench.open(b"blob", PIECES)
    announce(bench, alone, swarm, held=0b0001, fetching=0b1110)
    bench.handler.received(alone, OriginTried(swarm.number, "unavailable"))
    assert offers(bench)[-1] == (alone.node, 0b0001, 0)


def test_of_two_that_are_equally_far_the_first_goes_on() -> None:
    bench = Bench()
    one, other, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", PIECES)
    for session in (one, other):
        announce(bench, session, swarm, held=0b0001, fetching=0b1110)
    assert [told(bench, session) for session in (one, other)] == [[("fetching", True)], [("fetching", False)]]
    assert offers(bench) == [(one.node, 0b0001, 0b1110), (other.node, 0b0001, 0)]


@pytest.mark.parametrize("ahead_first", [True, False])
def test_of_two_that_fetch_the_same_the_one_ahead_goes_on(ahead_first: bool) -> None:
    bench = Bench()
    ahead, behind, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", PIECES)
    says = {ahead.node: (0b0011, 0b1100), behind.node: (0b0001, 0b1110)}
    for session in (ahead, behind) if ahead_first else (behind, ahead):
        held, fetching = says[session.node]
        announce(bench, session, swarm, held=held, fetching=fetching)
    assert [told(bench, session)[-1] for session in (ahead, behind)] == [("fetching", True), ("fetching", False)]
    assert offers(bench)[-2:] == [(ahead.node, 0b0011, 0b1100), (behind.node, 0b0001, 0)]


@pytest.mark.parametrize("complete_first", [True, False])
def test_who_fetches_what_another_has_to_offer_stops(complete_first: bool) -> None:
    bench = Bench()
    complete, behind, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", PIECES)
    says = {complete.node: (0b1111, 0), behind.node: (0b0001, 0b1110)}
    for session in (complete, behind) if complete_first else (behind, complete):
        held, fetching = says[session.node]
        announce(bench, session, swarm, held=held, fetching=fetching)
    assert told(bench, behind)[-1] == ("fetching", False)


def test_nobody_stops_for_one_that_is_asked_for_nothing() -> None:
    bench = Bench()
    bad, honest, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", PIECES)
    bench.control.verification.offers_tried(Digest.of(b"other"), {}, frozenset({bad.info.peer}), matches=None)
    announce(bench, honest, swarm, held=0b0001, fetching=0b1110)
    announce(bench, bad, swarm, held=0b1111)
    assert told(bench, honest) == [("fetching", True)]


def test_to_say_again_what_it_fetches_is_no_headway() -> None:
    bench = Bench()
    alone, swarm = bench.join(), bench.open(b"blob", PIECES)
    for later_s in (0.0, HEADWAY_S / 2, HEADWAY_S / 2):
        bench.now_s += later_s
        announce(bench, alone, swarm, fetching=0b1111)
    assert [goes_on for _, goes_on in told(bench, alone)] == [True, True, False]


def test_those_that_share_the_origin_out_all_go_on() -> None:
    bench = Bench()
    one, other, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", PIECES)
    announce(bench, one, swarm, held=0b0001, fetching=0b0010)
    announce(bench, other, swarm, held=0b0100, fetching=0b1000)
    assert [told(bench, session) for session in (one, other)] == [[("fetching", True)]] * 2


@pytest.mark.parametrize("where", ["seed", "fetch", "member"])
def test_what_is_here_or_on_its_way_is_not_fetched_twice(where: str) -> None:
    bench = Bench()
    alone, swarm = bench.join(), bench.open(b"blob", PIECES)
    if where == "seed":
        swarm.seed_stored(2, 0.0)
    elif where == "fetch":
        swarm.fetch_began(1, 0b0100)
    else:
        bench.control.participation.learn_hashes(swarm, 2, HASH)
        announce(bench, bench.join("10.0.0.2:1"), swarm, held=0b0100)
    announce(bench, alone, swarm, fetching=0b0110)
    assert told(bench, alone) == [("fetching", False)]


def test_a_node_that_makes_no_headway_is_not_waited_for_again() -> None:
    bench = Bench()
    liar = bench.join()
    for content, goes_on in ((b"one", True), (b"two", False)):
        announce(bench, liar, bench.open(content, PIECES), fetching=0b1111)
        assert told(bench, liar)[-1] == ("fetching", goes_on)
        bench.now_s += HEADWAY_S


def test_one_node_is_waited_for_with_few_blobs_at_a_time() -> None:
    bench = Bench()
    greedy = bench.join()
    for number in range(FETCHES_MAX + 1):
        announce(bench, greedy, bench.open(b"%d" % number, PIECES), fetching=0b1111)
    assert [goes_on for _, goes_on in told(bench, greedy)] == [True] * FETCHES_MAX + [False]


def test_the_seed_brings_what_is_offered_and_all_else_that_the_digest_takes() -> None:
    bench = Bench()
    one, other, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", PIECES)
    bench.control.participation.learn_hashes(swarm, 3, HASH)
    announce(bench, one, swarm, held=0b0001)
    announce(bench, other, swarm, held=0b1011)
    # Piece 2 is for the origin; piece 3 is known of old, and the seed does not have it.
    bench.control.commands.carry_out(FetchFromOrigin(1, swarm.number, 0b0111))
    givers = {piece: [offer.peer for offer in found] for piece, found in bench.seed.offers.items()}
    both = [one.info.peer, other.info.peer]
    assert givers == {0: both, 1: [other.info.peer], 3: [other.info.peer]}


def test_what_is_offered_is_told_to_nobody_and_not_kept() -> None:
    bench = Bench()
    one, other, swarm = bench.join(), bench.join("10.0.0.2:1"), bench.open(b"blob", PIECES)
    announce(bench, one, swarm, held=0b1111)
    bench.enter(other, swarm)
    assert swarm.hashes.known == 0
    assert bench.saved.hashes == []
    assert bench.heard(other).of(PieceHashes) == []


def test_one_that_is_asked_for_nothing_offers_nothing() -> None:
    bench = Bench()
    bad, swarm = bench.join(), bench.open(b"blob", PIECES)
    bench.control.participation.quarantine(bad.info.peer, "served corrupt bytes")
    announce(bench, bad, swarm, held=0b0001, fetching=0b1110)
    bench.control.commands.carry_out(FetchFromOrigin(1, swarm.number, 0b1111))
    assert (told(bench, bad), bench.seed.offers) == ([("fetching", False)], {})


class OtherContent:
    """Two members and a third offered both pieces of a blob; one gave the first piece right, one the second wrong."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.swarm = self.bench.open(b"blob", 2)
        self.honest, self.misled, self.unasked = (self.bench.join(f"10.0.0.{number}:1") for number in (1, 2, 3))
        self.all = (self.honest, self.misled, self.unasked)
        for session in self.all:
            announce(self.bench, session, self.swarm, held=0b11)
        given = {0: (self.honest.info.peer, HASH), 1: (self.misled.info.peer, OTHER_HASH)}
        self.bench.control.verification.offers_tried(self.swarm.digest, given, frozenset(), matches=False)

    def origin_sends(self) -> None:
        """Both pieces as they are, but for the digest check."""
        for piece in (0, 1):
            self.bench.control.verification.seed_stored(self.swarm.number, piece, HASH, None)

    def copies(self) -> list[tuple[int, int]]:
        """Node and piece of what the scheduler may lease."""
        return [
            (event.peer, event.piece) for event in self.bench.events if isinstance(event, PieceStored) and event.peer
        ]


def test_of_what_made_other_content_only_pieces_that_were_given_as_they_are_become_copies() -> None:
    scene = OtherContent()
    scene.origin_sends()
    assert scene.copies() == [(scene.honest.node, 0)]


def test_what_made_other_content_is_on_offer_no_more() -> None:
    scene = OtherContent()
    assert offers(scene.bench)[-3:] == [(session.node, 0, 0) for session in scene.all]


def test_who_gave_other_content_drops_it_once_the_right_one_is_known_and_is_not_put_aside() -> None:
    scene = OtherContent()
    scene.origin_sends()
    scene.bench.control.verification.blob_checked(scene.swarm.number, matches=True)
    assert [bool(scene.bench.heard(session).of(Voided)) for session in scene.all] == [False, True, False]
    assert scene.misled.node not in scene.swarm.members
    assert scene.bench.control.nodes.quarantined == {}
    announce(scene.bench, scene.misled, scene.swarm, held=0b11)
    assert scene.swarm.members[scene.misled.node].held == 0b11


def test_who_claimed_a_piece_in_vain_compares_what_it_has_before_it_is_given_it() -> None:
    scene = OtherContent()
    scene.origin_sends()
    grant = GrantLease(1, scene.swarm.number, 1, scene.unasked.node, SEED, 1.0, False, 0, False)
    scene.bench.control.commands.carry_out(grant)
    kinds = [type(message) for message in scene.bench.heard(scene.unasked).heard]
    assert kinds.index(PieceHashes) < kinds.index(Grant)


def test_a_swarm_opened_soon_after_wrong_content_believes_no_claims_either() -> None:
    scene = OtherContent()
    for session in scene.all:
        scene.bench.control.participation.leave(session, scene.swarm.digest)
    size_bytes = scene.swarm.layout.size_bytes
    again = scene.bench.control.admission.open(scene.swarm.digest, size_bytes, None, None)
    announce(scene.bench, scene.misled, again, held=0b1)
    scene.bench.control.verification.seed_stored(again.number, 0, HASH, None)
    assert scene.copies() == []


def test_after_wrong_content_the_origin_comes_before_any_offer() -> None:
    bench = Bench()
    session, swarm = bench.join(), bench.open(b"blob", PIECES)
    bench.control.verification.offers_tried(swarm.digest, {}, frozenset(), matches=False)
    taken = []
    for later_s in (0.0, VOIDED_S):
        bench.now_s += later_s
        announce(bench, session, swarm, held=0b1111)
        bench.control.commands.carry_out(FetchFromOrigin(1, swarm.number, 0b1111))
        taken.append(len(bench.seed.offers))
    assert taken == [0, PIECES]


def tried(bench: Bench, author: PeerSession, number: int) -> bool:
    """Whether the author is asked for a blob that it offers."""
    swarm = bench.open(b"blob %d" % number, PIECES)
    announce(bench, author, swarm, held=0b1111)
    bench.control.commands.carry_out(FetchFromOrigin(number, swarm.number, 0b1111))
    return bool(bench.seed.offers)


def test_a_member_is_asked_for_few_blobs_at_a_time() -> None:
    bench = Bench()
    author = bench.join()
    assert [tried(bench, author, number) for number in range(1, TRIED_MAX + 3)] == [True] * TRIED_MAX + [False] * 2
    assert tried(bench, bench.join("10.0.0.2:1"), 100)


def test_of_a_member_that_did_not_give_what_it_offered_nothing_is_tried_for_a_while() -> None:
    bench = Bench()
    author = bench.join()
    bench.control.verification.offers_tried(Digest.of(b"other"), {}, frozenset({author.info.peer}), matches=None)
    found = [tried(bench, author, 1)]
    bench.now_s += VOIDED_S
    found.append(tried(bench, author, 2))
    assert found == [False, True]
