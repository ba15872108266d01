"""Clients that read ranges: what comes for them, what comes before what, and when they are sent to their origin."""

from __future__ import annotations

from peer.downloader.contract import (
    AnswerReader,
    BlobWanted,
    CancelUpstream,
    CheckDigest,
    CheckPublic,
    CloseInStore,
    FailReaders,
    FetchEnded,
    FetchUpstream,
    PublicChecked,
    ReaderClosed,
    StoreOpened,
    SupernodeConnected,
    SupernodeLost,
    UpstreamEnded,
    UpstreamPiece,
)
from proto.oci.ranges import ByteRange
from proto.pieces import PieceLayout
from proto.wire.messages import Announce, OriginStatus, PiecesWanted, SwarmOpened
from tests.unit.peer.downloader.script import DIGEST, PIECE, SIZE, SOURCE, SWARM, TICKET, Script, of_type, sent

OPENED = SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET)
FOOTER = ByteRange(None, None, suffix=51)
SECOND_PIECE = ByteRange(PIECE + 5, PIECE + 9)


def wants(reader: int, *ranges: ByteRange, whole: bool = False) -> BlobWanted:
    return BlobWanted(reader, DIGEST, SOURCE, ranges=ranges, whole=whole)


def reading(*ranges: ByteRange) -> Script:
    """A client reads these ranges; nothing is held."""
    script = Script().connected()
    script(wants(1, *ranges))
    script.receive(OPENED)
    script(StoreOpened(DIGEST, 0, 0b1111, False))
    return script


def asked(commands: list[object]) -> list[bytes]:
    return [message.pieces for message in sent(commands) if isinstance(message, PiecesWanted)]  # type: ignore[arg-type]


def test_just_the_pieces_of_the_ranges_are_wanted_and_before_the_store_is_open() -> None:
    script = Script().connected()
    assert sent(script(wants(1, FOOTER, SECOND_PIECE))) == [
        Announce(str(DIGEST), (SOURCE,), True, 0, 0, b"", ranges=True)
    ]
    assert PiecesWanted(SWARM, b"\x0a") in sent(script.receive(OPENED))
    assert script(StoreOpened(DIGEST, 0, 0b1111, False)) == [AnswerReader(1)]


def test_a_second_reader_adds_its_own_and_one_that_leaves_takes_them_back() -> None:
    script = reading(FOOTER)
    assert PiecesWanted(SWARM, b"\x0a") in sent(script(wants(2, SECOND_PIECE)))
    assert PiecesWanted(SWARM, b"\x08") in sent(script(ReaderClosed(2)))
    # Nothing is told where nothing changes.
    assert sent(script(wants(3, FOOTER))) == []


def test_what_came_is_asked_for_no_more() -> None:
    script = reading(FOOTER)
    script.grant(1, 3)
    (fetch,) = script.machine.state.blobs[DIGEST].fetches
    script(FetchEnded(fetch, "", 0.1))
    assert sent(script(ReaderClosed(1))) == []
    assert sent(script(wants(2, FOOTER))) == []


def test_the_rest_comes_once_somebody_wants_the_whole() -> None:
    script = reading(FOOTER)
    announced = sent(script(BlobWanted(2, DIGEST, SOURCE)))
    assert [message.ranges for message in announced if isinstance(message, Announce)] == [False]
    script(ReaderClosed(1), ReaderClosed(2))
    assert script.machine.state.blobs[DIGEST].missing == 0b1111, "a client that hangs up stops nothing"


def test_where_all_is_to_come_too_the_ranges_come_first() -> None:
    script = Script().connected()
    assert sent(script(wants(1, FOOTER, whole=True))) == [Announce(str(DIGEST), (SOURCE,), True, 0, 0, b"")]
    assert PiecesWanted(SWARM, b"\x08") in sent(script.receive(OPENED))


def test_what_is_held_in_part_is_let_go_and_no_digest_is_compared() -> None:
    script = reading(FOOTER)
    script.grant(1, 3)
    (fetch,) = script.machine.state.blobs[DIGEST].fetches
    script(FetchEnded(fetch, "", 0.1), ReaderClosed(1))
    script.wait(script.machine.state.limits.stall_s + 1.0)
    assert of_type(script.all, CheckDigest) == []
    assert of_type(script.all, CloseInStore) == [CloseInStore(DIGEST)]
    blob = script.machine.state.blobs[DIGEST]
    assert (blob.held, blob.complete, blob.wanted) == (0b1000, False, False)


