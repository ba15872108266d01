"""A real supernode records, real peers pull, and the log replays: the same commands, every rule kept, a story told."""

from __future__ import annotations

import json
import random
import re
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.cluster.processes import WAIT_S, wait_until
from benchmarks.cluster.services import Cluster
from benchmarks.simulator.replay import Replayer
from proto.pieces import MIB
from supernode.event_log.format import Reader
from tests.support.fake_origin import FakeOrigin, fake_origin
from tests.support.pullers import start_pull
from tests.support.tmpfs import fill, small_tmpfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.simulator.replay import Replay
    from supernode.event_log.format import SchedulerParameters
    from supernode.scheduler.machine import Scheduler

PEERS = 4
PIECE_BYTES = 256 << 10
SIZE_BYTES = 6 * MIB + 17
PIECES = -(-SIZE_BYTES // PIECE_BYTES)


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as running:
        yield running


def pull_everywhere(cluster: Cluster, digest: str) -> None:
    with ExitStack() as hanging_up:
        pulls = [hanging_up.enter_context(start_pull(peer.proxy, digest)) for peer in cluster.peers]
        answers = [pull.result() for pull in pulls]
    assert [answer.sha256 for answer in answers] == [digest] * len(answers)


def recording(directory: Path, origin: FakeOrigin) -> Cluster:
    flags = ["--event-log", str(directory / "events.log")]
    return Cluster(directory, origin.authority, supernode_flags=flags)


def test_a_recorded_pull_of_real_peers_replays_to_the_same_commands(
    tmp_path: Path, origin: FakeOrigin, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = str(origin.add(random.Random(3).randbytes(SIZE_BYTES)))
    log, kept = tmp_path / "events.log", tmp_path / "figures.json"
    with recording(tmp_path, origin) as cluster:
        cluster.add_peers([None] * PEERS)
        cluster.wait_for_sessions(PEERS)
        pull_everywhere(cluster, digest)
        wait_until(lambda: stored_at_peers(log) == PEERS * PIECES, "every piece in the log")
        assert cluster.supernode.stop() == 0
    assert log.stat().st_mode & 0o777 == 0o600
    arguments = ["sim", "--replay", str(log), "--check-every", "1", "--story", "1:3", "--json", str(kept)]
    assert main(arguments) == 0
    figures = json.loads(kept.read_text())
    assert figures["same"] is True
    assert figures["ended"] == "the supernode stopped"
    assert figures["peers"] == PEERS
    assert figures["pieces_stored_at_peers"] == PEERS * PIECES
    (swarm,) = figures["by_swarm"]
    assert (swarm["size_bytes"], swarm["pieces"], len(swarm["completed_s"])) == (SIZE_BYTES, PIECES, PEERS)
    # Where two sources raced, both may have arrived.
    holders = set(re.findall(r"piece 3: stored at (\d+) ", capsys.readouterr().out))
    assert len(holders) == PEERS + 1


def test_the_log_of_a_killed_supernode_replays_and_a_changed_machine_is_found_out(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    digest = str(origin.add(random.Random(4).randbytes(SIZE_BYTES)))
    other = str(origin.add(random.Random(6).randbytes(SIZE_BYTES)))
    log = tmp_path / "events.log"
    with recording(tmp_path, origin) as cluster:
        cluster.add_peers([None] * PEERS)
        cluster.wait_for_sessions(PEERS)
        pull_everywhere(cluster, digest)
        wait_until(lambda: stored_at_peers(log) == PEERS * PIECES, "every piece in the log")
        # On a busy machine all of that is one record. The one that is cut below is of this second pull.
        pull_everywhere(cluster, other)
        wait_until(lambda: swarms_stored_whole(log) == 2, "every piece of the second blob in the log")
        cluster.supernode.kill()
        cluster.supernode.close()
        # The last write of a process that is killed may be cut short anywhere.
        log.write_bytes(log.read_bytes()[:-5])
        with log.open("rb") as file:
            found = Replayer(Reader(file, str(log)), check_every=1).run()
    assert (found.difference, found.broken, found.ended) == (None, "", "")
    assert found.counters["granted"] > 0
    # A seed decides ties alone, so one other could by chance decide all the same.
    assert any(replay_with_seed(log, seed).difference is not None for seed in range(8))


def replay_with_seed(log: Path, seed: int) -> Replay:
    def make(parameters: SchedulerParameters) -> Scheduler:
        return replace(parameters, seed=seed).build()

    with log.open("rb") as file:
        return Replayer(Reader(file, str(log)), make_scheduler=make).run()


def stored_at_peers(log: Path) -> int:
    with log.open("rb") as file:
        return Replayer(Reader(file, str(log))).run().past.stored_pieces


def swarms_stored_whole(log: Path) -> int:
    """Of which every piece was stored at every peer: a later one may be cut by what links were seen to carry."""
    with log.open("rb") as file:
        swarms = Replayer(Reader(file, str(log))).run().past.swarms.values()
    return sum(swarm.stored_pieces == PEERS * swarm.layout.count for swarm in swarms)


def test_a_supernode_that_may_not_write_its_log_says_so_and_does_not_start(tmp_path: Path, origin: FakeOrigin) -> None:
    (tmp_path / "events.log").write_text("somebody's notes")
    cluster = recording(tmp_path, origin)
    try:
        cluster.supernode.spawn()
        assert cluster.supernode.process.wait(WAIT_S) == 2
        errors = cluster.supernode.process.log_tail()
    finally:
        cluster.close()
    assert "exists and is not an event log; name another file" in errors
    assert (tmp_path / "events.log").read_text() == "somebody's notes"


@pytest.mark.root
def test_a_full_disk_ends_the_recording_and_no_pull(tmp_path: Path, origin: FakeOrigin) -> None:
    digest = str(origin.add(random.Random(5).randbytes(SIZE_BYTES)))
    with small_tmpfs(tmp_path / "small", 64 << 10) as disk:
        cluster = Cluster(tmp_path, origin.authority, supernode_flags=["--event-log", str(disk / "events.log")])
        with cluster:
            fill(disk)
            cluster.add_peers([None] * PEERS)
            cluster.wait_for_sessions(PEERS)
            pull_everywhere(cluster, digest)
            line = cluster.supernode.process.wait_for_line("event_log_stopped")
            assert "No space left on device; the service goes on" in line.string
            assert cluster.supernode.stop() == 0
        assert main(["sim", "--replay", str(disk / "events.log")]) == 0
