"""Looks at a simulation now and then: samples for the report, and who has waited since when for the checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.results import Sample

if TYPE_CHECKING:
    from benchmarks.simulator.client import Client
    from benchmarks.simulator.environment import Environment

# How often the checkers hear who waits; far below the patience of any.
_LOOK_S = 0.5


class Watch:
    """Reads only; what it does changes nothing of a run."""

    def __init__(self, environment: Environment, clients: dict[int, Client], sample_every_s: float) -> None:
        self._environment = environment
        self._clients = clients
        self._sample_every_s = sample_every_s
        self._since_s: dict[int, float] = {}
        self._came_bytes: dict[int, float] = {}
        self.samples: list[Sample] = []

    def begin(self) -> None:
        """From now on."""
        self._sample()
        self._look()

    def finish(self) -> None:
        """The last sample."""
        self._take()

    def _sample(self) -> None:
        self._take()
        self._environment.clock.run_after(self._sample_every_s, self._sample)

    def _take(self) -> None:
        environment = self._environment
        transport = environment.transport
        origin_bytes = environment.origin.bytes_to_nodes
        self.samples.append(
            Sample(
                environment.clock.now,
                {
                    "origin": origin_bytes,
                    "seed": round(transport.seed_bytes),
                    "peer": round(transport.peer_bytes),
                },
                sum(client.completed_s is not None for client in self._clients.values()),
            )
        )

    def _look(self) -> None:
        environment = self._environment
        now = environment.clock.now
        sound = [one for one in environment.transport.endpoints if one.alive and not one.corrupt]
        held = [0] * len(environment.scenario.all_blobs)
        for endpoint in sound:
            for blob, mask in enumerate(endpoint.held):
                held[blob] |= mask
        for node, client in self._clients.items():
            if self._stands_still(node, client, held):
                since_s = self._since_s.setdefault(node, now)
                for checker in environment.checkers:
                    checker.waited(now, node, since_s)
            else:
                self._since_s.pop(node, None)
        environment.clock.run_after(_LOOK_S, self._look)

    def _stands_still(self, node: int, client: Client, held: list[int]) -> bool:
        """Whether it wants what others hold, and no piece came to it since the last look."""
        endpoint = self._environment.transport.endpoints[node]
        came_bytes, self._came_bytes[node] = self._came_bytes.get(node, 0.0), endpoint.received_bytes
        if client.ended or not endpoint.alive or came_bytes != endpoint.received_bytes:
            return False
        pulled = held[: len(self._environment.scenario.blobs)]
        return any(client.wants(blob) and mask & ~endpoint.held[blob] for blob, mask in enumerate(pulled))