def test_who_reads_ranges_does_not_wait_for_a_supernode_that_is_gone() -> None:
    script = reading(FOOTER)
    assert [failed.reader for failed in of_type(script(SupernodeLost()), FailReaders)] == [1]
    script(wants(2, SECOND_PIECE), wants(3, SECOND_PIECE, whole=True))
    assert [failed.reader for failed in of_type(script.all, FailReaders)] == [1, 2]


def test_nor_does_who_reads_what_is_held_go_anywhere() -> None:
    script = reading(FOOTER)
    script.grant(1, 3)
    (fetch,) = script.machine.state.blobs[DIGEST].fetches
    script(FetchEnded(fetch, "", 0.1))
    assert of_type(script(SupernodeLost()), FailReaders) == []


def test_after_a_new_session_only_the_ranges_are_asked_for_again() -> None:
    script = reading(FOOTER)
    script(SupernodeLost(), SupernodeConnected(), wants(2, SECOND_PIECE))
    announced = [message for message in sent(script.all) if isinstance(message, Announce)]
    assert announced[-1].ranges
    assert PiecesWanted(SWARM, b"\x02") in sent(script.receive(OPENED))


def test_a_blob_that_is_shared_as_a_whole_alone_is_no_place_for_ranges() -> None:
    script = Script().connected()
    script(wants(1, FOOTER))
    script.receive(SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET, whole=True))
    assert [failed.reader for failed in of_type(script(StoreOpened(DIGEST, 0, 0b1111, False)), FailReaders)] == [1]
    assert not [message for message in sent(script.all) if isinstance(message, PiecesWanted)]


def test_a_blob_of_which_only_the_size_was_known_is_cut_as_its_swarm_is() -> None:
    script = Script().connected()
    script(BlobWanted(1, DIGEST, SOURCE, SIZE, proven=True, ranges=(FOOTER,), whole=False))
    assert script.machine.state.blobs[DIGEST].layout == PieceLayout.of(SIZE)
    finer = SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE // 4, TICKET, private=True)
    assert PiecesWanted(SWARM, b"\x00\x80") in sent(script.receive(finer))


def test_an_elected_node_asks_the_origin_for_the_ranges_alone() -> None:
    script = reading(FOOTER)
    (fetch,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    assert fetch.pieces == 0b1000


def alone(*first: BlobWanted) -> Script:
    """A node without a supernode, whose clients want this."""
    script = Script()
    for event in first:
        for check in of_type(script(event), CheckPublic):
            script(PublicChecked(check.check, SIZE))
    script(StoreOpened(DIGEST, 0, 0, False))
    return script


def test_a_node_without_a_supernode_asks_for_the_ranges_alone() -> None:
    script = alone(wants(1, FOOTER))
    assert [fetch.pieces for fetch in of_type(script.all, FetchUpstream)] == [0b1000]


def test_its_fetch_of_the_whole_makes_way_for_ranges() -> None:
    script = alone(BlobWanted(1, DIGEST, SOURCE))
    (whole,) = of_type(script.all, FetchUpstream)
    assert of_type(script(wants(2, FOOTER)), CancelUpstream) == [CancelUpstream(whole.fetch)]
    script(UpstreamPiece(whole.fetch, 0))
    (ranges,) = of_type(script(UpstreamEnded(whole.fetch, "cancelled")), FetchUpstream)
    assert ranges.pieces == 0b1000
    script(UpstreamPiece(ranges.fetch, 3))
    (rest,) = of_type(script(UpstreamEnded(ranges.fetch, "")), FetchUpstream)
    assert rest.pieces == 0b0110


def test_ranges_that_come_to_more_than_the_blob_are_answered_with_all_of_it_and_ask_for_that() -> None:
    twice = ByteRange(0, 3 * PIECE - 1)
    assert asked([*reading(twice, twice).all]) == [b"\x0f"]
