from __future__ import annotations

import math

from supernode.metrics import STALLED_S, Metrics


def test_a_swarm_of_which_nothing_comes_is_counted_while_somebody_waits() -> None:
    metrics = Metrics()
    metrics.swarms_silent([0.0, STALLED_S - 1.0, STALLED_S, 10 * STALLED_S, math.inf])
    assert metrics.registry.get_sample_value("layercast_swarms_stalled") == 2
    metrics.swarms_silent([])
    assert metrics.registry.get_sample_value("layercast_swarms_stalled") == 0
