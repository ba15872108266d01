"""How a swarm is cut, and when one of one upstream makes way for readers of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proto.errors import LayercastError
from proto.ids import Digest
from proto.pieces import KIB, MIB, PieceLayout
from proto.wire.messages import Voided
from supernode.control.admission import MADE_WAY_S, NO_HEADERS_S
from supernode.control.verification import SILENT_S
from supernode.scheduler import contract
from tests.unit.supernode.control.bench import SOURCE, Bench

if TYPE_CHECKING:
    from supernode.control.open_swarm import OpenSwarm

OTHER = "registry.example.net"


def wanted(bench: Bench) -> OpenSwarm:
    """A node waits for what its upstream has not begun to send."""
    swarm = bench.open(b"blob")
    bench.enter(bench.join(), swarm)
    swarm.fetch_began(1, 0b1)
    return swarm


def makes_way(bench: Bench, swarm: OpenSwarm) -> bool:
    return bench.control.admission.makes_way(swarm, OTHER)


def test_a_silent_upstream_makes_way_where_nothing_came_of_it() -> None:
    bench = Bench()
    swarm = wanted(bench)
    assert not makes_way(bench, swarm)
    bench.now_s += SILENT_S
    assert makes_way(bench, swarm)
    assert bench.control.swarms.of(swarm.digest) is None
    assert ("cancel_origin", 1) in bench.seed.calls
    assert [len(ears.of(Voided)) for ears in bench.ears.values()] == [1]


def test_one_that_sends_does_not() -> None:
    bench = Bench()
    swarm = wanted(bench)
    bench.now_s += SILENT_S
    bench.control.verification.origin_moved(swarm.number)
    assert not makes_way(bench, swarm)


def test_nor_one_whose_clients_have_headers_by_now() -> None:
    bench = Bench()
    swarm = wanted(bench)
    bench.now_s += NO_HEADERS_S
    with pytest.raises(LayercastError, match=r"registry\.example\.com"):
        makes_way(bench, swarm)


def test_nor_one_whose_bytes_somebody_has() -> None:
    bench = Bench()
    swarm = wanted(bench)
    bench.control.verification.seed_stored(swarm.number, 0, b"h" * 32, None)
    swarm.check_ended()
    bench.now_s += SILENT_S
    with pytest.raises(LayercastError):
        makes_way(bench, swarm)


def test_the_next_swarm_is_for_readers_for_whom_it_was_opened_whoever_comes_first() -> None:
    bench = Bench()
    swarm = bench.control.admission.open(Digest.of(b"blob"), 1000, None, None, begins_at=SOURCE.upstream)
    assert not swarm.serves({OTHER})
    assert not makes_way(bench, swarm)
    bench.now_s += SILENT_S
    assert makes_way(bench, swarm)


def test_what_nobody_wants_any_more_makes_way_at_once() -> None:
    bench = Bench()
    swarm = bench.open(b"blob")
    bench.enter(bench.join(), swarm, wanted=False)
    assert makes_way(bench, swarm)


def test_an_upstream_takes_the_place_of_another_once_in_a_while() -> None:
    bench = Bench()
    for again in (True, False):
        swarm = wanted(bench)
        bench.now_s += SILENT_S
        if again:
            assert makes_way(bench, swarm)
    with pytest.raises(LayercastError):
        makes_way(bench, swarm)
    bench.control.participation.drop_all(swarm, "later")
    bench.now_s += MADE_WAY_S
    swarm = wanted(bench)
    bench.now_s += SILENT_S
    assert makes_way(bench, swarm)


def test_what_took_the_place_of_one_that_stood_still_makes_no_way_for_it() -> None:
    bench = Bench()
    swarm = wanted(bench)
    stood_still = swarm.upstream
    bench.now_s += SILENT_S
    assert makes_way(bench, swarm)
    swarm = wanted(bench)
    swarm.upstream = OTHER
    bench.now_s += SILENT_S
    # Its readers wait: they would have nothing from it either.
    assert not bench.control.admission.makes_way(swarm, stood_still)
    assert bench.control.swarms.of(swarm.digest) is swarm
    bench.now_s += MADE_WAY_S
    assert not bench.control.admission.stood_still(swarm.digest, stood_still)


@pytest.mark.parametrize(("ranges", "piece_bytes"), [(False, 256 * KIB), (True, 64 * KIB)])
def test_a_blob_that_is_read_by_ranges_first_is_cut_finer(ranges: bool, piece_bytes: int) -> None:
    bench = Bench()
    swarm = bench.control.admission.open(Digest.of(b"blob"), 64 * MIB, None, None, ranges=ranges)
    assert swarm.layout.piece_size_bytes == piece_bytes


def test_a_blob_is_cut_coarser_once_it_is_known_what_links_carry() -> None:
    bench = Bench()
    bench.pace = contract.Pace(rate_bytes_s=125_000_000, lease_s=0.01)
    swarm = bench.control.admission.open(Digest.of(b"blob"), 64 * MIB, None, None)
    assert swarm.layout.piece_size_bytes == MIB


def test_a_blob_that_was_dropped_is_begun_anew_in_its_cut() -> None:
    bench, digest = Bench(), Digest.of(b"blob")
    bench.pace = contract.Pace(rate_bytes_s=125_000_000, lease_s=0.01)
    before = bench.control.admission.open(digest, 64 * MIB, None, None)
    bench.control.participation.drop_all(before, "wrong")
    bench.pace = None
    assert bench.control.admission.open(digest, 64 * MIB, None, None, ranges=True).layout == before.layout


def test_a_blob_of_another_size_is_cut_anew() -> None:
    bench, digest = Bench(), Digest.of(b"blob")
    before = bench.control.admission.open(digest, 64 * MIB, None, None)
    bench.control.participation.drop_all(before, "wrong")
    size_bytes = 1024 * MIB
    assert bench.control.admission.open(digest, size_bytes, None, None).layout == PieceLayout.of(size_bytes)


def test_pieces_of_the_usual_cut_count_more_than_the_cut_of_what_was_dropped() -> None:
    bench, digest = Bench(), Digest.of(b"blob")
    before = bench.control.admission.open(digest, 64 * MIB, None, None, ranges=True)
    bench.control.participation.drop_all(before, "wrong")
    again = bench.control.admission.open(digest, 64 * MIB, None, None, usual=True)
    assert again.layout == PieceLayout.of(64 * MIB)
