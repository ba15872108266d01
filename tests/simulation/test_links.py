"""Links are shared as max-min fairness says, and no link carries more than it can."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulator.clock import Clock
from benchmarks.simulator.links import Flow, Links


def shared(capacities: list[float], paths: list[tuple[int, ...]], *, exact: bool) -> tuple[Clock, Links, list[Flow]]:
    clock = Clock()
    links = Links(clock, exact=exact)
    for capacity in capacities:
        links.add(capacity)
    flows = [links.start(path, 1e6, lambda: None) for path in paths]
    clock.run(0.0)
    return clock, links, flows


def test_what_one_flow_cannot_take_the_others_get() -> None:
    # Links 0 and 1 are sources, 2 and 3 receivers; the second receiver is slow.
    _, _, flows = shared([10.0, 10.0, 10.0, 2.0], [(0, 2), (0, 3), (1, 3)], exact=True)
    assert [flow.rate_bytes_s for flow in flows] == pytest.approx([9.0, 1.0, 1.0])


def test_the_local_share_leaves_that_unused() -> None:
    _, _, flows = shared([10.0, 10.0, 10.0, 2.0], [(0, 2), (0, 3), (1, 3)], exact=False)
    assert [flow.rate_bytes_s for flow in flows] == pytest.approx([5.0, 1.0, 1.0])


@settings(max_examples=60)
@given(
    capacities=st.lists(st.floats(1.0, 100.0), min_size=4, max_size=8),
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
)
def test_every_flow_has_a_full_link_on_which_nobody_has_more(
    capacities: list[float], pairs: list[tuple[int, int]]
) -> None:
    half = len(capacities) // 2
    paths: list[tuple[int, ...]] = [(source % half, half + receiver % half) for source, receiver in pairs]
    _, _, flows = shared(capacities, paths, exact=True)
    carried = {link: sum(flow.rate_bytes_s for flow in flows if link in flow.links) for link in range(len(capacities))}
    assert all(carried[link] <= capacities[link] * (1 + 1e-9) for link in carried)
    for flow in flows:
        assert any(
            carried[link] >= capacities[link] * (1 - 1e-9)
            and flow.rate_bytes_s >= (1 - 1e-9) * max(f.rate_bytes_s for f in flows if link in f.links)
            for link in flow.links
        )


def test_bytes_are_conserved_over_starts_ends_and_cancellations() -> None:
    clock = Clock()
    links = Links(clock, exact=True)
    for _ in range(3):
        links.add(100.0)
    ended: list[float] = []
    links.start((0, 1), 100.0, lambda: ended.append(clock.now))
    cancelled = links.start((0, 2), 1000.0, lambda: ended.append(-1.0))
    clock.at(1.0, lambda: ended.append(links.stop(cancelled)))
    clock.run(100.0)
    # Half the link each for a second, then all of it for the first: 50 + 50 bytes.
    assert ended == pytest.approx([50.0, 1.5])
    assert links.carried_bytes == pytest.approx([150.0, 100.0, 50.0])


@pytest.mark.parametrize("exact", [True, False])
def test_a_trunk_is_shared_by_all_that_pass_it(exact: bool) -> None:
    # Two racks: uplinks 0 to 3, trunk out 4, trunk in 5, downlinks 6 to 9.
    capacities = [10.0] * 4 + [8.0, 8.0] + [10.0] * 4
    paths: list[tuple[int, ...]] = [(node, 4, 5, 6 + node) for node in range(4)]
    _, _, flows = shared(capacities, paths, exact=exact)
    assert [flow.rate_bytes_s for flow in flows] == pytest.approx([2.0] * 4)


@pytest.mark.parametrize("exact", [True, False])
def test_an_end_that_was_put_off_comes_when_the_last_byte_is_through(exact: bool) -> None:
    clock = Clock()
    links = Links(clock, exact=exact)
    up, down, other = (links.add(100.0) for _ in range(3))
    ended: dict[str, float] = {}

    def end(name: str) -> None:
        ended[name] = clock.now

    def begin() -> None:
        links.start((up, other), 25.0, end, "second")

    links.start((up, down), 100.0, end, "first")
    clock.run_at(0.5, begin)
    clock.run(100.0)
    # Both at half the link's rate from 0.5 s to 1.0 s; then the first has it for itself.
    assert ended == pytest.approx({"second": 1.0, "first": 1.25})
