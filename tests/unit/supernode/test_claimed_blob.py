"""ClaimedBlob: what a member claims of a blob is fetched aside and compared with the digest before any of it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from peer.transport.cancellation import Cancellation, FetchCancelled
from proto.errors import LocalError
from proto.ids import PeerId, peer_name
from proto.wire.messages import FetchReason
from supernode import claimed_blob
from supernode.claimed_blob import ClaimedBlob
from supernode.control.swarm_registry import Claim
from tests.support.blobs import some_blob

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOB = some_blob(300_000, piece_size_bytes=65_536)
MEMBER = PeerId(bytes(32))


class Member:
    """Stands in for a transport: each fetch ends at once, with the member's bytes or its refusal."""

    def __init__(self, content: bytes, refuses: int = -1) -> None:
        self._content = content
        self._refuses = refuses

    def start(self, fetch: PieceFetch, done: Callable[[FetchOutcome], None]) -> None:
        layout = fetch.blob.layout
        if fetch.piece == self._refuses:
            done(FetchOutcome(fetch.fetch_id, FetchReason.NOT_HELD, 0.0, 0))
            return
        writer = fetch.blob.writer(fetch.piece)
        offset = layout.offset(fetch.piece)
        writer.write(memoryview(self._content)[offset : offset + layout.length(fetch.piece)])
        writer.finish()
        done(FetchOutcome(fetch.fetch_id, "", 0.0, layout.length(fetch.piece)))

    def cancel(self, fetch_id: int) -> None:
        """Nothing is under way."""


def claimed(folder: Path, hashes: bytes = BLOB.hashes) -> ClaimedBlob:
    claim = Claim(1, MEMBER, PieceSource(peer_name(MEMBER), "10.0.0.1:1"), hashes)
    return ClaimedBlob(BLOB.digest, BLOB.layout, claim, folder)


def bring(blob: ClaimedBlob, member: Member) -> bool:
    return blob.bring(member, b"ticket", Cancellation())  # type: ignore[arg-type]  # as much of a transport as is used


def test_a_right_claim_matches(tmp_path: Path) -> None:
    blob = claimed(tmp_path)
    assert bring(blob, Member(BLOB.content))
    assert blob.matches(Cancellation())
    blob.close()


def test_other_content_under_its_own_hashes_does_not(tmp_path: Path) -> None:
    other = some_blob(300_000, piece_size_bytes=65_536, seed=2)
    blob = claimed(tmp_path, other.hashes)
    assert bring(blob, Member(other.content))
    assert not blob.matches(Cancellation())
    blob.close()


def test_a_member_that_does_not_give_all_of_it_is_left(tmp_path: Path) -> None:
    blob = claimed(tmp_path)
    assert not bring(blob, Member(BLOB.content, refuses=3))
    blob.close()


def test_a_cancelled_fetch_ends(tmp_path: Path) -> None:
    blob, cancel = claimed(tmp_path), Cancellation()
    cancel.cancel()
    with pytest.raises(FetchCancelled):
        blob.bring(Member(BLOB.content), b"ticket", cancel)  # type: ignore[arg-type]  # as much of a transport as is used
    blob.close()


def test_a_claim_that_would_fill_the_disk_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimed_blob, "DISK_PART", 0.0)
    with pytest.raises(LocalError, match="no room"):
        claimed(tmp_path)


class Sleeper:
    """Stands in for a transport whose member gives `pieces` pieces and then nothing more."""

    def __init__(self, pieces: int) -> None:
        self._left = pieces
        self._awaited: dict[int, Callable[[FetchOutcome], None]] = {}

    def start(self, fetch: PieceFetch, done: Callable[[FetchOutcome], None]) -> None:
        if self._left:
            self._left -= 1
            done(FetchOutcome(fetch.fetch_id, "", 0.0, fetch.blob.layout.length(fetch.piece)))
        else:
            self._awaited[fetch.fetch_id] = done

    def cancel(self, fetch_id: int) -> None:
        self._awaited.pop(fetch_id)(FetchOutcome(fetch_id, FetchReason.CANCELLED, 0.0, 0))


@pytest.mark.parametrize(("pieces", "rate_bytes_s"), [(0, 1), (3, 1 << 30), (3, 1)])
def test_a_member_that_stands_still_is_left_however_large_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int, rate_bytes_s: int
) -> None:
    monkeypatch.setattr(claimed_blob, "PIECE_WAIT_S", 0.01)
    monkeypatch.setattr(claimed_blob, "CLAIM_MAX_S", 0.05)
    monkeypatch.setattr(claimed_blob, "RATE_MIN_BYTES_S", rate_bytes_s)
    blob = claimed(tmp_path)
    assert not blob.bring(Sleeper(pieces), b"ticket", Cancellation())  # type: ignore[arg-type]  # as much as is used
    blob.close()
