"""What counts as getting on: how long a client waits for a swarm that moves, and that it does not wait for another."""

from __future__ import annotations

from peer.downloader.contract import (
    BlobWanted,
    CancelUpstream,
    FailReaders,
    FetchEnded,
    FetchUpstream,
    PayloadCame,
    ReaderAt,
    StartFetch,
    StoreOpened,
)
from proto.ids import Digest
from proto.wire.messages import Grant, OriginStatus, SwarmOpened
from tests.unit.peer.downloader.script import DIGEST, PIECE, SIZE, SOURCE, SWARM, TICKET, Script, of_type

OTHER = Digest.of(b"another layer")
OPENED = SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET)


def test_a_swarm_is_waited_for_while_the_supernode_says_that_it_moves() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(10):
        assert of_type(script.wait(25.0), FailReaders) == []
        assert script.receive(OriginStatus(SWARM, "sharing", False)) == []
    assert of_type(script.wait(29.9), FailReaders) == []
    assert of_type(script.wait(0.2), FailReaders) == [FailReaders(DIGEST, False, "nothing came for 280 s")]


def test_a_swarm_that_moves_is_not_waited_for_without_end_where_nothing_comes() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(15):
        assert of_type(script.wait(20.0), FailReaders) == []
        script.receive(OriginStatus(SWARM, "sharing", False))
    assert of_type(script.wait(29.9), FailReaders) == []
    script.receive(OriginStatus(SWARM, "sharing", False))
    assert of_type(script.wait(0.2), FailReaders) == [FailReaders(DIGEST, False, "nothing came for 330 s")]


def test_a_blob_waits_its_turn_while_pieces_of_others_come() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    script(BlobWanted(2, OTHER, SOURCE))
    script.receive(SwarmOpened(SWARM + 1, str(OTHER), SIZE, PIECE, TICKET))
    script(StoreOpened(OTHER, 0, 0b1111, False))
    for piece in range(4):
        assert of_type(script.wait(25.0), FailReaders) == []
        (fetch,) = of_type(script.receive(Grant(20 + piece, SWARM + 1, piece, 1, 5000)), StartFetch)
        assert of_type(script(FetchEnded(fetch.fetch, "", 1.0)), FailReaders) == []
    assert of_type(script.wait(29.9), FailReaders) == []
    assert of_type(script.wait(0.2), FailReaders) == [FailReaders(DIGEST, False, "nothing came for 130 s")]


def test_a_swarm_is_waited_for_while_parts_of_pieces_come() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(10):
        assert of_type(script.wait(25.0), FailReaders) == []
        assert script(PayloadCame(DIGEST)) == []
    assert of_type(script.wait(29.9), FailReaders) == []
    assert of_type(script.wait(0.2), FailReaders) == [FailReaders(DIGEST, False, "nothing came for 30 s")]


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
    assert of_type(script.wait(1.1), FailReaders)


def test_a_swarm_that_moves_stops_no_fetch_of_this_nodes_own() -> None:
    script = Script().connected().open()
    (upstream,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    assert script.receive(OriginStatus(SWARM, "sharing", True)) == []
    assert script.receive(OriginStatus(SWARM, "fetching", False)) == [CancelUpstream(upstream.fetch)]
