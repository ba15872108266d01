"""`kill -9` of a peer at random moments of a pull: what was verified is on its disk and is not fetched again."""

from __future__ import annotations

import contextlib
import random
import re
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.processes import ProcessError, wait_until
from proto.pieces import PieceLayout
from tests.support.counts import assert_received
from tests.support.held import held_ranges
from tests.support.pullers import pull, start_pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cluster.services import Cluster, Service, Supernode

pytestmark = pytest.mark.client("docker-registry")

MIB = 1 << 20
SIZE_BYTES = 16 * MIB
KILLS = 20
SEED = 20
RATE_BYTES_S = 2 * MIB
# A life is over when the seed has sent so much, of 64 pieces in all.
LIFE_BYTES_MAX = 3 * PieceLayout.of(SIZE_BYTES).piece_size_bytes
LEFT_PIECES = 16


@contextlib.contextmanager
def counted_seed(supernode: Supernode) -> Iterator[CountingProxy]:
    """Peers fetch the supernode's pieces through a counting proxy: its ledger has every piece they asked for."""
    supernode.stop()
    host, _, port = supernode.ready["upload"].rpartition(":")
    with CountingProxy((host, int(port))) as seed:
        supernode.extra += ["--advertise", seed.address]
        supernode.start()
        yield seed
        supernode.stop()


def pieces_asked(seed: CountingProxy, first_exchange: int, *, whole: bool = False) -> list[int]:
    """The pieces in the requests from that one on, in their order; `whole`: that came to their end."""
    exchanges = [each for each in seed.ledger().exchanges[first_exchange:] if each.ending == "complete" or not whole]
    ranges = [match for each in exchanges if (match := re.search(r"/pieces/(\d+)-(\d+)$", each.path))]
    return [piece for match in ranges for piece in range(int(match[1]), int(match[2]) + 1)]


def wait_for_bytes(seed: CountingProxy, size_bytes: int, *services: Service) -> None:
    try:
        wait_until(lambda: seed.ledger().total_bytes() >= size_bytes, f"{size_bytes} bytes from the seed")
    except ProcessError as error:
        tails = "\n".join(service.process.log_tail() for service in services)
        raise ProcessError(f"{error}; there were {seed.ledger().total_bytes()}\n{tails}") from None


def test_a_peer_killed_twenty_times_fetches_no_verified_piece_again(
    cluster: Cluster, origin: CountingProxy, push: Callable[[int], str]
) -> None:
    digest = push(SIZE_BYTES)
    layout = PieceLayout.of(SIZE_BYTES)
    rng = random.Random(SEED)
    with counted_seed(cluster.supernode) as seed:
        seed.set_rate(RATE_BYTES_S)
        peer = cluster.prepare_peer(extra=["--download-slots", "2"])
        verified: set[int] = set()
        kills = 0
        # A slow machine may let more pass before each kill: the last few pieces are left for the end.
        while kills < KILLS and len(verified) < layout.count - LEFT_PIECES:
            peer.start()
            cluster.wait_for_sessions(1)
            asked_before = len(seed.ledger().exchanges)
            sent_bytes = seed.ledger().total_bytes() + rng.randrange(LIFE_BYTES_MAX)
            with start_pull(peer.proxy, digest):
                wait_for_bytes(seed, sent_bytes, peer, cluster.supernode)
                peer.kill()
            # What it asked for and the proxy has not read yet belongs to this life.
            seed.cut()
            assert verified.isdisjoint(pieces_asked(seed, asked_before))
            held = {
                layout.piece_at(at)
                for first, end in held_ranges(peer.data_dir, digest)
                for at in range(first, end, layout.piece_size_bytes)
            }
            assert verified <= held
            verified = held
            kills += 1
        assert 0 < len(verified) < layout.count, "the kills were to fall into the pull"
        seed.set_rate(None)
        peer.start()
        cluster.wait_for_sessions(1)
        asked_before = len(seed.ledger().exchanges)
        answer = pull(peer.proxy, digest)
        assert answer.complete
        assert answer.sha256 == digest
        missing = set(range(layout.count)) - verified
        assert set(pieces_asked(seed, asked_before)) == missing
        # A transfer that is overdue is taken back, and its piece granted again (rules 8 and 9): on a busy machine some
        # may come twice, but none that was not granted twice, and each is stored once.
        whole = pieces_asked(seed, asked_before, whole=True)
        assert set(whole) == missing
        assert len(whole) <= peer.metrics().value("layercast_leases_total", outcome="granted")
        assert_received(peer, seed=layout.bytes_in(layout.full_mask) - sum(map(layout.length, verified)))
        peer.close()
    assert origin.ledger().gets(digest) == 1
