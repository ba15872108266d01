"""Leases: granting one, starting it when the transfers before it end, and ending it, with all books kept in step.

This file moves state and wakes nodes; which lease to grant is policy's, what becomes of it while it runs is running's,
what follows from an outcome the machine's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from supernode.scheduler import transfer_timing
from supernode.scheduler.contract import ID_BITS, SEED, CancelLease, Command, FailReason, GrantLease
from supernode.scheduler.lease import NO_TIMER, Lease
from supernode.scheduler.link import FILLS
from supernode.scheduler.nodes import PeerBook
from supernode.scheduler.origin_pace import Arrivals
from supernode.scheduler.story import Stories
from supernode.scheduler.timers import Timers

if TYPE_CHECKING:
    import random

    from supernode.scheduler.link import Link
    from supernode.scheduler.nodes import Node
    from supernode.scheduler.origin import OriginPlan
    from supernode.scheduler.settings import SchedulerSettings
    from supernode.scheduler.swarm import Member, Swarm

# What is counted, by name.
COUNTED: Final = (
    "granted",
    "stored",
    "expired",
    "cancelled",
    "lost",
    "late",
    "raced",
    *(f"failed_{reason.value}" for reason in FailReason),
    "quarantined",
    "origin_fetches",
    "origin_failures",
    "elections",
    "origins_opened",
    "ignored",
)


class Core:
    """The scheduler's whole state, and the lease operations that every part of it uses."""

    __slots__ = (
        "arrivals",
        "book",
        "commands",
        "counters",
        "dirty_down",
        "dirty_up",
        "epoch",
        "fetches",
        "inline_swarms",
        "largest_piece_bytes",
        "last_fetch",
        "last_lease",
        "leases",
        "now",
        "plans",
        "rng",
        "settings",
        "stories",
        "swarms",
        "timers",
    )

    def __init__(self, rng: random.Random, settings: SchedulerSettings, epoch: int) -> None:
        self.rng = rng
        self.settings = settings
        self.epoch = epoch
        self.now = 0.0
        self.book = PeerBook(settings)
        self.swarms: dict[int, Swarm] = {}
        self.plans: dict[int, OriginPlan] = {}
        self.leases: dict[int, Lease] = {}
        self.timers = Timers()
        self.stories = Stories(settings.story_length)
        self.commands: list[Command] = []
        self.counters = dict.fromkeys(COUNTED, 0)
        self.last_lease = 0
        self.last_fetch = 0
        # Fetches from the origin in flight, and swarms that travel inline.
        self.fetches = 0
        self.inline_swarms = 0
        # Of any open swarm.
        self.largest_piece_bytes = 0
        # Nodes that the event touched, in order: as sources, as receivers.
        self.dirty_up: list[Node] = []
        self.dirty_down: list[Node] = []
        self.arrivals = Arrivals()

    def wake(self, node: Node) -> None:
        """Look for work for this node, both ways, before the event is done."""
        self.wake_source(node)
        self.wake_receiver(node)

    def wake_source(self, node: Node) -> None:
        """Look for receivers for this node before the event is done."""
        if not node.dirty_up:
            node.dirty_up = True
            self.dirty_up.append(node)

    def wake_receiver(self, node: Node) -> None:
        """Look for sources for this node before the event is done."""
        if not node.dirty_down:
            node.dirty_down = True
            self.dirty_down.append(node)

    def let_sleep(self, node: Node) -> None:
        """It is gone: look for nothing for it."""
        if node.dirty_up:
            self.dirty_up.remove(node)
        if node.dirty_down:
            self.dirty_down.remove(node)

    def take_sources(self) -> list[Node]:
        """Those that were woken as sources; from now on others are."""
        woken, self.dirty_up = self.dirty_up, []
        for node in woken:
            node.dirty_up = False
        return woken

    def take_receivers(self) -> list[Node]:
        """Those that were woken as receivers; from now on others are."""
        woken, self.dirty_down = self.dirty_down, []
        for node in woken:
            node.dirty_down = False
        return woken

    def wake_receivers(self, mask: int) -> None:
        """Look for sources for these nodes."""
        for node in self.book.of(mask):
            self.wake_receiver(node)

    # --- granting --------------------------------------------------------------------------------------------

    def grant(self, member: Member, piece: int, source: Node) -> None:
        """Lease the piece to the member from `source`; the caller has checked that both have room."""
        swarm = member.swarm
        receiver = member.node
        self.last_lease += 1
        inline = swarm.inline and source.peer == SEED
        number = self.epoch << ID_BITS | self.last_lease
        lease = Lease(number, member, piece, source, self.now, inline)
        self.leases[number] = receiver.leases_in[number] = source.leases_out[number] = lease
        member.grants += 1
        if receiver.hungry_at is not None:
            receiver.hungry_at = None
            self.book.roaming &= ~receiver.bit
        racing = member.leases.get(piece)
        first = racing is None
        if racing is None:
            member.leases[piece] = [lease]
        else:
            racing.append(lease)
        first_copy = source.peer == SEED and not swarm.rarity.counts[piece] and not receiver.quarantined
        if first:
            self._hold_rack_back(swarm, lease)
            swarm.lease_out(member, piece)
        if not inline:
            self._take_slots(lease, beside=not first)
            if first_copy:
                member.first_copies += 1
                self._hold_seed_back(lease)
                self._let_one_more_follow(lease)
        lease.expires_in_s = self._expiry_s(lease)
        ahead, before = lease.before_up is not None, lease.before_down
        if not ahead and before is None:
            transfer_timing.start(self, lease)
        # One source sends the one after the other by itself.
        behind = 0 if before is None or (ahead and before.source is source) else before.number
        expires_in_s = lease.expires_in_s
        self.counters["granted"] += 1
        told = "lease %x: %d -> %d ahead" if ahead else "lease %x: %d -> %d"
        self.stories.rings[swarm.number].add((self.now, piece, told, number, source.peer, receiver.peer))
        self.commands.append(
            GrantLease(number, swarm.number, piece, receiver.peer, source.peer, expires_in_s, ahead, behind, inline)
        )

    def _hold_rack_back(self, swarm: Swarm, lease: Lease) -> None:
        rack = lease.receiver.rack
        if rack is None or lease.inline or swarm.rack_have.get(rack, 0) >> lease.piece & 1:
            return
        if swarm.inbound_of_rack.get(rack, 0) >> lease.piece & 1:
            # A node that may roam does not wait for that one.
            return
        lease.rack_first = rack
        swarm.hold_rack_back(rack, lease.piece)

    def _hold_seed_back(self, lease: Lease) -> None:
        """The piece's first copy can soon be passed on by its receiver: other nodes wait for that one."""
        settings = self.settings
        if lease.duration_s is None:
            return
        typical_s = lease.size_bytes / self.book.typical_flow if self.book.typical_flow else lease.duration_s
        if lease.duration_s <= max(settings.first_copy_wait_s, settings.race_after_piece_times * typical_s):
            lease.first_copy = True
            lease.member.swarm.awaited |= 1 << lease.piece

    def let_seed_go(self, lease: Lease) -> None:
        """That copy has come, or is not counted on any more."""
        if lease.first_copy:
            lease.first_copy = False
            lease.member.swarm.awaited &= ~(1 << lease.piece)
            self.wake_source(self.book.nodes[SEED])

    def _predict(self, lease: Lease) -> None:
        up, down = lease.source.up, lease.receiver.down
        slow = self.book.slow_rate()
        lease.share = min(up.known(slow) or FILLS, down.known(slow) or FILLS)
        flow_up, flow_down = up.expected_flow(lease.before_up), down.expected_flow(lease.before_down)
        if flow_up is None:
            flow = flow_down or self.book.typical_flow
        else:
            flow = flow_up if flow_down is None else min(flow_up, flow_down)
        if flow:
            lease.duration_s = lease.size_bytes / flow

    def _expiry_s(self, lease: Lease) -> float:
        settings = self.settings
        expiry_s = settings.expiry_unknown_s
        only_hoped = lease.source.up.hoped and lease.source.up.carries is None
        if lease.duration_s is not None and not only_hoped:
            expiry_s = max(settings.expiry_min_s, settings.expiry_factor * lease.duration_s)
        if not lease.receiver.timeouts:
            return expiry_s
        # Time-outs teach nothing of a link but that it needs longer.
        return min(expiry_s * 2.0 ** min(lease.receiver.timeouts, 16), max(expiry_s, settings.expiry_max_s))

    def _take_slots(self, lease: Lease, *, beside: bool) -> None:
        """`beside`: the lease races another to this receiver, so it runs beside it whatever the link carries."""
        up, down = lease.source.up, lease.receiver.down
        if not up.room_now():
            before = up.open_end()
            assert before is not None
            up.open_ends.remove(before)
            lease.before_up = before
            before.after_up = lease
        if not beside and not down.room_now():
            before = down.open_end()
            assert before is not None
            down.open_ends.remove(before)
            lease.before_down = before
            before.after_down = lease
        self._predict(lease)
        if lease.before_up is None:
            up.chains += 1
            up.used += up.share(lease)
        if lease.before_down is None:
            down.chains += 1
            down.used += down.share(lease)
        self.book.refresh_up(lease.source)
        self.book.refresh_down(lease.receiver)

    def _let_one_more_follow(self, lease: Lease) -> None:
        """A first copy that waits for a running transfer of the seed: its request may be lost, the next one not."""
        before = lease.before_up
        if before is not None and before.started_at is not None:
            lease.ending_up = True
            lease.source.up.open_ends.append(lease)
            self.book.refresh_up(lease.source)

    # --- ending ----------------------------------------------------------------------------------------------

    def finish(self, lease: Lease, *, stored: bool) -> None:
        """End the lease: slots pass on to what waited, the piece becomes HELD or (no rival left) MISSING."""
        member, piece, swarm = lease.member, lease.piece, lease.member.swarm
        del self.leases[lease.number]
        lease.due_s = NO_TIMER
        receiver, source = lease.receiver, lease.source
        if lease.first_copy:
            self.let_seed_go(lease)
        del receiver.leases_in[lease.number]
        del source.leases_out[lease.number]
        racing = member.leases[piece]
        alone = len(racing) == 1
        if alone:
            del member.leases[piece]
        else:
            racing.remove(lease)
        if not lease.inline:
            if lease.started_at is not None:
                source.up.end(self.now)
                receiver.down.end(self.now)
            self._leave_up(lease)
            self._leave_down(lease)
        if lease.rack_first is not None:
            swarm.let_rack_go(lease.rack_first, piece)
            if not stored:
                self.wake_receivers(swarm.lacking[piece] & self.book.places.get(lease.rack_first, 0))
        if stored:
            swarm.lease_done(member, piece)
        elif alone:
            swarm.lease_back(member, piece)
        self.wake(receiver)
        self.wake(source)

    def cancel(self, lease: Lease, reason: str) -> None:
        """End the lease without its piece and tell the receiver."""
        self.finish(lease, stored=False)
        self.counters["cancelled"] += 1
        self.stories.tell(
            self.now, lease.member.swarm.number, lease.piece, "lease %x cancelled: %s", lease.number, reason
        )
        self.commands.append(CancelLease(lease.number, lease.receiver.peer, reason))

    def _leave_up(self, lease: Lease) -> None:
        link, before, after = lease.source.up, lease.before_up, lease.after_up
        if before is not None:
            lease.before_up = lease.after_up = None
            before.after_up = after
            if after is not None:
                after.before_up = before
            elif lease.ending_up:
                link.open_ends.remove(lease)
            if after is None and not before.stuck and before.ending_up:
                link.open_ends.append(before)
        else:
            link.used -= link.share(lease)
            if after is not None:
                after.before_up = lease.after_up = None
                link.used += link.share(after)
                self._start_if_free(after)
            else:
                self._give_up_slot(link, lease, lease.ending_up and not lease.stuck)
        self.book.refresh_up(lease.source)

    def _leave_down(self, lease: Lease) -> None:
        link, before, after = lease.receiver.down, lease.before_down, lease.after_down
        if before is not None:
            before.after_down = lease.before_down = None
            if not before.stuck:
                link.open_ends.append(before)
        else:
            link.used -= link.share(lease)
            if after is not None:
                after.before_down = lease.after_down = None
                link.used += link.share(after)
                self._start_if_free(after)
            else:
                self._give_up_slot(link, lease, lease.ending_down and not lease.stuck)
        self.book.refresh_down(lease.receiver)

    @staticmethod
    def _give_up_slot(link: Link, lease: Lease, ending: bool) -> None:
        link.chains -= 1
        if ending:
            link.open_ends.remove(lease)
        if link.chains == 0:
            link.used = 0.0

    def _start_if_free(self, lease: Lease) -> None:
        if lease.before_up is None and lease.before_down is None:
            transfer_timing.start(self, lease)
