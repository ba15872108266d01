"""With a supernode that cannot fetch: what it says of the origin, and this node asking it, for all or its readers."""

from __future__ import annotations

from peer.downloader.contract import (
    BlobWanted,
    CancelUpstream,
    CheckDigest,
    DigestChecked,
    FailReaders,
    FetchUpstream,
    LeaveOrigin,
    PieceHeld,
    ReaderAt,
    ReaderClosed,
    Send,
    UpstreamEnded,
    UpstreamPiece,
)
from proto.wire.messages import OriginStatus, OriginTried, Stored
from tests.unit.peer.downloader.script import DIGEST, SOURCE, SWARM, Script, of_type


def test_a_slow_origin_is_waited_for_while_the_supernode_says_that_it_is_fetching() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    for _ in range(60):
        assert of_type(script.wait(2.0), FetchUpstream) == []
        script.receive(OriginStatus(SWARM, "fetching", False))
    assert of_type(script.wait(31.0), FetchUpstream)


def test_an_elected_node_asks_upstream_and_reports_the_end() -> None:
    script = Script().connected().open(held=0b0010)
    (upstream,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    assert (upstream.source, upstream.pieces, upstream.first, upstream.why) == (SOURCE, 0b1101, 0, "elected")
    assert script(UpstreamPiece(upstream.fetch, 0)) == [Send(Stored(0, SWARM, 0, 0)), PieceHeld(DIGEST, 0)]
    script(UpstreamPiece(upstream.fetch, 2), UpstreamPiece(upstream.fetch, 3))
    (check,) = of_type(script.all, CheckDigest)
    assert Send(OriginTried(SWARM, "")) in script(UpstreamEnded(upstream.fetch, ""))
    script(DigestChecked(check.check, True))


def test_a_failed_election_is_reported_and_readers_see_for_themselves() -> None:
    script = Script().connected().open()
    (upstream,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    out = script(UpstreamEnded(upstream.fetch, "unavailable"))
    assert Send(OriginTried(SWARM, "unavailable")) in out
    assert of_type(out, FailReaders) == [FailReaders(DIGEST, False, "upstream: unavailable")]


def test_an_origin_open_to_all_is_asked_only_where_a_client_reads() -> None:
    script = Script().connected().open()
    script(ReaderClosed(1))
    assert of_type(script.receive(OriginStatus(SWARM, "open", False)), FetchUpstream) == []
    (upstream,) = of_type(script(BlobWanted(2, DIGEST, SOURCE)), FetchUpstream)
    assert upstream.why == "open"


def test_an_origin_that_told_the_supernode_to_leave_it_alone_is_asked_by_nobody() -> None:
    script = Script().connected().open()
    script(ReaderAt(1, 0))
    out = script.receive(OriginStatus(SWARM, "queued", False, 400.0))
    assert LeaveOrigin(DIGEST, (SOURCE,), 400.0) in out
    # Not even where nothing comes for as long as a client waits.
    assert of_type(script.wait(399.0), FetchUpstream) == []


def test_a_fetch_of_this_nodes_own_ends_when_the_origin_wants_to_be_left_alone() -> None:
    script = Script().connected().open()
    (upstream,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    assert CancelUpstream(upstream.fetch) in script.receive(OriginStatus(SWARM, "queued", False, 60.0))


def test_an_elected_node_that_is_told_to_ask_later_says_so_and_its_clients_wait() -> None:
    script = Script().connected().open()
    (upstream,) = of_type(script.receive(OriginStatus(SWARM, "unreachable", True)), FetchUpstream)
    out = script(UpstreamEnded(upstream.fetch, "rate_limited", "429", 60.0))
    assert Send(OriginTried(SWARM, "rate_limited", 60.0)) in out
    assert of_type(out, FailReaders) == []
    assert of_type(script.receive(OriginStatus(SWARM, "open", False)), FetchUpstream) == []
