"""The supernode dies, stops or falls silent in mid-pull: the nodes finish among themselves and from the origin.

What any node holds is never asked of the origin again; what nobody holds is asked for by its owners, not by all, after
a grace that is longer where the supernode only fell silent.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.faults import Fault
from benchmarks.cluster.ledger import union_bytes
from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.services import Cluster
from peer.downloader.limits import Limits
from tests.support.counts import assert_received
from tests.support.held import held_ranges, overlap_bytes
from tests.support.networks import Lab, Node
from tests.support.pullers import start_pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.cluster.ledger import Exchange
    from benchmarks.cluster.registry import Registry
    from benchmarks.cluster.services import Peer
    from tests.support.pullers import Pull

pytestmark = [pytest.mark.root, pytest.mark.client("docker-registry", "ip", "tc", "nsenter")]

MIB = 1 << 20
SIZE_BYTES = 12 * MIB
NODES = 3
# Slow enough that the supernode dies in the middle, and that peers' copies are not all one piece apart.
RATE_BYTES_S = 2 * MIB
GRACE_S = Limits().grace_s
# Shorter than an operator would have it, and longer than three missed pings and the other grace take together.
SILENT_GRACE_S = 15.0
PATIENCE = ["--supernode-patience", f"{SILENT_GRACE_S:g}s"]
# So long a busy machine may take to bring all nodes back: the supernode asks for nothing before. Nobody waits it out.
RECOVERY = ["--recovery", f"{WAIT_S:g}s"]
# Nor this: no node asks in the time that a cut of the network takes there.
LONG_PATIENCE = ["--supernode-patience", f"{2 * WAIT_S:g}s"]
# Where the pulls stand when the supernode goes, and what the origin has sent by then at most.
MIDDLE_BYTES = 5 * MIB
SENT_BYTES_MAX = 8 * MIB


class Scene:
    """A cluster with every program in a network namespace, and one pull by every peer."""

    def __init__(self, cluster: Cluster, origin: CountingProxy, digest: str) -> None:
        self.cluster = cluster
        self.origin = origin
        self.digest = digest
        self.pulls: list[Pull] = []
        self.lost_s = 0.0

    @property
    def peers(self) -> Sequence[Peer]:
        return self.cluster.peers

    def begin(self) -> None:
        """All peers pull; returns in the middle of it."""
        self.cluster.wait_for_sessions(NODES)
        self.origin.set_rate(RATE_BYTES_S)
        self.origin.add_fault(Fault(path_contains=self.digest, method="GET", stall_after_bytes=SENT_BYTES_MAX))
        self.pulls += [start_pull(peer.proxy, self.digest, timeout_s=180.0) for peer in self.peers]
        self.pulls[0].wait_for_bytes(MIDDLE_BYTES)

    def go_on(self) -> None:
        """The origin sends all that it is asked for, as fast as it can."""
        self.origin.clear_faults()
        self.origin.set_rate(None)

    def held(self) -> list[tuple[int, int]]:
        """What at least one peer holds, as ranges that do not overlap."""
        pieces = {(first, end) for peer in self.peers for first, end in held_ranges(peer.data_dir, self.digest)}
        joined: list[tuple[int, int]] = []
        for first, end in sorted(pieces):
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((first, end))
        return joined

    def finish(self) -> None:
        """Everyone gets the whole blob."""
        for pull in self.pulls:
            answer = pull.result(180.0)
            assert answer.complete, answer
            assert answer.sha256 == self.digest

    def asked_since_loss(self) -> list[Exchange]:
        """The requests for the blob that began after the supernode was lost."""
        return [each for each in self.origin.ledger().of_blob(self.digest) if each.started_s > self.lost_s]

    def close(self) -> None:
        """Hang up."""
        for pull in self.pulls:
            pull.hang_up()
        self.go_on()


@pytest.fixture
def make_scene(registry: Registry, push: Callable[[int], str], tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Makes a cluster in which every program has a namespace, and a blob for it. Its flags are the peers'."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())

        def make(*flags: str) -> Scene:
            origin = stack.enter_context(CountingProxy(registry.host_port, (lab.host_address, 0)))
            directory = tmp_path / origin.address
            cluster = stack.enter_context(
                Cluster(directory, origin.address, supernode_node=lab.add_node(), supernode_flags=RECOVERY)
            )
            for node in [lab.add_node() for _ in range(NODES)]:
                cluster.prepare_peer(node, proxy_host=node.address, extra=flags).spawn()
            for peer in cluster.peers:
                peer.wait_ready()
            return stack.enter_context(contextlib.closing(Scene(cluster, origin, push(SIZE_BYTES))))

        yield make


def kill(scene: Scene) -> None:
    """The link breaks."""
    scene.cluster.supernode.kill()


def stop(scene: Scene) -> None:
    """The link stands, nobody answers."""
    scene.cluster.supernode.process.pause()


def silence(scene: Scene) -> None:
    """The link is half open: frames are lost without a word."""
    node = scene.cluster.supernode_node
    assert isinstance(node, Node)
    node.silence()


def test_a_pull_ends_well_without_the_supernode(make_scene: Callable[..., Scene]) -> None:
    """Three clusters at once, since all of them wait out the same grace."""
    ways = (kill, stop, silence)
    scenes = [make_scene(*PATIENCE) for _ in ways]
    held = []
    for scene, lose in zip(scenes, ways, strict=True):
        scene.begin()
        scene.lost_s = time.monotonic()
        lose(scene)
        held.append(scene.held())
        scene.go_on()
    for scene in scenes:
        scene.finish()
    for scene, way, ranges in zip(scenes, ways, held, strict=True):
        asked = scene.asked_since_loss()
        assert asked, f"{way.__name__}: the supernode had fetched all of it, so this tested nothing"
        assert ranges
        assert overlap_bytes([each.interval for each in asked], ranges) == 0, way.__name__
        grace_s = GRACE_S if way is kill else SILENT_GRACE_S
        assert all(each.started_s - scene.lost_s >= grace_s - 1.0 for each in asked), way.__name__
        # Shared out: three nodes by themselves would ask for all of it three times. One span of the fourteen may be on
        # its way to one when its turn comes to another.
        asked_bytes = sum(end - start for start, end in (each.interval for each in asked))
        assert asked_bytes <= 1.1 * union_bytes(each.interval for each in asked), way.__name__
        assert_received(scene.cluster, passthrough=0)


def test_a_supernode_that_comes_back_in_mid_pull_asks_for_nothing_that_a_node_holds(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene()
    scene.begin()
    scene.lost_s = time.monotonic()
    scene.cluster.supernode.kill()
    held = scene.held()
    scene.cluster.supernode.start()
    scene.cluster.wait_for_sessions(NODES)
    away_s = time.monotonic() - scene.lost_s
    scene.go_on()
    scene.finish()
    asked = [each.interval for each in scene.asked_since_loss()]
    assert overlap_bytes(asked, held) == 0
    assert_received(scene.cluster, passthrough=0)
    # Each byte that nobody held is asked for once, by the supernode alone, if the machine let it be back in time.
    if away_s < GRACE_S:
        assert union_bytes(asked) == sum(end - first for first, end in asked)
        assert_received(scene.cluster, origin=0)


def test_after_a_cut_of_the_network_each_byte_is_sent_once_and_nobody_else_asks_the_origin(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene(*LONG_PATIENCE)
    scene.begin()
    silence(scene)
    scene.go_on()
    # It takes longer than an origin may be silent that is there.
    scene.cluster.supernode.process.wait_for_line("origin_out_of_reach")
    node = scene.cluster.supernode_node
    assert isinstance(node, Node)
    node.restore()
    scene.finish()
    assert scene.origin.ledger().repeated_bytes(scene.digest) == 0
    assert_received(scene.cluster, passthrough=0, origin=0)
