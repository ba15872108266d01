"""The physical limits: the formulas' own figures, and what must hold for every scenario."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bounds import Bounds, bounds
from benchmarks.scenario import Arrivals, Faults, NodeClass, OriginBehaviour, Scenario, equal_links
from proto.errors import ConfigError
from proto.pieces import MIB

RATE = 1_000_000.0
ROUNDING = 1e-9
TIMES = ("fluid_s", "piece_s", "native_s", "torrent_s", "live_fluid_s", "racks_s")

rates = st.integers(1, 1000).map(lambda kilo: kilo * 1000.0)
classes = st.lists(st.tuples(st.integers(1, 3), rates, rates), min_size=1, max_size=3).map(
    lambda drawn: tuple(NodeClass(f"class {number}", *one) for number, one in enumerate(drawn))
)
blobs = st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=3).map(tuple)
arrivals = st.one_of(st.just(Arrivals()), st.floats(0.01, 100.0).map(lambda rate: Arrivals(poisson_per_s=rate)))
faults = st.builds(
    Faults,
    churn_part=st.sampled_from((0.0, 0.3)),
    churn_to_s=st.floats(0.0, 1000.0),
    churn_back_after_s=st.sampled_from((0.0, 10.0)),
    slow_part=st.sampled_from((0.0, 0.2)),
    corrupt_part=st.sampled_from((0.0, 0.2)),
)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Any of them."""
    nodes = draw(st.integers(1, 40))
    return Scenario(
        nodes=nodes,
        blobs=draw(blobs),
        classes=draw(classes),
        origin_bytes_s=draw(rates),
        supernode_bytes_s=draw(rates),
        piece_size_bytes=draw(st.sampled_from((None, MIB, 4 * MIB))),
        racks=draw(st.integers(0, min(nodes, 4))),
        trunk_bytes_s=draw(rates),
        arrivals=draw(arrivals),
        origin=OriginBehaviour(first_byte_s=draw(st.sampled_from((0.0, 5.0)))),
        faults=draw(faults),
        seed=draw(st.integers(0, 100)),
    )


def assert_none_is_less(these: Bounds, than: Bounds) -> None:
    """No time of the one is below the other's, but for rounding."""
    for name in TIMES:
        this, other = getattr(these, name), getattr(than, name)
        assert (this is None) == (other is None), name
        if this is not None:
            assert this >= other * (1 - ROUNDING), name


@pytest.mark.parametrize(
    ("pieces", "piece_mib", "rounds_over_pieces"), [(477, 1, 1.015), (120, 4, 1.058), (30, 16, 1.233)]
)
def test_with_equal_links_a_blob_takes_its_pieces_and_the_doublings_of_200_nodes(
    pieces: int, piece_mib: int, rounds_over_pieces: float
) -> None:
    piece_bytes = piece_mib * MIB
    limits = bounds(replace(equal_links(200, (pieces * piece_bytes,), RATE), piece_size_bytes=piece_bytes))
    piece_s = piece_bytes / RATE
    assert limits.piece_s == pytest.approx((pieces + 1 + 7) * piece_s)
    assert (limits.piece_s - piece_s) / limits.fluid_s == pytest.approx(rounds_over_pieces, abs=0.0005)


@given(st.integers(1, 600), st.integers(1, 1000))
def test_with_equal_links_the_origins_hop_is_one_more_round(nodes: int, pieces: int) -> None:
    limits = bounds(replace(equal_links(nodes, (pieces * MIB,), float(MIB)), piece_size_bytes=MIB))
    assert limits.piece_s == pytest.approx(pieces + 1 + math.floor(math.log2(nodes)))
    assert limits.fluid_s == pytest.approx(pieces)
    assert limits.native_s == pytest.approx(nodes * pieces)


def test_pieces_of_several_blobs_count_together_and_a_short_last_one_hides_nothing() -> None:
    whole = replace(equal_links(200, (50 * MIB, 75 * MIB), float(MIB)), piece_size_bytes=MIB)
    assert bounds(whole).piece_s == pytest.approx(125 + 1 + 7)
    with_crumb = replace(whole, blobs=(50 * MIB, 75 * MIB, 1))
    assert bounds(with_crumb).piece_s == pytest.approx(125 + 1 + 7)


