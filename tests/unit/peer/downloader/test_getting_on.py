"""What counts as getting on: how long a client waits for a swarm that moves, and that it does not wait for another."""

from __future__ import annotations

import pytest

from peer.downloader.contract import (
    BlobWanted,
    CancelUpstream,
    FailReaders,
    FetchEnded,
    FetchUpstream,
    PayloadCame,
    ReaderAt,
    ReaderClosed,
    StartFetch,
    StoreOpened,
    UpstreamEnded,
)
from peer.downloader.limits import Limits
from proto.ids import Digest
from proto.owners import place
from proto.wire.messages import Grant, Holders, OriginStatus, SwarmOpened
from tests.unit.peer.downloader.script import DIGEST, PIECE, SIZE, SOURCE, SWARM, TICKET, Script, of_type, peer_id

OTHER = Digest.of(b"another layer")
OPENED = SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET)


def test_a_swarm_is_waited_for_while_the_supernode_says_that_it_moves() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(6):
        assert of_type(script.wait(25.0), FetchUpstream) == []
        assert script.receive(OriginStatus(SWARM, "sharing", False)) == []
    assert of_type(script.wait(29.9), FetchUpstream) == []
    assert of_type(script.wait(0.2), FetchUpstream)


def test_a_swarm_that_moves_is_not_waited_for_without_end_where_nothing_comes() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(8):
        assert of_type(script.wait(19.0), FetchUpstream) == []
        script.receive(OriginStatus(SWARM, "sharing", False))
    assert of_type(script.wait(27.9), FetchUpstream) == []
    script.receive(OriginStatus(SWARM, "sharing", False))
    assert of_type(script.wait(0.2), FetchUpstream)


def starved(own: int, *, size: int = SIZE) -> Script:
    """A node that knows the seed and two others and has got nothing for 31 s, although the supernode is there."""
    script = Script(own=own).connected().open(size=size)
    script(ReaderAt(1, 0))
    script.receive(Holders(SWARM, (0, 2, 3)))
    script.wait(31.0)
    return script


def test_a_starved_node_asks_the_origin_for_a_span_and_not_for_the_blob() -> None:
    (fetch,) = of_type(starved(own=2).all, FetchUpstream)
    assert fetch.pieces.bit_count() == 1


def test_a_starved_node_whose_turn_it_is_not_leaves_the_origin_to_others_for_a_time() -> None:
    others = [peer_id(number) for number in (3, 4)]
    own = next(n for n in range(5, 99) if place(DIGEST, peer_id(n), 0) > max(place(DIGEST, p, 0) for p in others))
    script = starved(own, size=PIECE)
    limits = Limits()
    assert of_type(script.wait(2 * limits.turn_s - 2.0), FetchUpstream) == []
    assert of_type(script.wait(2.0), FetchUpstream), "the third in turn"


def test_a_piece_of_a_peer_ends_the_turns_at_the_origin() -> None:
    script = starved(own=2)
    (fetch,) = of_type(script.all, FetchUpstream)
    (transfer,) = of_type(script.grant(20, 1), StartFetch)
    script(FetchEnded(transfer.fetch, "", 1.0), UpstreamEnded(fetch.fetch, "cancelled"))
    assert of_type(script.wait(29.0), FetchUpstream) == []


def test_a_blob_waits_its_turn_while_pieces_of_others_come() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    script(BlobWanted(2, OTHER, SOURCE))
    script.receive(SwarmOpened(SWARM + 1, str(OTHER), SIZE, PIECE, TICKET))
    script(StoreOpened(OTHER, 0, 0b1111, False))
    for piece in range(4):
        assert of_type(script.wait(25.0), FetchUpstream) == []
        (fetch,) = of_type(script.receive(Grant(20 + piece, SWARM + 1, piece, 1, 5000)), StartFetch)
        assert of_type(script(FetchEnded(fetch.fetch, "", 1.0)), FetchUpstream) == []
    assert of_type(script.wait(29.9), FetchUpstream) == []
    assert of_type(script.wait(0.2), FetchUpstream)


def test_a_swarm_is_waited_for_while_parts_of_pieces_come() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(10):
        assert of_type(script.wait(25.0), FetchUpstream) == []
        assert script(PayloadCame(DIGEST)) == []
    assert of_type(script.wait(29.9), FetchUpstream) == []
    assert of_type(script.wait(0.2), FetchUpstream)


def test_payload_of_a_blob_that_is_not_known_or_not_open_means_nothing() -> None:
    script = Script().connected()
    assert script(PayloadCame(DIGEST)) == []
    script(BlobWanted(1, DIGEST, SOURCE))
    script.receive(OPENED)
    assert script(PayloadCame(DIGEST)) == []


def test_a_state_that_is_not_known_is_no_reason_to_wait() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    script.wait(29.0)
    assert script.receive(OriginStatus(SWARM, "dreaming", False)) == []
    assert of_type(script.wait(1.1), FetchUpstream)


def test_a_swarm_that_moves_stops_no_fetch_of_this_nodes_own() -> None:
    script = Script().connected().open()
    (upstream,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    assert script.receive(OriginStatus(SWARM, "sharing", True)) == []
    assert script.receive(OriginStatus(SWARM, "fetching", False)) == [CancelUpstream(upstream.fetch)]


@pytest.mark.parametrize("state", ["fetching", "queued"])
def test_word_that_the_origin_is_asked_is_no_headway(state: str) -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(13):
        assert of_type(script.wait(20.0), FailReaders) == []
        script.receive(OriginStatus(SWARM, state, False))
    assert of_type(script.wait(10.1), FailReaders), "after 270 s"


def test_a_transfer_that_brings_nothing_is_waited_for_no_longer_than_a_client_waits() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    assert of_type(script.receive(Grant(20, SWARM, 0, 1, 10**9)), StartFetch)
    assert of_type(script.wait(179.9), FailReaders) == []
    assert of_type(script.wait(0.2), FailReaders)


def test_this_nodes_own_fetch_that_brings_nothing_is_waited_for_no_longer_than_a_client_waits() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    assert of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    assert of_type(script.wait(179.9), FailReaders) == []
    assert of_type(script.wait(0.2), FailReaders)


def test_a_blob_that_no_client_waits_for_is_given_up_where_nothing_comes() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    (upstream,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    script(ReaderClosed(1))
    script.wait(29.0)
    assert script.machine.state.blobs[DIGEST].wanted
    assert of_type(script.wait(1.1), CancelUpstream) == [CancelUpstream(upstream.fetch)]
    assert not script.machine.state.blobs[DIGEST].wanted


def test_a_blob_that_comes_is_fetched_to_its_end_though_its_client_is_gone() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    script(ReaderClosed(1))
    for _ in range(10):
        script.wait(25.0)
        script(PayloadCame(DIGEST))
    assert script.machine.state.blobs[DIGEST].wanted
