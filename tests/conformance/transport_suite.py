"""What every transport must do, whichever its wire: derive TransportSuite and give it a fixture `wire`.

The suite plays the scheduler: it starts fetches and looks at outcomes and at the receiving store. Pieces are cut as
every transport can cut them: by a power of two of at least 16 KiB.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.transport.base import FetchOutcome, PieceFetch, PieceSource
from proto.errors import RemoteError
from proto.ids import peer_name
from proto.wire.messages import FetchReason
from proto.wire.tickets import Identity, issue_ticket
from tests.support.blobs import SomeBlob, fill, some_blob

if TYPE_CHECKING:
    from peer.store.base import BlobHandle, BlobStore
    from peer.transport.base import Transport


class Uploader(Protocol):
    """The serving side of a transport under test."""

    @property
    def address(self) -> str: ...

    def close(self) -> None:
        """Stop serving at once."""
        ...


@dataclass
class Wire:
    """One downloader and one uploader that can reach each other, each with a store of its own."""

    supernode: Identity
    downloader: Identity
    uploader: Identity
    source_store: BlobStore
    target_store: BlobStore
    server: Uploader
    transport: Transport
    outcomes: queue.Queue[FetchOutcome] = field(default_factory=queue.Queue)

    @property
    def source(self) -> PieceSource:
        """Where to fetch from."""
        return PieceSource(peer_name(self.uploader.peer), self.server.address)

    def ticket(self, blob: SomeBlob, *, lives_s: float = 3600.0) -> bytes:
        """For our downloader."""
        return issue_ticket(self.supernode, blob.digest, self.downloader.peer, time.time() + lives_s)

    def target(self, blob: SomeBlob) -> BlobHandle:
        """The blob at the downloader, its hashes known."""
        handle = self.target_store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, blob.hashes)
        return handle

    def start(
        self, handle: BlobHandle, piece: int, ticket: bytes, *, fetch_id: int = 1, deadline_s: float = WAIT_S
    ) -> None:
        """Begin a fetch whose outcome comes into `outcomes`."""
        fetch = PieceFetch(fetch_id, handle, piece, self.source, ticket, deadline_s)
        self.transport.start(fetch, self.outcomes.put)

    def outcome(self) -> FetchOutcome:
        """The next one."""
        return self.outcomes.get(timeout=WAIT_S)

    def fetch(self, handle: BlobHandle, piece: int, ticket: bytes) -> FetchOutcome:
        """One fetch from start to end."""
        self.start(handle, piece, ticket)
        return self.outcome()


class TransportSuite:
    """Inherit; `wire` must be a fixture."""

    def test_a_piece_arrives_and_is_held(self, wire: Wire) -> None:
        blob = some_blob(300_000, piece_size_bytes=65536)
        fill(wire.source_store, blob).close()
        handle = wire.target(blob)
        outcome = wire.fetch(handle, 2, wire.ticket(blob))
        assert (outcome.reason, outcome.stored_bytes, handle.held) == ("", 65536, 0b100)
        handle.close()

    def test_a_whole_blob_arrives_complete(self, wire: Wire) -> None:
        blob = some_blob(300_001, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        handle, ticket = wire.target(blob), wire.ticket(blob)
        for piece in range(blob.layout.count):
            wire.start(handle, piece, ticket, fetch_id=piece)
        reasons = {wire.outcome().reason for _ in range(blob.layout.count)}
        assert reasons == {""}
        assert handle.check_digest()
        handle.close()

    def test_pieces_of_two_blobs_share_the_way(self, wire: Wire) -> None:
        blobs = [some_blob(50_000, piece_size_bytes=16384, seed=seed) for seed in (1, 2)]
        for blob in blobs:
            fill(wire.source_store, blob).close()
        for blob in blobs:
            handle = wire.target(blob)
            assert wire.fetch(handle, 0, wire.ticket(blob)).reason == ""
            handle.close()

    def test_a_piece_that_the_source_lacks_is_not_held(self, wire: Wire) -> None:
        blob = some_blob(40_000, piece_size_bytes=16384)
        fill(wire.source_store, blob, [0]).close()
        handle = wire.target(blob)
        assert wire.fetch(handle, 1, wire.ticket(blob)).reason == FetchReason.NOT_HELD
        assert wire.fetch(handle, 0, wire.ticket(blob)).reason == ""
        handle.close()

    def test_a_blob_that_the_source_lacks_is_not_held(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        handle = wire.target(blob)
        assert wire.fetch(handle, 0, wire.ticket(blob)).reason == FetchReason.NOT_HELD
        handle.close()

    def test_bytes_that_do_not_match_are_corrupt_and_not_held(self, wire: Wire) -> None:
        blob = some_blob(40_000, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        handle = wire.target_store.open(blob.digest, blob.layout)
        handle.trust_hashes(0, bytes(len(blob.hashes)))
        assert wire.fetch(handle, 0, wire.ticket(blob)).reason == FetchReason.CORRUPT
        assert handle.held == 0
        handle.close()

    def test_a_ticket_of_another_supernode_is_refused(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        forged = issue_ticket(Identity.generate(), blob.digest, wire.downloader.peer, time.time() + 3600)
        handle = wire.target(blob)
        assert wire.fetch(handle, 0, forged).reason == FetchReason.TICKET
        handle.close()

    def test_an_expired_ticket_is_refused(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        handle = wire.target(blob)
        assert wire.fetch(handle, 0, wire.ticket(blob, lives_s=-60)).reason == FetchReason.TICKET
        handle.close()

    def test_a_ticket_for_another_blob_is_refused(self, wire: Wire) -> None:
        blob, other = some_blob(10_000, piece_size_bytes=16384), some_blob(10_000, piece_size_bytes=16384, seed=2)
        fill(wire.source_store, blob).close()
        handle = wire.target(blob)
        assert wire.fetch(handle, 0, wire.ticket(other)).reason == FetchReason.TICKET
        handle.close()

    def test_a_ticket_of_another_peer_is_refused(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        stolen = issue_ticket(wire.supernode, blob.digest, Identity.generate().peer, time.time() + 3600)
        handle = wire.target(blob)
        assert wire.fetch(handle, 0, stolen).reason == FetchReason.TICKET
        handle.close()

    def test_a_source_that_is_gone_is_a_connection_failure(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        handle = wire.target(blob)
        wire.server.close()
        assert wire.fetch(handle, 0, wire.ticket(blob)).reason == FetchReason.CONNECTION
        handle.close()

    def test_a_piece_whose_hash_is_unknown_is_our_own_trouble(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        handle = wire.target_store.open(blob.digest, blob.layout)
        outcome = wire.fetch(handle, 0, wire.ticket(blob))
        assert outcome.reason == FetchReason.LOCAL
        assert "hash" in outcome.message
        handle.close()

    def test_two_fetches_of_one_piece_both_end_well(self, wire: Wire) -> None:
        blob = some_blob(200_000, piece_size_bytes=262_144)
        fill(wire.source_store, blob).close()
        handle, ticket = wire.target(blob), wire.ticket(blob)
        for fetch_id in (1, 2):
            wire.start(handle, 0, ticket, fetch_id=fetch_id)
        assert {wire.outcome().reason for _ in range(2)} == {""}
        assert handle.check_digest()
        handle.close()

    def test_cancelling_what_is_unknown_or_done_does_nothing(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        handle = wire.target(blob)
        assert wire.fetch(handle, 0, wire.ticket(blob)).reason == ""
        wire.transport.cancel(1)
        wire.transport.cancel(99)
        assert wire.outcomes.empty()
        handle.close()

    def test_the_bitfield_of_a_source(self, wire: Wire) -> None:
        blob = some_blob(160_000, piece_size_bytes=16384)
        fill(wire.source_store, blob, [0, 3]).close()
        found = wire.transport.bitfield(wire.source, blob.digest, wire.ticket(blob), WAIT_S)
        assert found == (blob.layout, 0b1001)

    def test_there_is_no_bitfield_of_an_unknown_blob(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        found = wire.transport.bitfield(wire.source, blob.digest, wire.ticket(blob), WAIT_S)
        assert found is None

    def test_a_source_that_is_gone_has_no_bitfield(self, wire: Wire) -> None:
        blob = some_blob(10_000, piece_size_bytes=16384)
        wire.server.close()
        with pytest.raises(RemoteError):
            wire.transport.bitfield(wire.source, blob.digest, wire.ticket(blob), WAIT_S)

    def test_every_start_has_one_outcome_under_cancels_from_another_thread(self, wire: Wire) -> None:
        blob = some_blob(1_600_000, piece_size_bytes=16384)
        fill(wire.source_store, blob).close()
        handle, ticket = wire.target(blob), wire.ticket(blob)

        def cancel_some() -> None:
            for fetch_id in range(0, blob.layout.count, 3):
                wire.transport.cancel(fetch_id)

        canceller = threading.Thread(target=cancel_some)
        for piece in range(blob.layout.count):
            wire.start(handle, piece, ticket, fetch_id=piece)
            if piece == 10:
                canceller.start()
        canceller.join()
        outcomes = [wire.outcome() for _ in range(blob.layout.count)]
        assert sorted(outcome.fetch_id for outcome in outcomes) == list(range(blob.layout.count))
        assert {outcome.reason for outcome in outcomes} <= {"", FetchReason.CANCELLED}
        assert wire.outcomes.empty()
        assert handle.held.bit_count() == sum(outcome.reason == "" for outcome in outcomes)
        handle.close()