@pytest.mark.parametrize(
    ("origin", "supernode", "fluid_s"),
    [(0.5, 1.0, 60.0), (1.0, 0.25, 120.0), (10.0, 10.0, 30.0)],
)
def test_the_slowest_link_on_the_way_sets_the_fluid_bound(origin: float, supernode: float, fluid_s: float) -> None:
    scenario = replace(
        equal_links(12, (30_000_000,), RATE), origin_bytes_s=origin * RATE, supernode_bytes_s=supernode * RATE
    )
    assert bounds(scenario).fluid_s == pytest.approx(fluid_s)


def test_without_enough_uplinks_their_sum_sets_the_fluid_bound() -> None:
    scenario = replace(equal_links(10, (30_000_000,), RATE), classes=(NodeClass("home", 1, RATE / 10, RATE),))
    assert bounds(scenario).fluid_s == pytest.approx(10 * 30.0 / (1 + 10 / 10))


def test_an_origin_of_ten_links_leaves_95_percent_to_save_and_one_of_a_link_99_and_a_half() -> None:
    equal = equal_links(200, (64 * MIB,), RATE)
    fast = replace(equal, origin_bytes_s=10 * RATE, supernode_bytes_s=10 * RATE)
    assert bounds(fast).reduction_vs_native == pytest.approx(0.95)
    assert bounds(equal).reduction_vs_native == pytest.approx(0.995)


def test_a_transport_that_needs_the_whole_blob_first_takes_it_twice_at_equal_links() -> None:
    limits = bounds(equal_links(200, (64 * MIB,), RATE))
    assert limits.torrent_s == pytest.approx(2 * limits.fluid_s)
    # Who asks when it is there already waits for nobody.
    late = bounds(replace(equal_links(3, (64 * MIB,), RATE), arrivals=Arrivals(poisson_per_s=0.001), seed=2))
    assert late.torrent_s == pytest.approx(late.fluid_s)


def test_each_rack_takes_one_copy_over_its_trunk() -> None:
    scenario = replace(equal_links(200, (30_000_000,), RATE), racks=10, trunk_bytes_s=RATE / 2)
    limits = bounds(scenario)
    assert limits.cross_rack_bytes == 10 * 30_000_000
    assert limits.fluid_s == limits.racks_s == pytest.approx(60.0)
    wide = bounds(replace(scenario, trunk_bytes_s=5 * RATE))
    assert wide.racks_s == pytest.approx(20 * 30.0 / (5 + 20))
    assert wide.fluid_s == pytest.approx(30.0)


def test_each_class_has_its_own_bound() -> None:
    mixed = (NodeClass("fast", 1, RATE, RATE), NodeClass("slow", 1, RATE / 4, RATE / 4))
    limits = bounds(replace(equal_links(10, (30_000_000,), RATE), classes=mixed))
    assert limits.class_s == pytest.approx({"fast": 30.0, "slow": 120.0})
    assert limits.node_s == pytest.approx((30.0, 120.0) * 5)


def test_nodes_that_leave_need_nothing_and_help_while_they_are_there() -> None:
    faults = Faults(churn_part=0.5, churn_from_s=10.0, churn_to_s=10.0)
    scenario = replace(equal_links(8, (30_000_000,), RATE), faults=faults, supernode_bytes_s=2 * RATE)
    # 4 copies of 30 MB from 2 + 8 links for 10 s, then from 2 + 4.
    assert bounds(scenario).live_fluid_s == pytest.approx(10 + (4 * 30 - 10 * 10) / 6)


def test_a_joiner_needs_a_copy_over_its_own_link_alone() -> None:
    scenario = replace(equal_links(11, (30_000_000,), RATE), arrivals=Arrivals(joiners=1), origin_bytes_s=RATE / 2)
    limits = bounds(scenario)
    assert limits.node_s[-1] == pytest.approx(30.0)
    assert limits.node_s[0] == pytest.approx(60.0)


def test_nobody_has_a_byte_before_the_origins_first() -> None:
    scenario = equal_links(20, (30_000_000,), RATE)
    late = replace(scenario, origin=OriginBehaviour(first_byte_s=5.0))
    for name in ("fluid_s", "piece_s"):
        assert getattr(bounds(late), name) == pytest.approx(getattr(bounds(scenario), name) + 5.0)


