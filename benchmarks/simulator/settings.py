"""What only a simulation needs to know: latencies, service times, slots, how exact. No scenario, no policy.

Whatever the product has a default for is that default here.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.simulator.profile import NO_DELAYS, Profile


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """Times in seconds. The round trip is that between any two nodes, and to supernode and origin."""

    round_trip_s: float = 0.001
    # What machines add to it, and to every step of a lease.
    profile: Profile = NO_DELAYS
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
    # Round trips before the first request over a new connection, beside what the profile has for it. The product needs
    # two, one for TCP's own and one for the nonce that tickets are bound to.
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
    # Up to so many nodes links are shared exactly; above, by the local share.
    exact_nodes_max: int = 200
