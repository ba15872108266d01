"""Where a fan-out runs: places for the origin, the supernode and each node, and what their links carried.

benchmarks.fanout.network builds it from namespaces, loopback() needs nothing. Payload is counted from frames by
subtracting the headers of a TCP segment from each: pure acknowledgements come to nothing, retransmissions count again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.cluster.services import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.cluster.namespaces import DeviceCounters

# Ethernet 14, IPv4 20, TCP 20 with its timestamp option 12.
ETHERNET_BYTES: Final = 14
SEGMENT_HEADER_BYTES: Final = ETHERNET_BYTES + 20 + 20 + 12


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace (None: this machine's own) and its addresses: on the links that carry payload, and for control."""

    netns: str | None
    host: str
    control_host: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """Payload bytes by where they passed; `control_bytes` are whole frames, both ways."""

    origin_sent_bytes: int
    supernode_received_bytes: int
    supernode_sent_bytes: int
    nodes_received_bytes: int
    nodes_sent_bytes: int
    into_racks_bytes: int
    control_bytes: int

    def since(self, before: Traffic) -> Traffic:
        """What has passed after `before`."""
        return Traffic(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(Traffic)))


class Site(Protocol):
    """See the module."""

    origin: Place
    supernode: Place
    nodes: Sequence[Place]

    def traffic(self) -> Traffic | None:
        """Since the beginning; None where interfaces are shared with others. From any thread."""


def sent_payload(counters: DeviceCounters) -> int:
    """Of TCP, over an interface."""
    return max(0, counters.sent_bytes - SEGMENT_HEADER_BYTES * counters.sent_frames)


def received_payload(counters: DeviceCounters) -> int:
    """Of TCP, over an interface."""
    return max(0, counters.received_bytes - SEGMENT_HEADER_BYTES * counters.received_frames)


class Loopback:
    """All on 127.0.0.1: no links but the limits that the programs keep themselves."""

    def __init__(self, nodes: int) -> None:
        here = Place(None, LOOPBACK, LOOPBACK)
        self.origin = self.supernode = here
        self.nodes: Sequence[Place] = (here,) * nodes

    def traffic(self) -> Traffic | None:
        """Loopback's counters hold everybody's bytes."""
        return None
