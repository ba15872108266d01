"""How a swarm ends well or badly: the digest of the whole blob, the void, and closing what nobody needs any more.

Takes the seed's reports. Lives on the event loop; the reading and hashing is done in the seed's threads.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from proto.ids import short_peer
from proto.wire.messages import Source, Voided, Vouched
from supernode.scheduler import contract
from supernode.scheduler.contract import SEED

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.errors import LayercastError
    from proto.ids import Digest, PeerId
    from supernode.control.driver import Driver
    from supernode.control.swarm_registry import OpenSwarm
    from supernode.metrics import Metrics
    from supernode.origin.public_access import PublicAccess
    from supernode.state.thread import StateThread

logger = logging.getLogger(__name__)

# A source whose blob did not match its digest so many times is not asked for it again for VOIDED_S.
VOIDS_MAX: Final = 2
VOIDED_S: Final = 600.0
VOIDED_MAX: Final = 10_000


class Verification:
    """See the module. Implements supernode.seed.SeedEvents. `on_whole` is told of blobs whose digest has passed."""

    def __init__(
        self,
        *,
        driver: Driver,
        public_access: PublicAccess,
        state: StateThread,
        metrics: Metrics,
        on_whole: Callable[[OpenSwarm], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._driver = driver
        self._public_access = public_access
        self._state = state
        self._metrics = metrics
        self._on_whole = on_whole
        self._unix_clock = clock
        # (source, digest) to how often it was voided and until when that counts.
        self._voided: OrderedDict[tuple[Source, Digest], tuple[int, float]] = OrderedDict()
        # Whose claimed hashes of which blob proved useless.
        self._doubted: OrderedDict[tuple[PeerId, Digest], None] = OrderedDict()

    def times_voided(self, source: Source, digest: Digest) -> int:
        """How often this source's content was not the blob, lately."""
        times, until = self._voided.get((source, digest), (0, 0.0))
        return times if self._unix_clock() < until else 0

    def check_if_complete(self, swarm: OpenSwarm) -> None:
        """Start the digest check once every piece is in the store."""
        if swarm.seed_complete and swarm.layout.count and not swarm.seed_checked and not swarm.checking:
            swarm.checking = True
            self._driver.seed.check(swarm.number, swarm.digest)

    def vouch(self, swarm: OpenSwarm) -> None:
        """The blob matched its digest here."""
        swarm.seed_checked = True
        swarm.origin_state = ""
        self._state.vouch(swarm.digest, swarm.hashes.run(0, swarm.layout.count - 1))
        if swarm.vouched:
            return
        swarm.vouched = True
        for node in swarm.members:
            session = self._driver.nodes.session(node)
            if session is not None:
                # Each node goes by its own digest check: a frame for this alone costs more than it tells.
                session.send_along(Vouched(swarm.number))

    def doubt(self, swarm: OpenSwarm) -> None:
        """A peer found that the blob does not match, by hashes that another peer claimed and nobody checked here.

        Who of them is wrong is not known; the claim is dropped and not taken again, and the origin decides.
        """
        if swarm.vouched or swarm.checking or swarm.claimant is None:
            return
        self._doubted[swarm.claimant, swarm.digest] = None
        if len(self._doubted) > VOIDED_MAX:
            self._doubted.popitem(last=False)
        logger.warning("claim_doubted digest=%s peer=%s", swarm.digest.short, short_peer(swarm.claimant))
        self._drop(swarm, f"blob {swarm.digest.short}: a peer's hashes are in doubt")
        self._driver.seed.void(swarm.digest)

    def is_doubted(self, peer: PeerId, digest: Digest) -> bool:
        """Whether this peer's hashes of the blob were in doubt before."""
        return (peer, digest) in self._doubted

    def void(self, swarm: OpenSwarm) -> None:
        """The blob did not match its digest: nothing of it counts, and whoever brought it is remembered."""
        message = f"blob {swarm.digest.short} did not match its digest"
        blamed = "a peer" if swarm.claimant is not None else ", ".join(source.upstream for source in swarm.sources)
        logger.error("blob_voided digest=%s source=%s", swarm.digest.short, blamed)
        if swarm.claimant is not None:
            self._driver.quarantine_peer(swarm.claimant, "claimed hashes of wrong content")
        else:
            for source in swarm.sources:
                self._blame(source, swarm.digest)
        self._drop(swarm, message)

    def _drop(self, swarm: OpenSwarm, message: str) -> None:
        """Every member forgets it, and so do we."""
        self._state.forget_swarm(swarm.digest)
        self._driver.post(contract.SwarmVoided(swarm.number))
        for node in swarm.members:
            session = self._driver.nodes.session(node)
            if session is not None:
                session.send(Voided(swarm.number, message))
                session.announced.pop(swarm.digest, None)
                session.wanting.discard(swarm.number)
        swarm.members.clear()
        for fetch_id in swarm.fetches:
            self._driver.seed.cancel_origin(fetch_id)
        swarm.fetches.clear()
        self.settle(swarm)

    def _blame(self, source: Source, digest: Digest) -> None:
        self._public_access.forget(source, digest)
        times = self.times_voided(source, digest) + 1
        self._voided[source, digest] = (times, self._unix_clock() + VOIDED_S)
        self._voided.move_to_end((source, digest))
        if len(self._voided) > VOIDED_MAX:
            self._voided.popitem(last=False)

    def settle(self, swarm: OpenSwarm) -> None:
        """After members came or went: keep the blob while it is wanted, forget the swarm when nobody is left."""
        driver = self._driver
        if driver.swarms.numbered(swarm.number) is not swarm:
            return
        wanted = swarm.layout.count > 0 and swarm.wanted_by > 0
        if wanted != swarm.pinned:
            swarm.pinned = wanted
            if wanted:
                driver.seed.pin(swarm.digest, swarm.layout)
            else:
                driver.seed.unpin(swarm.digest)
        if swarm.members or swarm.fetches or swarm.checking:
            return
        driver.swarms.close(swarm)
        self._metrics.swarms_open.set(len(driver.swarms))
        if swarm.layout.count:
            driver.post(contract.SwarmClosed(swarm.number))

    # --- what the seed reports (supernode.seed.SeedEvents) ---------------------------------------------------

    def seed_stored(self, swarm: int, piece: int, piece_hash: bytes, content: bytes | None) -> None:
        """A piece came from the origin."""
        found = self._driver.swarms.numbered(swarm)
        if found is None:
            return
        self._driver.learn_hash(found, piece, piece_hash)
        found.seed_held |= 1 << piece
        found.moved_s = self._driver.clock()
        if content is not None and found.seed_complete:
            found.content = content
        self._driver.post(contract.PieceStored(swarm, SEED, piece))
        self.check_if_complete(found)

    def origin_ended(self, fetch_id: int, swarm: int, error: LayercastError | None) -> None:
        """A fetch from the origin ended."""
        found = self._driver.swarms.numbered(swarm)
        if found is None or fetch_id not in found.fetches:
            return
        found.fetches.discard(fetch_id)
        if error is None and not found.fetches:
            found.origin_state = ""
        self._driver.post(contract.OriginEnded(fetch_id, swarm, error is None))
        self.settle(found)

    def seed_lease_ended(self, lease_id: int, reason: str, elapsed_s: float, stored_bytes: int) -> None:
        """A transfer from a peer ended."""
        swarm = self._driver.seed_lease_ended(lease_id, reason, elapsed_s, stored_bytes)
        if swarm is not None:
            self.check_if_complete(swarm)

    def blob_checked(self, swarm: int, matches: bool | None) -> None:
        """The digest of a whole blob was compared."""
        found = self._driver.swarms.numbered(swarm)
        if matches is not None:
            self._metrics.digest_checks.labels("ok" if matches else "mismatch").inc()
        if found is None:
            return
        found.checking = False
        if matches:
            self.vouch(found)
            if self._on_whole is not None:
                self._on_whole(found)
            self.settle(found)
        elif matches is False:
            self.void(found)
        else:
            self.settle(found)

    def blob_evicted(self, digest: Digest) -> None:
        """The store let go of a blob."""
        found = self._driver.swarms.of(digest)
        if found is None or not found.seed_held:
            return
        pieces, found.seed_held, found.content, found.seed_checked = found.seed_held, 0, None, False
        self._driver.post(contract.PieceEvicted(found.number, SEED, pieces))
