"""Links are shared as max-min fairness says, and no link carries more than it can."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulator.clock import Clock
from benchmarks.simulator.links import Flow, Links


def world(capacities: list[float], paths: list[tuple[int, ...]], *, exact: bool) -> tuple[Clock, Links, list[Flow]]:
    clock = Clock()
    links = Links(clock, exact=exact)
    for capacity in capacities:
        links.add(capacity)
    flows = [links.start(path, 1e6, lambda: None) for path in paths]
    clock.step(0.0)
    return clock, links, flows


def test_what_one_flow_cannot_take_the_others_get() -> None:
    # Links 0 and 1 are sources, 2 and 3 receivers; the second receiver is slow.
    _, _, flows = world([10.0, 10.0, 10.0, 2.0], [(0, 2), (0, 3), (1, 3)], exact=True)
    assert [flow.rate_bytes_s for flow in flows] == pytest.approx([9.0, 1.0, 1.0])


def test_the_local_share_leaves_that_unused() -> None:
    _, _, flows = world([10.0, 10.0, 10.0, 2.0], [(0, 2), (0, 3), (1, 3)], exact=False)
    assert [flow.rate_bytes_s for flow in flows] == pytest.approx([5.0, 1.0, 1.0])


@settings(max_examples=60, deadline=None)
@given(
    capacities=st.lists(st.floats(1.0, 100.0), min_size=4, max_size=8),
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
)
def test_every_flow_has_a_full_link_on_which_nobody_has_more(
    capacities: list[float], pairs: list[tuple[int, int]]
) -> None:
    half = len(capacities) // 2
    paths: list[tuple[int, ...]] = [(source % half, half + receiver % half) for source, receiver in pairs]
    _, _, flows = world(capacities, paths, exact=True)
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
    while clock.step(100.0):
        pass
    # Half the link each for a second, then all of it for the first: 50 + 50 bytes.
    assert ended == pytest.approx([50.0, 1.5])
    assert links.carried_bytes == pytest.approx([150.0, 100.0, 50.0])
    assert links.flows_on(0) == 0
