"""Contents that came inside messages: whoever comes first, downloader or thread, the outcome is told exactly once."""

from __future__ import annotations

import pytest

from peer.downloader.contract import Event, FetchEnded, PieceArrived
from peer.node.inline import INLINE_MAX, InlineContents, Landed
from proto.ids import Digest
from proto.wire.messages import FetchReason

CONTENT = b"a config"
DIGEST = Digest.of(CONTENT)
STORED = Landed("", "", whole=True)


class Kept(InlineContents):
    """With the content of lease 5, and what was posted."""

    def __init__(self) -> None:
        self.posted: list[Event] = []
        super().__init__(self.posted.append)
        self.put(5, DIGEST, CONTENT)


def test_content_that_waits_is_given_out_once() -> None:
    kept = Kept()
    assert kept.wanted(5, 1) == CONTENT
    assert kept.wanted(5, 2) == b""
    assert kept.begin(DIGEST) is None
    assert not kept


@pytest.mark.parametrize("asked_first", [True, False])
def test_the_outcome_of_what_was_stored_with_the_opening_reaches_who_asks_for_it(asked_first: bool) -> None:
    kept = Kept()
    assert kept.begin(DIGEST) == (5, CONTENT)
    assert kept.is_landing(DIGEST)
    if asked_first:
        assert kept.wanted(5, 7) is None
        kept.landed(5, STORED)
    else:
        kept.landed(5, STORED)
        assert kept.posted == []
        assert kept.wanted(5, 7) is None
    assert kept.posted == [FetchEnded(7, "", 0.0, "", True)]
    assert not kept.is_landing(DIGEST)
    assert not kept


@pytest.mark.parametrize("declined_first", [True, False])
@pytest.mark.parametrize("reason", ["", FetchReason.LOCAL])
def test_of_what_nobody_asked_for_only_what_is_stored_is_told(declined_first: bool, reason: str) -> None:
    kept = Kept()
    kept.begin(DIGEST)
    outcome = Landed(reason, "", whole=not reason)
    if declined_first:
        kept.decline(5)
        kept.landed(5, outcome)
    else:
        kept.landed(5, outcome)
        kept.decline(5)
    assert kept.posted == ([] if reason else [PieceArrived(DIGEST, 0)])
    assert not kept


def test_the_end_of_the_session_ends_all_leases() -> None:
    kept = Kept()
    kept.begin(DIGEST)
    kept.put(6, Digest.of(b"other"), b"other")
    kept.clear()
    assert kept.begin(Digest.of(b"other")) is None
    kept.landed(5, STORED)
    assert kept.posted == [PieceArrived(DIGEST, 0)]
    assert not kept


def test_contents_that_nobody_asks_for_are_limited() -> None:
    kept = Kept()
    for lease in range(10, 10 + INLINE_MAX):
        kept.put(lease, DIGEST, CONTENT)
    assert len(kept) == INLINE_MAX
    assert kept.wanted(9 + INLINE_MAX, 1) == b""