def test_unlimited_links_bound_nothing() -> None:
    limits = bounds(equal_links(20, (30_000_000,), 0.0))
    assert (limits.fluid_s, limits.piece_s, limits.native_s) == (0.0, 0.0, 0.0)
    assert limits.reduction_vs_native is None


def test_bounds_are_computed_with_the_goodput_that_was_measured() -> None:
    scenario = replace(equal_links(20, (30_000_000,), RATE), origin_bytes_s=10 * RATE)
    measured = bounds(scenario, 0.96)
    assert measured.fluid_s == pytest.approx(30.0 / 0.96)
    assert measured.native_s == pytest.approx(20 * 30.0 / 9.6)


def test_a_goodput_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        bounds(equal_links(20, (1,), RATE), 0.0)


@given(scenarios())
def test_the_piece_bound_is_never_below_the_fluid_bound_nor_that_below_any_part_of_it(scenario: Scenario) -> None:
    limits = bounds(scenario)
    assert limits.piece_s >= limits.fluid_s >= max(limits.live_fluid_s, limits.racks_s or 0.0)
    assert limits.torrent_s >= limits.fluid_s * (1 - ROUNDING)
    assert all(math.isfinite(one) and one > 0.0 for one in limits.node_s)


@given(scenarios(), st.floats(1.0, 20.0), st.sampled_from(("origin", "supernode", "trunk", "up", "down")))
def test_faster_links_never_raise_a_bound(scenario: Scenario, factor: float, which: str) -> None:
    if which in ("up", "down"):
        name = f"{which}_bytes_s"
        quicker = tuple(replace(one, **{name: getattr(one, name) * factor}) for one in scenario.classes)
        faster = replace(scenario, classes=quicker)
    else:
        name = f"{which}_bytes_s"
        faster = replace(scenario, **{name: getattr(scenario, name) * factor})
    assert_none_is_less(bounds(scenario), bounds(faster))


@given(scenarios(), st.integers(1, 40))
def test_more_equal_nodes_never_lower_a_bound(scenario: Scenario, more: int) -> None:
    fewer = replace(scenario, classes=scenario.classes[:1], faults=Faults())
    assert_none_is_less(bounds(replace(fewer, nodes=fewer.nodes + more)), bounds(fewer))


@given(scenarios(), st.integers(1, 4), st.integers(1, 4))
def test_more_nodes_of_every_class_never_lower_a_bound(scenario: Scenario, times: int, more: int) -> None:
    parts = sum(one.parts for one in scenario.classes)
    fewer = replace(scenario, nodes=times * parts, racks=0, faults=Faults(), arrivals=Arrivals())
    assert_none_is_less(bounds(replace(fewer, nodes=(times + more) * parts)), bounds(fewer))


@given(scenarios(), st.sampled_from((2.0, 8.0)))
def test_times_shrink_as_all_rates_grow(scenario: Scenario, factor: float) -> None:
    timeless = replace(scenario, arrivals=Arrivals(), origin=OriginBehaviour(), faults=Faults(slow_part=0.2))
    slow, fast = bounds(timeless), bounds(timeless, factor)
    for name in TIMES:
        if getattr(slow, name) is not None:
            assert getattr(slow, name) == pytest.approx(factor * getattr(fast, name)), name
    assert slow.cross_rack_bytes == fast.cross_rack_bytes


@given(scenarios())
def test_by_the_live_bound_the_uplinks_can_have_sent_every_copy_exactly(scenario: Scenario) -> None:
    sound = replace(scenario, faults=Faults(), origin=OriginBehaviour())
    at_s = bounds(sound).live_fluid_s
    sent = sound.supernode_bytes_s * at_s
    for node, asks_s in enumerate(sound.arrivals_s()):
        sent += sound.class_of(node).up_bytes_s * max(0.0, at_s - (asks_s or 0.0))
    assert sent == pytest.approx(sound.nodes * sound.size_bytes)


def test_every_time_is_compared_in_these_tests() -> None:
    times = {one.name for one in fields(Bounds) if one.name.endswith("_s")}
    assert times == {*TIMES, "class_s", "node_s"}
