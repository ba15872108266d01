"""Blobs that are to be here before a client comes: how they are announced, what a client that comes changes."""

from __future__ import annotations

from peer.downloader.contract import (
    AnswerReader,
    BackgroundDropped,
    BlobWanted,
    CloseInStore,
    FetchUpstream,
    PiecesRotten,
    ReaderClosed,
    StoreOpened,
    SupernodeConnected,
    SupernodeLost,
)
from proto.wire.messages import Announce, BlobRefused, SwarmOpened
from tests.unit.peer.downloader.script import DIGEST, PIECE, SIZE, SOURCE, SWARM, TICKET, Script, of_type, sent

PREHEAT = BlobWanted(1, DIGEST, SOURCE, background=True)
OPENED = SwarmOpened(SWARM, str(DIGEST), SIZE, PIECE, TICKET)


def announced(commands: object) -> list[tuple[bool, bool]]:
    """(wanted, background) of each announcement."""
    messages = sent(commands)  # type: ignore[arg-type]
    return [(one.wanted, one.background) for one in messages if isinstance(one, Announce)]


def preheated() -> Script:
    """Opened for nobody: the reader is gone at once."""
    script = Script().connected()
    script(PREHEAT)
    script.receive(OPENED)
    assert of_type(script(StoreOpened(DIGEST, 0, 0b1111, False)), AnswerReader)
    script(ReaderClosed(1))
    return script


def test_it_is_announced_as_wanted_by_no_client() -> None:
    assert announced(Script().connected()(PREHEAT)) == [(True, True)]


def test_what_a_client_wants_is_not() -> None:
    assert announced(Script().connected()(BlobWanted(1, DIGEST, SOURCE))) == [(True, False)]


def test_it_goes_on_when_its_session_is_back() -> None:
    script = preheated()
    script(SupernodeLost())
    assert announced(script(SupernodeConnected())) == [(True, True)]


def test_a_client_that_comes_is_told_to_the_supernode() -> None:
    script = preheated()
    assert announced(script(BlobWanted(2, DIGEST, SOURCE))) == [(True, False)]


def test_a_client_that_comes_before_the_answer_is_told_to_the_supernode() -> None:
    script = Script().connected()
    script(PREHEAT, BlobWanted(2, DIGEST, SOURCE))
    assert (True, False) in announced(script.all + script.receive(OPENED))


def test_a_client_that_comes_before_a_refusal_is_told_to_the_supernode() -> None:
    script = Script().connected()
    script(PREHEAT)
    script.receive(OPENED)
    script(StoreOpened(DIGEST, 0b0001, 0b1111, False), ReaderClosed(1))
    # Announced anew; a client comes before that is answered.
    script(PiecesRotten(DIGEST, 0b0001), BlobWanted(2, DIGEST, SOURCE))
    script.receive(OPENED)
    assert announced(script.receive(BlobRefused(str(DIGEST), "unavailable", ""))) == [(True, False)]


def test_a_client_that_hangs_up_leaves_a_pull() -> None:
    script = preheated()
    script(BlobWanted(2, DIGEST, SOURCE), ReaderClosed(2), SupernodeLost())
    assert announced(script(SupernodeConnected())) == [(True, False)]


def test_the_origin_is_not_asked_for_it_by_this_node() -> None:
    script = preheated()
    script(SupernodeLost())
    assert of_type(script.wait(600.0), FetchUpstream) == []


def test_that_pulls_hold_back_for_half_an_hour_is_still_wanted() -> None:
    assert of_type(preheated().wait(1800.0), CloseInStore) == []


def test_that_the_supernode_forgot_is_given_up() -> None:
    assert of_type(preheated().wait(4000.0), CloseInStore) == [CloseInStore(DIGEST)]


def test_of_which_nothing_comes_without_a_supernode_is_given_up_soon() -> None:
    script = preheated()
    script(SupernodeLost())
    assert of_type(script.wait(60.0), CloseInStore) == [CloseInStore(DIGEST)]


def test_that_is_not_wanted_any_more_is_given_up_at_once() -> None:
    commands = preheated()(BackgroundDropped(DIGEST))
    assert of_type(commands, CloseInStore) == [CloseInStore(DIGEST)]


def test_that_a_client_wants_meanwhile_stays() -> None:
    script = preheated()
    script(BlobWanted(2, DIGEST, SOURCE))
    assert of_type(script(BackgroundDropped(DIGEST)), CloseInStore) == []
