"""What is simulated: one cold blob, its nodes and links; and the physical limits that follow from them alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2

from proto.pieces import MIB, PieceLayout

GBIT_BYTES_S = 125_000_000.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Equal nodes that all want one blob at time 0, while nobody holds it. Rates in bytes/s, each way apart."""

    nodes: int
    size_bytes: int = 500 * MIB
    piece_size_bytes: int = 4 * MIB
    rate_bytes_s: float = GBIT_BYTES_S
    origin_rate_bytes_s: float = GBIT_BYTES_S
    supernode_rate_bytes_s: float = GBIT_BYTES_S
    round_trip_s: float = 0.001
    # Of the supernode, an event; one at a time.
    service_s: float = 20e-6
    # From a piece's last byte to its hash. Hashing runs beside the transfer, so this is the last 1 MiB's.
    hash_s: float = 0.0002
    slots: int = 8
    # Requests that wait for an upload slot; a further one is answered busy.
    queue_max: int = 8
    # A receiver waits no longer than this for its turn at a source.
    slot_wait_s: float = 15.0
    # Whether nodes tell the supernode their links' rates, or it has to learn them.
    declared: bool = False
    seed: int = 1
    # Up to so many nodes links are shared exactly; above, by the local share.
    exact_nodes_max: int = 200

    @property
    def layout(self) -> PieceLayout:
        """The blob's cut."""
        return PieceLayout(self.size_bytes, self.piece_size_bytes)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times in seconds that no schedule can beat, from the first request on; latencies count nothing."""

    fluid_s: float
    piece_s: float


def bounds(scenario: Scenario) -> Bounds:
    """The fluid bound, and the bound for whole pieces with the origin's hop.

    Pieces: the last one is at the supernode after F over the slower of origin and supernode, and as many holders
    follow as doubling gives at the fastest uplink; nor can the supernode begin before it has a first piece. With equal
    links both are (M + 1 + floor(log2 N)) * p/u.
    """
    size, rate = float(scenario.size_bytes), scenario.rate_bytes_s
    piece = float(min(scenario.piece_size_bytes, scenario.size_bytes))
    last = float(scenario.layout.length(scenario.layout.count - 1))
    seed_rate, inbound = (
        scenario.supernode_rate_bytes_s,
        min(scenario.origin_rate_bytes_s, scenario.supernode_rate_bytes_s),
    )
    uplinks = seed_rate + scenario.nodes * rate
    fluid_s = max(size / inbound, size / rate, scenario.nodes * size / uplinks)
    fastest = max(rate, seed_rate)
    doublings = floor(log2(scenario.nodes))
    # Any piece may be the last one; the shortest gives what is certain.
    after_origin_s = size / inbound + max(last / rate, (1 + doublings) * last / fastest)
    after_seed_s = min(piece, last) / inbound + size / seed_rate + doublings * last / fastest
    return Bounds(fluid_s, max(fluid_s, after_origin_s, after_seed_s))
