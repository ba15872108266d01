"""The supernode as a process: its ready line, its end, its reload, and a real registry behind it.

How it refuses to start is in tests/faults.
"""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import LOOPBACK, Supernode
from proto.ids import Digest
from proto.pieces import MIB
from proto.wire.messages import BlobRefused, Grant, SwarmOpened, Vouched
from tests.support.counts import assert_metric
from tests.support.fake_origin import Fault, fake_origin
from tests.unit.supernode.harness import REPOSITORY, At, BarePeer, real_peer

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Upstream:
    authority: str


def test_it_starts_says_so_and_ends_cleanly(tmp_path: Path) -> None:
    supernode = Supernode(tmp_path / "s", LOOPBACK, ["--open"])
    try:
        supernode.start()
        assert set(supernode.ready) == {"api", "upload"}
        assert supernode.healthz() == (200, b"ready\n")
        assert supernode.stop() == 0
    finally:
        supernode.close()


def test_an_option_of_an_earlier_release_is_a_warning(tmp_path: Path) -> None:
    supernode = Supernode(tmp_path / "s", LOOPBACK, ["--open", "--datagrams", "true"])
    try:
        supernode.start()
        supernode.process.wait_for_line("setting_ignored --datagrams: control goes by TCP alone")
        assert supernode.healthz() == (200, b"ready\n")
    finally:
        supernode.close()


def test_it_ends_while_sessions_and_a_stalled_fetch_are_open(tmp_path: Path) -> None:
    async def pull() -> None:
        async with BarePeer.connected(At(supernode.ready["api"])) as peer:
            await peer.announce(origin, digest)
            await peer.expect(Grant)
            assert await asyncio.to_thread(supernode.stop) == 0

    with fake_origin() as origin:
        digest = origin.add(random.Random(1).randbytes(MIB))
        # However often it is asked.
        origin.faults = [Fault(), *[Fault(stall_after_bytes=MIB // 2)] * 50]
        supernode = Supernode(tmp_path / "s", LOOPBACK, ["--open", "--insecure-upstream", origin.authority])
        try:
            supernode.start()
            asyncio.run(pull())
        finally:
            supernode.close()


def test_sighup_reloads_the_file(tmp_path: Path) -> None:
    async def answer(kind: type[BlobRefused] | type[SwarmOpened]) -> None:
        async with BarePeer.connected(At(supernode.ready["api"])) as peer:
            await peer.announce(origin, digest)
            await peer.expect(kind)

    file = tmp_path / "supernode.toml"
    with fake_origin() as origin:
        digest = origin.add(b"content")
        file.write_text("p2p = false\n")
        supernode = Supernode(tmp_path / "s", LOOPBACK, ["--open", "--config", str(file)])
        try:
            supernode.start()
            asyncio.run(answer(BlobRefused))
            file.write_text(f'p2p = true\ninsecure_upstream = ["{origin.authority}"]\n')
            supernode.process.send_signal(signal.SIGHUP)
            supernode.process.wait_for_line("reloaded")
            asyncio.run(answer(SwarmOpened))
            file.write_text("nonsense = 1\n")
            supernode.process.send_signal(signal.SIGHUP)
            supernode.process.wait_for_line("reload_refused")
            asyncio.run(answer(SwarmOpened))
        finally:
            supernode.close()


def test_after_kill_9_what_arrived_is_not_asked_for_again(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(4 * MIB)

    async def first_pieces() -> None:
        async with real_peer(At(supernode.ready["api"]), tmp_path / "p") as peer:
            await peer.announce(origin, digest)
            while len(peer.of(Grant)) < 8:
                await peer.expect(Grant)

    async def whole() -> None:
        async with real_peer(At(supernode.ready["api"]), tmp_path / "q") as peer:
            await peer.announce(origin, digest)
            await peer.completed(digest)

    with fake_origin() as origin:
        digest = origin.add(content)
        origin.faults = [Fault(), Fault(stall_after_bytes=2 * MIB)]
        supernode = Supernode(tmp_path / "s", LOOPBACK, ["--open", "--insecure-upstream", origin.authority])
        try:
            supernode.start()
            asyncio.run(first_pieces())
            supernode.kill()
            before = len(origin.blob_requests())
            supernode.start()
            asyncio.run(whole())
        finally:
            supernode.close()
        again = origin.blob_requests()[before:]
        starts = [int((asked.range or "bytes=0-")[6:].partition("-")[0]) for asked in again]
        assert min(starts) >= 2 * MIB - 256 * 1024


@pytest.mark.client("docker-registry")
def test_a_real_registry_is_asked_once_for_three_peers(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(20 * MIB + 5)
    digest = Digest.of(content)

    async def pull(upstream: Upstream) -> None:
        reachable = At(supernode.ready["api"])
        async with (
            real_peer(reachable, tmp_path / "a") as one,
            real_peer(reachable, tmp_path / "b") as two,
            real_peer(reachable, tmp_path / "c") as three,
        ):
            for peer in (one, two, three):
                await peer.announce(upstream, digest)
            for peer in (one, two, three):
                await peer.completed(digest)
            if not one.of(Vouched):
                await one.expect(Vouched)

    with Registry(tmp_path / "registry") as registry:
        with registry.writer() as writer:
            writer.push_blob_bytes(REPOSITORY, content)
        supernode = Supernode(tmp_path / "s", LOOPBACK, ["--open", "--insecure-upstream", registry.address])
        try:
            supernode.start()
            asyncio.run(pull(Upstream(registry.address)))
            assert_metric(supernode, "layercast_origin_bytes_total", len(content))
            assert_metric(supernode, "layercast_sessions_open", 0)
        finally:
            supernode.close()
