"""What every state store must do: derive StateSuite and give it the fixture `stores`, which opens the same store again.

Opened by the fixture's `open()`, a store keeps 3 swarms, public checks and keys of events each, and looks at these
limits often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from proto.ids import Digest, PeerId
from proto.wire.messages import Source
from supernode.state.base import NewEvent, SavedEvent, SavedJob

if TYPE_CHECKING:
    from supernode.state.base import State

BLOB = Digest.of(b"blob")
BLOBS = [Digest.of(bytes([number])) for number in range(10)]
SOURCE = Source("registry.example", "library/thing")
PEERS = (PeerId(b"p" * 32), PeerId(b"q" * 32))


class Stores(Protocol):
    """Opens one and the same store, as each start of a supernode does."""

    def open(self) -> State: ...


class StateSuite:
    """Inherit; a blob of 1,000 bytes in pieces of 500 unless a test says otherwise."""

    @pytest.fixture
    def state(self, stores: Stores) -> State:
        return stores.open()

    # --- the epoch -------------------------------------------------------------------------------------------------

    def test_the_epoch_grows_with_each_start(self, stores: Stores) -> None:
        epochs = []
        for _ in range(3):
            state = stores.open()
            epochs.append(state.next_epoch())
            state.close()
        assert epochs == [1, 2, 3]

    # --- swarms ----------------------------------------------------------------------------------------------------

    def test_a_swarm_that_was_never_saved_is_not_found(self, state: State) -> None:
        assert state.load_swarm(BLOB) is None

    def test_a_swarm_comes_back_after_a_restart(self, stores: Stores) -> None:
        before = stores.open()
        before.save_swarm(BLOB, 1000, 256, 1.0)
        before.add_source(BLOB, SOURCE)
        before.add_private(BLOB, "quay.io")
        before.add_hashes(BLOB, [(3, b"d" * 32), (0, b"a" * 64)])
        before.add_holder(BLOB, PEERS[0])
        before.close()
        saved = stores.open().load_swarm(BLOB)
        assert saved is not None
        assert (saved.size_bytes, saved.piece_size_bytes, saved.vouched) == (1000, 256, False)
        assert saved.sources == (SOURCE,)
        assert saved.hashes == ((0, b"a" * 64), (3, b"d" * 32))
        assert saved.holders == (PEERS[0],)

    def test_saving_a_swarm_again_keeps_what_is_known_of_it(self, state: State) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        state.vouch(BLOB, b"a" * 32 + b"b" * 32)
        state.save_swarm(BLOB, 1000, 500, 2.0)
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert (saved.vouched, saved.hashes) == (True, ((0, b"a" * 32 + b"b" * 32),))

    @pytest.mark.parametrize(("size_bytes", "piece_size_bytes"), [(1000, 250), (2000, 500)])
    def test_a_different_cut_forgets_what_was_known(self, state: State, size_bytes: int, piece_size_bytes: int) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        state.add_source(BLOB, SOURCE)
        state.add_holder(BLOB, PEERS[0])
        state.vouch(BLOB, b"a" * 32 + b"b" * 32)
        state.save_swarm(BLOB, size_bytes, piece_size_bytes, 2.0)
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert (saved.size_bytes, saved.piece_size_bytes, saved.vouched) == (size_bytes, piece_size_bytes, False)
        assert (saved.sources, saved.hashes, saved.holders) == ((), (), ())

    def test_a_source_is_saved_once(self, state: State) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        state.add_source(BLOB, SOURCE)
        state.add_source(BLOB, SOURCE)
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert saved.sources == (SOURCE,)

    def test_a_run_of_hashes_replaces_one_with_the_same_first_piece(self, state: State) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        state.add_hashes(BLOB, [(0, b"a" * 32)])
        state.add_hashes(BLOB, [(0, b"a" * 32 + b"b" * 32)])
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert saved.hashes == ((0, b"a" * 32 + b"b" * 32),)

    def test_vouching_joins_the_hashes(self, state: State) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        state.add_hashes(BLOB, [(0, b"a" * 32), (1, b"b" * 32)])
        state.vouch(BLOB, b"a" * 32 + b"b" * 32)
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert (saved.vouched, saved.hashes) == (True, ((0, b"a" * 32 + b"b" * 32),))

    def test_holders_and_sources_of_a_blob_are_bounded(self, state: State) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        for number in range(300):
            state.add_holder(BLOB, PeerId(number.to_bytes(32, "big")))
            state.add_source(BLOB, Source("registry.example", f"library/{number}"))
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert len(saved.holders) <= 100
        assert (299).to_bytes(32, "big") in saved.holders
        assert len(saved.sources) <= 100

    def test_a_removed_holder_is_gone(self, state: State) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        for peer in (*PEERS, PEERS[0]):
            state.add_holder(BLOB, peer)
        for _ in range(2):
            state.remove_holder(BLOB, PEERS[0])
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert saved.holders == (PEERS[1],)

    def test_a_forgotten_swarm_takes_along_what_belonged_to_it(self, state: State) -> None:
        state.save_swarm(BLOB, 1000, 500, 1.0)
        state.add_source(BLOB, SOURCE)
        state.add_hashes(BLOB, [(0, b"a" * 32)])
        state.add_holder(BLOB, PEERS[0])
        for _ in range(2):
            state.forget_swarm(BLOB)
        assert state.load_swarm(BLOB) is None
        state.save_swarm(BLOB, 1000, 500, 1.0)
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert (saved.sources, saved.hashes, saved.holders) == ((), (), ())

    def test_what_is_added_to_an_unknown_swarm_is_dropped(self, state: State) -> None:
        state.add_source(BLOB, SOURCE)
        state.add_hashes(BLOB, [(0, b"a" * 32)])
        state.add_holder(BLOB, PEERS[0])
        state.vouch(BLOB, b"a" * 32)
        assert state.load_swarm(BLOB) is None
        state.save_swarm(BLOB, 1000, 500, 1.0)
        saved = state.load_swarm(BLOB)
        assert saved is not None
        assert (saved.vouched, saved.sources, saved.hashes, saved.holders) == (False, (), (), ())

    def test_swarms_do_not_mix(self, state: State) -> None:
        for blob, peer in zip(BLOBS, PEERS, strict=False):
            state.save_swarm(blob, 1000, 500, 1.0)
            state.add_holder(blob, peer)
        state.forget_swarm(BLOBS[0])
        saved = state.load_swarm(BLOBS[1])
        assert saved is not None
        assert saved.holders == (PEERS[1],)

    # --- public checks ---------------------------------------------------------------------------------------------

    def test_a_public_source_is_remembered_with_its_time(self, state: State) -> None:
        assert state.load_public(SOURCE, BLOB) is None
        state.save_public(SOURCE, BLOB, 1000, 7.0)
        state.save_public(SOURCE, BLOB, 1000, 8.5)
        saved = state.load_public(SOURCE, BLOB)
        assert saved is not None
        assert (saved.size_bytes, saved.checked_unix_s) == (1000, 8.5)

    def test_a_manifest_that_is_public_is_no_public_blob(self, state: State) -> None:
        state.save_public(Source(SOURCE.upstream, SOURCE.repository, manifest=True), BLOB, 1000, 7.0)
        assert state.load_public(SOURCE, BLOB) is None

    def test_a_forgotten_public_source_leaves_the_others(self, state: State) -> None:
        other = Source("registry.example", "library/other")
        for source in (SOURCE, other):
            state.save_public(source, BLOB, 1000, 7.0)
        for _ in range(2):
            state.forget_public(SOURCE, BLOB)
        assert state.load_public(SOURCE, BLOB) is None
        assert state.load_public(other, BLOB) is not None

    # --- limits ----------------------------------------------------------------------------------------------------

    def test_an_open_store_keeps_the_newest_swarms(self, state: State) -> None:
        for number, blob in enumerate(BLOBS):
            state.save_swarm(blob, 1000, 500, float(number))
        assert [state.load_swarm(blob) is not None for blob in BLOBS] == [False] * 7 + [True] * 3

    def test_an_open_store_keeps_the_newest_public_checks(self, state: State) -> None:
        for number, blob in enumerate(BLOBS):
            state.save_public(SOURCE, blob, 1000, float(number))
        assert [state.load_public(SOURCE, blob) is not None for blob in BLOBS] == [False] * 7 + [True] * 3

    # --- jobs ------------------------------------------------------------------------------------------------------

    def test_jobs_come_back_after_a_restart_by_their_numbers(self, stores: Stores) -> None:
        before = stores.open()
        for job in (SavedJob(10, "ten"), SavedJob(9, "first"), SavedJob(9, "then"), SavedJob(2, "two")):
            before.save_job(job)
        before.close()
        assert stores.open().load_jobs() == [SavedJob(2, "two"), SavedJob(9, "then"), SavedJob(10, "ten")]

    def test_a_forgotten_job_leaves_the_others(self, state: State) -> None:
        for number in (1, 2):
            state.save_job(SavedJob(number, "job"))
        for _ in range(2):
            state.forget_job(1)
        assert state.load_jobs() == [SavedJob(2, "job")]

    # --- events ----------------------------------------------------------------------------------------------------

    def test_events_come_back_after_a_restart_by_their_numbers(self, stores: Stores) -> None:
        before = stores.open()
        first, second, third = before.add_events([NewEvent(f"key {number}", "new") for number in range(3)])
        before.save_event(SavedEvent(third, "begun"))
        before.end_event(second)
        before.close()
        assert stores.open().load_events() == [SavedEvent(first, "new"), SavedEvent(third, "begun")]

    def test_an_event_that_is_told_again_is_not_new_though_it_is_done_with(self, stores: Stores) -> None:
        before = stores.open()
        (number,) = before.add_events([NewEvent("key", "new")])
        for _ in range(2):
            before.end_event(number)
        before.close()
        after = stores.open()
        assert after.add_events([NewEvent("key", "again"), NewEvent("other", "new")])[0] == 0
        assert [event.text for event in after.load_events()] == ["new"]

    def test_numbers_of_events_are_never_given_twice(self, stores: Stores) -> None:
        numbers = []
        for key in ("first", "second"):
            state = stores.open()
            (number,) = state.add_events([NewEvent(key, "new")])
            state.end_event(number)
            state.close()
            numbers.append(number)
        assert len(set(numbers)) == 2

    def test_an_ended_event_is_not_saved_again(self, state: State) -> None:
        (number,) = state.add_events([NewEvent("key", "new")])
        state.end_event(number)
        state.save_event(SavedEvent(number, "late"))
        assert state.load_events() == []

    def test_an_event_of_the_digest_that_its_tag_was_told_to_name_is_not_new(self, state: State) -> None:
        def told(key: str, digest: str) -> bool:
            return state.add_events([NewEvent(key, "text", "r/app", "1.0", digest)]) != [0]

        assert [told("a", "A"), told("b", "A"), told("c", "B"), told("d", "A")] == [True, False, True, True]
        assert state.add_events([NewEvent("e", "text", "r/app", "2.0", "A")]) != [0]

    def test_an_event_of_what_was_only_found_is_new(self, state: State) -> None:
        state.save_tags("r/app", {"1.0": "A", "2.0": "B"})
        assert state.add_events([NewEvent("key", "text", "r/app", "1.0", "A")]) != [0]

    def test_tags_name_what_was_told_or_found_last(self, stores: Stores) -> None:
        before = stores.open()
        before.save_tags("r/app", {"1.0": "A", "2.0": "B"})
        before.add_events([NewEvent("key", "text", "r/app", "1.0", "C"), NewEvent("other", "text", "r/lib", "x", "D")])
        before.add_events([NewEvent("without a digest", "text", "r/none", "x")])
        before.close()
        after = stores.open()
        assert after.load_tags("r/app") == {"1.0": "C", "2.0": "B"}
        assert after.load_tags("r/none") == {}
        assert after.load_repositories() == ["r/app", "r/lib"]

    def test_an_open_store_keeps_the_newest_keys_and_every_event(self, state: State) -> None:
        for number in range(10):
            state.add_events([NewEvent(f"key {number}", "new")])
        assert len(state.load_events()) == 10
        assert state.add_events([NewEvent("key 9", "new")]) == [0]
        assert state.add_events([NewEvent("key 0", "new")]) != [0]

    # --- closing ---------------------------------------------------------------------------------------------------

    def test_a_store_may_be_closed_twice(self, state: State) -> None:
        state.close()
        state.close()
