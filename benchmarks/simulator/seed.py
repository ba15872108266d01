"""What the simulated supernode fetches itself: gaps from peers, ranges from the origin. Stands in for supernode.seed.

Told by benchmarks.simulator.supernode what to fetch; what came of it is posted as the scheduler's events.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proto.pieces import indices
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.sessions import Swarm
    from benchmarks.simulator.transfer import Transfer
    from benchmarks.simulator.world import World


class Seed:
    """`learn_hash(swarm, number, piece)` is told of each piece from the origin, `lease_ended` of a lease's id."""

    def __init__(
        self,
        world: World,
        post: Callable[[contract.Event], None],
        learn_hash: Callable[[Swarm, int, int], None],
        lease_ended: Callable[[int], None],
    ) -> None:
        self._world = world
        self._post = post
        self._learn_hash = learn_hash
        self._lease_ended = lease_ended
        self._endpoint = world.transport.endpoints[SEED]
        self._fetches: dict[int, Transfer] = {}

    def fetch_from_peer(self, grant: contract.GrantLease, swarm: Swarm, source_node: int) -> None:
        """A lease whose receiver is the seed."""

        def ended(_: int, reason: str, elapsed_s: float) -> None:
            del self._fetches[grant.lease_id]
            self._lease_ended(grant.lease_id)
            if reason:
                self._post(contract.FetchFailed(grant.lease_id, FailReason(reason)))
            else:
                swarm.seed_held |= 1 << grant.piece
                swarm.moved_s = self._world.clock.now
                self._post(contract.PieceStored(grant.swarm, SEED, grant.piece, grant.lease_id, elapsed_s))

        self._fetches[grant.lease_id] = self._world.transport.fetch(
            SEED, source_node, swarm.blob, grant.piece, grant.expires_in_s, ended, grant.lease_id
        )

    def cancel(self, lease: int) -> None:
        """End it, unless it is over."""
        transfer = self._fetches.get(lease)
        if transfer is not None:
            self._lease_ended(lease)
            self._world.transport.cancel(transfer)

    def fetch_from_origin(self, command: contract.FetchFromOrigin, swarm: Swarm, held_by_live: int) -> None:
        """`held_by_live` is for the checkers: pieces (mask) that need not be asked for."""
        world = self._world
        for checker in world.checkers:
            checker.origin_asked(world.clock.now, swarm.blob, command.pieces, held_by_live)

        def stored(piece: int) -> None:
            for checker in world.checkers:
                checker.arrived(world.clock.now, SEED, swarm.blob, piece, swarm.layout.length(piece))
                checker.claimed(world.clock.now, SEED, swarm.blob, piece)
            swarm.seed_held |= 1 << piece
            swarm.moved_s = world.clock.now
            self._learn_hash(swarm, command.swarm, piece)
            self._post(contract.PieceStored(command.swarm, SEED, piece))

        def ended(reason: str) -> None:
            if not reason:
                swarm.origin_state = ""
            for checker in world.checkers:
                checker.origin_ended(world.clock.now, swarm.blob, command.pieces)
            self._post(contract.OriginEnded(command.fetch_id, command.swarm, not reason))

        pieces = deque(indices(command.pieces))
        world.origin.fetch(self._endpoint, swarm.blob, pieces, stored, ended)
