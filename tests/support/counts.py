"""What services count, compared once they have counted it.

A client has its last byte before its peer has noted that it was sent, and before the peer's disk has it; so what a
metric says is waited for. A figure that must stay at 0 is compared together with one that must come.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from benchmarks.cluster.processes import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.cluster.services import Peer, Service

COUNTED_TIMEOUT_S: Final = WAIT_S
_POLL_S: Final = 0.05

_Value = TypeVar("_Value")


class Receiving(Protocol):
    """A peer, or all peers of a cluster together."""

    def received_bytes(self, source: str) -> int:
        """Payload bytes that came from `source`."""
        ...


def assert_received(node: Receiving, **wanted_bytes: int) -> None:
    """It has received so many payload bytes from each source that is named: peer, seed, origin, passthrough."""
    assert_becomes(lambda: {source: node.received_bytes(source) for source in wanted_bytes}, wanted_bytes)


def assert_received_from_the_swarm(node: Receiving, wanted_bytes: int) -> None:
    """It has received so many payload bytes from peers and seed together."""
    assert_becomes(lambda: node.received_bytes("peer") + node.received_bytes("seed"), wanted_bytes)


def assert_sent_to_clients(peer: Peer, **wanted_bytes: int) -> None:
    """Its clients have got so many payload bytes by each way that is named: swarm, store, passthrough."""
    assert_becomes(lambda: {way: peer.client_bytes(way) for way in wanted_bytes}, wanted_bytes)


def assert_metric(service: Service, name: str, wanted: float, **labels: str) -> None:
    """A metric of the service comes to be `wanted`."""
    assert_becomes(lambda: service.metrics().value(name, **labels), wanted)


def assert_becomes(read: Callable[[], _Value], wanted: _Value) -> None:
    """What is read becomes `wanted` in time; what it was at the end, if not."""
    deadline_s = time.monotonic() + COUNTED_TIMEOUT_S
    while (last := read()) != wanted and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    assert last == wanted, f"{last!r} in place of {wanted!r}"
