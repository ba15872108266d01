"""Whatever happens in whatever order, the rules of supernode.scheduler.invariants hold after every event."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proto.pieces import mask_of
from supernode.scheduler import contract, invariants
from supernode.scheduler.contract import SEED, FailReason
from supernode.scheduler.machine import Scheduler
from supernode.scheduler.settings import SchedulerSettings

PIECES = 6
PIECE_BYTES = 1000
ZONES = ("", "r/z/1", "r/z/2", "r/y/3", "r")

peers = st.integers(1, 6)
swarms = st.integers(1, 3)
pieces = st.integers(0, PIECES - 1)
masks = st.integers(0, (1 << PIECES) - 1)


class SchedulerUnderAnything(RuleBasedStateMachine):
    """A shell that carries out commands in no particular order, and events that fit nothing."""

    @initialize(
        seed=st.integers(0, 1000),
        slots=st.integers(1, 3),
        rate=st.sampled_from([None, 1000.0]),
        zones=st.integers(0, 4),
        held=masks,
    )
    def start(self, seed: int, slots: int, rate: float | None, zones: int, held: int) -> None:
        self.scheduler = Scheduler(
            seed=seed,
            epoch=3,
            settings=SchedulerSettings(),
            seed_upload_slots=slots,
            seed_download_slots=slots,
            seed_upload_rate_bytes_s=rate,
        )
        self.now = 0.0
        self.granted: dict[int, contract.GrantLease] = {}
        self.ended: list[contract.GrantLease] = []
        self.fetches: dict[int, contract.FetchFromOrigin] = {}
        # A cluster at work to begin with: rules alone seldom get this far.
        for peer in range(1, 5):
            self.tell(contract.PeerJoined(peer, ZONES[zones * peer % len(ZONES)], 2, 2, rate, rate))
        for swarm in (1, 2):
            self.tell(contract.SwarmOpened(swarm, PIECES * PIECE_BYTES - 1, PIECE_BYTES, seed_held=held))
            for peer in range(1, 5):
                self.tell(contract.PeerAnnounced(swarm, peer, 0, True))

    def tell(self, event: contract.Event) -> None:
        for command in self.scheduler.handle(event, self.now):
            if isinstance(command, contract.GrantLease):
                assert command.lease_id >> 40 == 3
                assert command.lease_id not in self.granted
                self.granted[command.lease_id] = command
            elif isinstance(command, contract.CancelLease):
                self.ended.append(self.granted.pop(command.lease_id))
            elif isinstance(command, contract.EndFetch):
                assert self.fetches[command.fetch_id].swarm == command.swarm, "ends what runs"
            elif isinstance(command, contract.FetchFromOrigin):
                self.check_asked(command)
                self.fetches[command.fetch_id] = command

    def check_asked(self, command: contract.FetchFromOrigin) -> None:
        swarm = self.scheduler.inspect().swarms[command.swarm]
        assert command.pieces
        assert not command.pieces & swarm.held_by_any, "a live node holds what the origin is asked for"
        assert not any(fetch.swarm == command.swarm for fetch in self.fetches.values()), "two fetches at once"

    @rule(peer=peers, zone=st.sampled_from(ZONES), up=st.integers(0, 3), down=st.integers(0, 3), declared=st.booleans())
    def join(self, peer: int, zone: str, up: int, down: int, declared: bool) -> None:
        rate = 1000.0 * peer if declared else None
        self.tell(contract.PeerJoined(peer, zone, up, down, rate, rate))

    @rule(peer=peers)
    def lose(self, peer: int) -> None:
        for lease in [lease for lease in self.granted.values() if lease.receiver == peer]:
            self.ended.append(self.granted.pop(lease.lease_id))
        self.tell(contract.PeerLost(peer, "test"))

    @rule(swarm=swarms, held=masks, ready=masks, inline=st.booleans(), recovering=st.booleans())
    def open(self, swarm: int, held: int, ready: int, inline: bool, recovering: bool) -> None:
        count = 1 if inline else PIECES
        self.tell(
            contract.SwarmOpened(
                swarm,
                count * PIECE_BYTES - 1,
                PIECE_BYTES,
                seed_held=held,
                once_ready=ready if recovering else 0,
                recover_until=self.now + 5.0 if recovering else 0.0,
                recover_peers=(1, 2) if recovering else (),
                inline=inline,
            )
        )

    @rule(swarm=swarms, peer=peers)
    def return_after_restart(self, swarm: int, peer: int) -> None:
        self.tell(contract.RecoveryPeerReturned(swarm, peer))

    @rule(
        swarm=swarms,
        peer=peers,
        held=st.one_of(st.just(0), masks),
        wanted=st.booleans(),
        ranges=st.booleans(),
        background=st.booleans(),
    )
    def announce(self, swarm: int, peer: int, held: int, wanted: bool, ranges: bool, background: bool) -> None:
        event = contract.PeerAnnounced(swarm, peer, held, wanted, wanted and ranges, wanted and background)
        self.tell(event)

    @rule(peer=peers, ended=st.booleans())
    def preheat(self, peer: int, ended: bool) -> None:
        """Both swarms of the beginning at this node for no client, or one of them for one."""
        for swarm in (1, 2):
            self.tell(contract.PeerAnnounced(swarm, peer, 0, True, background=not ended or swarm == 2))

    @rule(rate=st.sampled_from([0.0, 100.0, 1e6]))
    def limit_preheats(self, rate: float) -> None:
        self.tell(contract.PreheatRateSet(rate))

    @rule(swarm=swarms, peer=peers, asked=masks)
    def read_ranges(self, swarm: int, peer: int, asked: int) -> None:
        self.tell(contract.PiecesWanted(swarm, peer, asked))

    @rule(swarm=swarms, peer=peers)
    def withdraw(self, swarm: int, peer: int) -> None:
        self.tell(contract.PeerWithdrew(swarm, peer))

    @rule(data=st.data(), elapsed=st.floats(0.0, 3.0))
    def finish_a_lease(self, data: st.DataObject, elapsed: float) -> None:
        if self.granted:
            lease = self.granted.pop(data.draw(st.sampled_from(sorted(self.granted))))
            self.now += elapsed
            self.tell(contract.PieceStored(lease.swarm, lease.receiver, lease.piece, lease.lease_id, elapsed))

    @rule(data=st.data(), reason=st.sampled_from(FailReason))
    def fail_a_lease(self, data: st.DataObject, reason: FailReason) -> None:
        if self.granted:
            lease = self.granted.pop(data.draw(st.sampled_from(sorted(self.granted))))
            self.ended.append(lease)
            self.tell(contract.FetchFailed(lease.lease_id, reason))

    @rule(data=st.data())
    def finish_a_lease_that_ended(self, data: st.DataObject) -> None:
        if self.ended:
            lease = data.draw(st.sampled_from(self.ended))
            self.tell(contract.PieceStored(lease.swarm, lease.receiver, lease.piece, lease.lease_id, 1.0))
            self.tell(contract.FetchFailed(lease.lease_id, FailReason.TIMEOUT))

    @rule(swarm=swarms, peer=st.integers(0, 6), piece=st.integers(-1, PIECES), lease=st.sampled_from([0, 1, 3 << 40]))
    def store_otherwise(self, swarm: int, peer: int, piece: int, lease: int) -> None:
        self.tell(contract.PieceStored(swarm, peer, piece, lease))

    @rule(data=st.data())
    def origin_sends(self, data: st.DataObject) -> None:
        if self.fetches:
            fetch = self.fetches[data.draw(st.sampled_from(sorted(self.fetches)))]
            left = [piece for piece in range(PIECES) if fetch.pieces >> piece & 1]
            self.tell(contract.PieceStored(fetch.swarm, SEED, data.draw(st.sampled_from(left))))

    @rule(data=st.data(), ok=st.booleans())
    def origin_ends(self, data: st.DataObject, ok: bool) -> None:
        if self.fetches:
            fetch = self.fetches.pop(data.draw(st.sampled_from(sorted(self.fetches))))
            self.tell(contract.OriginEnded(fetch.fetch_id, fetch.swarm, ok))

    @rule(swarm=swarms, peer=peers, ok=st.booleans())
    def origin_tried(self, swarm: int, peer: int, ok: bool) -> None:
        self.tell(contract.OriginTried(swarm, peer, ok))

    @rule(swarm=swarms, peer=st.integers(0, 6), gone=st.sets(pieces))
    def evict(self, swarm: int, peer: int, gone: set[int]) -> None:
        self.tell(contract.PieceEvicted(swarm, peer, mask_of(gone)))

    @rule(swarm=swarms, peer=peers, piece=st.one_of(st.none(), st.integers(-1, PIECES)))
    def read(self, swarm: int, peer: int, piece: int | None) -> None:
        self.tell(contract.ReaderMoved(swarm, peer, piece))

    @rule(swarm=swarms, voided=st.booleans())
    def forget(self, swarm: int, voided: bool) -> None:
        if not voided:
            self.fetches = {number: fetch for number, fetch in self.fetches.items() if fetch.swarm != swarm}
        self.tell(contract.SwarmVoided(swarm) if voided else contract.SwarmClosed(swarm))

    @rule()
    def wake(self) -> None:
        due = self.scheduler.next_wakeup()
        if due is not None:
            self.now = max(self.now, due)
            self.tell(contract.Wakeup())

    @rule(pause=st.floats(0.0, 2.0))
    def pass_time(self, pause: float) -> None:
        self.now += pause
        self.tell(contract.Wakeup())

    @invariant()
    def rules_hold(self) -> None:
        if hasattr(self, "scheduler"):
            invariants.check(self.scheduler)
            assert len(self.granted) == self.scheduler.leases_in_flight


TestSchedulerUnderAnything = SchedulerUnderAnything.TestCase
TestSchedulerUnderAnything.settings = settings(max_examples=60, stateful_step_count=60)
