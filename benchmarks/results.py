"""What a run of a Scenario gave, real or simulated, and nothing about how to show it (benchmarks.report does).

Times are seconds from the start of the run (the barrier after the manifests, or virtual 0), bytes are payload unless
said. None means: such a run cannot measure it; it is left out of tables and null in JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["native", "torrent", "scheduled"]
Source = Literal["origin", "seed", "peer", "passthrough"]


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """One node's client: when it asked, had its first byte, and its last one with every digest checked."""

    node: int
    class_name: str
    asked_s: float
    first_byte_s: float | None
    completed_s: float | None
    # slow, corrupt, left: what the scenario did to it; empty for a sound node.
    fate: str = ""
    error: str = ""
    # From the request for a layer to its first byte: the median of the node's layers.
    layer_wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of the run: bytes that nodes had received by then, by source, and how many nodes were complete."""

    at_s: float
    received_bytes: dict[Source, int]
    nodes_done: int


@dataclass(frozen=True, slots=True)
class ModeRun:
    """One mode's run. Its fields are keys of the JSON document, but for `mode`, `nodes` and `samples`."""

    mode: Mode
    nodes: tuple[NodeTimes, ...]
    samples: tuple[Sample, ...]
    # Payload bytes that the origin sent (bodies, unframed), GETs of blobs, and bytes it sent twice.
    origin_bytes: int
    origin_gets: int
    origin_repeated_bytes: int
    # When the origin's first byte of any blob left it.
    origin_first_byte_s: float | None = None
    # What the supernode and all peers together sent.
    seed_bytes: int | None = None
    peer_bytes: int | None = None
    # From the end of a trouble in mid-run until nodes received at 0.9 of the rate before it, over a second.
    back_at_rate_s: float | None = None
    # Payload over rack trunks into racks; None without racks.
    cross_rack_bytes: int | None = None
    # Between nodes and the supernode's API, both ways.
    control_bytes: int | None = None
    # Of all processes but the origin and the measuring ones, over GiB delivered to clients; busy: part of all cores.
    cpu_s_per_gib: float | None = None
    cpu_busy: float | None = None
    # Of that the part in which the kernel passed frames on: shaping, bridges and TCP's part of receiving.
    cpu_network: float | None = None
    # Of a node in the end, shared pages counted for their part (median); the most that any node ever held.
    node_rss_mib: float | None = None
    node_peak_mib: float | None = None
    supernode_rss_mib: float | None = None
    # 1.0, or the part of the size that was run and scaled up from: every time above is scaled already.
    size_fraction: float = 1.0
    # Keys of real or of simulated runs alone, such as the trace hash.
    more: dict[str, object] = field(default_factory=dict)
