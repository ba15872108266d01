"""What only a simulation needs to know: latencies, service times, slots, how exact. No scenario, no policy.

Whatever the product has a default for is that default here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """Times in seconds. The round trip is that between any two nodes, and to supernode and origin."""

    round_trip_s: float = 0.001
    # Between two nodes of one rack; None: as between any others.
    rack_round_trip_s: float | None = None
    # Of the supernode, an event; one at a time.
    service_s: float = 20e-6
    # From a piece's last byte to its hash. Hashing runs beside the transfer, so this is the last 1 MiB's.
    hash_s: float = 0.0002
    slots: int = 8
    # Requests that wait for an upload slot; a further one is answered busy.
    queue_max: int = 8
    # A receiver waits no longer than this for its turn at a source, and so long for a connection.
    slot_wait_s: float = 15.0
    connect_wait_s: float = 3.0
    # Round trips before the first request over a connection that is new; the product needs two, one for TCP's own and
    # one for the nonce that tickets are bound to.
    connect_round_trips: int = 0
    # A source gives a receiver up that took nothing for so long.
    send_wait_s: float = 10.0
    # What the supernode assumes of its own uplink where no rate is configured.
    uplink_assumed_bytes_s: float = 125e6
    # How often the supernode tells waiting nodes how the origin does; so many missed end a session.
    ping_interval_s: float = 2.0
    pings_missed_max: int = 3
    # Nodes that leave lose their power: nobody closes their connections. Otherwise their process ends.
    power_loss: bool = False
    # Whether a connection that is new, or rested for longer than that, sends a window of so many bytes in its first
    # round trip and doubles it with each (RFC 6928: ten segments; Linux: after the least retransmission time-out).
    slow_start: bool = False
    slow_start_window_bytes: int = 10 * 1448
    slow_start_idle_s: float = 0.2
    # Up to so many nodes links are shared exactly; above, by the local share.
    exact_nodes_max: int = 200

    def round_trip(self, *, same_rack: bool) -> float:
        """Between two nodes."""
        return self.rack_round_trip_s if same_rack and self.rack_round_trip_s is not None else self.round_trip_s
