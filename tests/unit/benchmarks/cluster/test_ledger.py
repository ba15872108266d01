"""The sums by which a claim about origin traffic is proved or disproved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cluster.ledger import Exchange, Ledger, union_bytes

BLOB = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def exchange(digest: str, first: int, size_bytes: int, method: str = "GET", status: int = 206) -> Exchange:
    path = f"/v2/library/random/blobs/{digest}"
    made = Exchange(0, "client", method, path, "", [], (first, None), 0.0, status=status, offset=first)
    made.body_sent_bytes = made.body_acked_bytes = size_bytes
    return made


def test_adjacent_ranges_repeat_nothing() -> None:
    ledger = Ledger((exchange(BLOB, 100, 50), exchange(BLOB, 0, 100)))
    assert (ledger.gets(BLOB), ledger.blob_bytes(BLOB), ledger.repeated_bytes(BLOB)) == (2, 150, 0)
    assert ledger.intervals(BLOB) == [(0, 100), (100, 150)]


def test_an_overlap_is_counted_once_as_distinct_and_once_as_repeated() -> None:
    ledger = Ledger((exchange(BLOB, 0, 100), exchange(BLOB, 90, 20)))
    assert (ledger.distinct_bytes(BLOB), ledger.repeated_bytes(BLOB)) == (110, 10)


def test_other_blobs_heads_and_refusals_are_not_counted_as_gets() -> None:
    ledger = Ledger((exchange(OTHER, 0, 100), exchange(BLOB, 0, 0, "HEAD", 200), exchange(BLOB, 0, 9, status=429)))
    assert (ledger.gets(BLOB), ledger.heads(BLOB), ledger.blob_bytes(BLOB)) == (0, 1, 0)


def test_a_blobs_first_byte_is_the_earliest_that_was_sent_of_it() -> None:
    later, sooner, silent = exchange(BLOB, 0, 9), exchange(BLOB, 9, 9), exchange(BLOB, 0, 0)
    other = exchange(OTHER, 0, 9)
    later.first_byte_s, sooner.first_byte_s, other.first_byte_s = 7.0, 6.0, 5.0
    assert Ledger((later, sooner, other, silent)).first_byte_s(BLOB) == 6.0
    assert Ledger((silent, other)).first_byte_s(BLOB) is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_the_union_counts_each_offset_once(pairs: list[tuple[int, int]]) -> None:
    intervals = [(min(pair), max(pair)) for pair in pairs]
    assert union_bytes(intervals) == len({n for first, end in intervals for n in range(first, end)})
