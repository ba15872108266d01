"""The simulated supernode: the production scheduler, and what driver, intake and seed do with it, without I/O.

Events are handled one at a time and take the scenario's service time each, as on one core. The origin's answer comes
piece by piece over its link, in order. Nothing is decided here.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.simulator.peer import DIGEST, UnexpectedCommand, peer_id
from peer.downloader.contract import Received
from proto import messages
from proto.messages import Grant, NodeKnown
from proto.pieces import indices, runs
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED, FailReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.simulator.clock import Call
    from benchmarks.simulator.transport import Transfer
    from benchmarks.simulator.world import World
    from proto.machine import Machine

SWARM = 1


class Supernode:
    """See the module. `origin_link` is the origin's uplink among the world's links."""

    def __init__(self, world: World, machine: Machine[contract.Event, contract.Command], origin_link: int) -> None:
        self._world = world
        self._machine = machine
        self._origin_link = origin_link
        self._endpoint = world.transport.endpoints[SEED]
        self._inbox: deque[Callable[[], contract.Event | None]] = deque()
        self._serving = False
        self._timer: Call | None = None
        # The origin's HEAD for the first announcement: not asked, asked, answered.
        self._opened: bool | None = None
        self._waiting: list[tuple[int, messages.Announce]] = []
        self._hashes = 0
        self._hashes_sent = dict.fromkeys(range(1, world.scenario.nodes + 1), 0)
        self._known: dict[int, dict[int, None]] = {node: {} for node in self._hashes_sent}
        # Leases of each peer's session, as the intake keeps them.
        self._leases: dict[int, int] = {}
        self._seed_fetches: dict[int, Transfer] = {}
        self.origin_bytes = 0
        self.origin_ranges = 0

    def join(self, node: int) -> None:
        """A session opened."""
        scenario = self._world.scenario
        rate = scenario.rate_bytes_s if scenario.declared else None
        self.post(contract.PeerJoined(node, "", scenario.slots, scenario.slots, rate, rate))

    # --- the machine -------------------------------------------------------------------------------------------

    def post(self, event: contract.Event) -> None:
        """Queue an event."""
        self._queue(lambda: event)

    def _queue(self, work: Callable[[], contract.Event | None]) -> None:
        """`work` is done when its turn comes, and gives the scheduler's event, if there is one."""
        self._inbox.append(work)
        if not self._serving:
            self._serving = True
            self._world.clock.after(self._world.scenario.service_s, self._serve)

    def _serve(self) -> None:
        event = self._inbox.popleft()()
        if event is not None:
            self._handle(event)
        if self._inbox:
            self._world.clock.after(self._world.scenario.service_s, self._serve)
        else:
            self._serving = False

    def _handle(self, event: contract.Event) -> None:
        world = self._world
        now = world.clock.now
        world.trace.add(now, SEED, event)
        for command in self._machine.handle(event, now):
            world.trace.add(now, SEED, command)
            self._carry_out(command)
        due = self._machine.next_wakeup()
        if self._timer is not None and self._timer.due_s == due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else world.clock.at(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.post(contract.Wakeup())

    def _carry_out(self, command: contract.Command) -> None:
        match command:
            case contract.GrantLease():
                self._grant(command)
            case contract.CancelLease(lease, receiver):
                self._lease_over(lease)
                if receiver == SEED:
                    self._world.transport.cancel(self._seed_fetches[lease])
                else:
                    self._tell(receiver, messages.Cancel(lease))
            case contract.FetchFromOrigin():
                self._fetch_from_origin(command)
            case _:
                raise UnexpectedCommand(f"scheduler: {command}")

    # --- what peers say ----------------------------------------------------------------------------------------

    def received(self, node: int, message: messages.Message) -> None:
        """A message arrived."""
        self._queue(lambda: self._read(node, message))

    def _read(self, node: int, message: messages.Message) -> contract.Event | None:
        match message:
            case messages.Stored():
                lease = message.lease if self._lease_over(message.lease) else 0
                return contract.PieceStored(SWARM, node, message.piece, lease, message.elapsed_ms / 1000)
            case messages.Failed(lease, reason):
                return contract.FetchFailed(lease, FailReason(reason)) if self._lease_over(lease) else None
            case messages.ReaderMoved(_, piece):
                return contract.ReaderMoved(SWARM, node, None if piece == messages.NO_READER else piece)
            case messages.Announce():
                return self._announced(node, message)
            case messages.BlobChecked(_, True):
                pass  # the driver only stops its pings about this swarm
            case _:
                raise UnexpectedCommand(f"node {node} says {message}")
        return None

    def _lease_over(self, lease: int) -> bool:
        if self._leases.pop(lease, None) is None:
            return False
        for checker in self._world.checkers:
            checker.lease_ended(self._world.clock.now, lease)
        return True

    def _announced(self, node: int, message: messages.Announce) -> contract.Event | None:
        """The first one has the origin asked whether the blob is public, which takes a round trip."""
        if self._opened:
            return self._enter(node, message)
        self._waiting.append((node, message))
        if self._opened is None:
            self._opened = False
            self._world.clock.after(self._world.scenario.round_trip_s, lambda: self._queue(self._open))
        return None

    def _open(self) -> contract.Event:
        scenario = self._world.scenario
        self._opened = True
        waiting, self._waiting = self._waiting, []
        for node, message in waiting:
            self._queue(partial(self._enter, node, message))
        return contract.SwarmOpened(SWARM, scenario.size_bytes, scenario.piece_size_bytes)

    def _enter(self, node: int, message: messages.Announce) -> contract.Event:
        scenario = self._world.scenario
        opened = messages.SwarmOpened(SWARM, str(DIGEST), scenario.size_bytes, scenario.piece_size_bytes, b"ticket")
        self._tell(node, opened)
        held = int.from_bytes(message.held, "little")
        return contract.PeerAnnounced(SWARM, node, held, message.wanted)

    # --- what peers are told -----------------------------------------------------------------------------------

    def _grant(self, grant: contract.GrantLease) -> None:
        self._leases[grant.lease_id] = grant.receiver
        for checker in self._world.checkers:
            checker.granted(self._world.clock.now, grant.lease_id, grant.source, grant.receiver)
        if grant.receiver == SEED:
            self._fetch_for_seed(grant)
            return
        node = grant.receiver
        known = self._known[node]
        missing = self._hashes & ~self._hashes_sent[node]
        if missing:
            self._hashes_sent[node] = self._hashes
            peer = self._world.peers[node]
            self._world.clock.after(self._world.scenario.round_trip_s / 2, lambda: peer.learn_hashes(missing))
        if grant.source not in known:
            known[grant.source] = None
            self._tell(node, NodeKnown(grant.source, peer_id(grant.source), f"node-{grant.source}:65002"))
        expires_ms = max(1, int(grant.expires_in_s * 1000))
        self._tell(node, Grant(grant.lease_id, SWARM, grant.piece, grant.source, expires_ms, grant.ahead))

    def _tell(self, node: int, message: messages.Message) -> None:
        peer = self._world.peers[node]
        self._world.clock.after(self._world.scenario.round_trip_s / 2, lambda: peer.post(Received(message)))

    # --- the seed ----------------------------------------------------------------------------------------------

    def _fetch_for_seed(self, grant: contract.GrantLease) -> None:
        def ended(reason: str, elapsed_s: float) -> None:
            del self._seed_fetches[grant.lease_id]
            self._lease_over(grant.lease_id)
            if reason:
                self.post(contract.FetchFailed(grant.lease_id, FailReason(reason)))
            else:
                self.post(contract.PieceStored(SWARM, SEED, grant.piece, grant.lease_id, elapsed_s))

        self._seed_fetches[grant.lease_id] = self._world.transport.fetch(
            SEED, grant.source, grant.piece, grant.expires_in_s, ended
        )

    def _fetch_from_origin(self, command: contract.FetchFromOrigin) -> None:
        world = self._world
        held_by_live = 0
        for endpoint in world.transport.endpoints:
            held_by_live |= endpoint.held
        for checker in world.checkers:
            checker.origin_asked(world.clock.now, command.pieces, held_by_live)
        self.origin_ranges += len(runs(command.pieces))
        pieces = deque(indices(command.pieces))
        world.clock.after(world.scenario.round_trip_s, lambda: self._origin_sends(command.fetch_id, pieces))

    def _origin_sends(self, fetch_id: int, pieces: deque[int]) -> None:
        """The next piece of the answer; the connection does not pause between two."""
        piece = pieces.popleft()
        size = self._world.scenario.layout.length(piece)

        def stored() -> None:
            self._endpoint.held |= 1 << piece
            self._hashes |= 1 << piece
            for checker in self._world.checkers:
                checker.arrived(self._world.clock.now, SEED, piece, size)
                checker.claimed(self._world.clock.now, SEED, piece)
            self.post(contract.PieceStored(SWARM, SEED, piece))
            if last:
                self.post(contract.OriginEnded(fetch_id, SWARM, True))

        def done() -> None:
            self.origin_bytes += size
            self._world.clock.after(self._world.scenario.hash_s, stored)
            if pieces:
                self._origin_sends(fetch_id, pieces)

        last = not pieces
        self._world.links.start((self._origin_link, self._endpoint.down), float(size), done)
