"""The arithmetic of a real fan-out: goodput, buckets, counters, samples, disk space, the part of native, the gate."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bounds import bounds
from benchmarks.cluster.image import make_exact_image
from benchmarks.cluster.namespaces import inside, parse_device_counters
from benchmarks.fanout import disk_space
from benchmarks.fanout.calibration import Goodput, steady_rate
from benchmarks.fanout.command import exceeded
from benchmarks.fanout.disk_space import find_disk_space, stores_bytes
from benchmarks.fanout.modes import native_fraction
from benchmarks.fanout.network import burst_bytes
from benchmarks.fanout.site import Traffic, received_payload, sent_payload
from benchmarks.fanout.usage import CoreTime
from benchmarks.fanout.watch import Reading, samples
from benchmarks.report.summary import summaries
from benchmarks.results import ModeRun, NodeTimes
from benchmarks.scenario import equal_links
from proto.errors import LocalError

MIB = 1 << 20


def test_a_steady_rate_leaves_out_the_beginning() -> None:
    arrivals = [(0.0, 9000), (0.5, 9000), (1.0, 500), (2.0, 100), (3.0, 100)]
    assert steady_rate(arrivals, settled_s=1.0) == 100.0


def test_a_flow_that_ends_at_once_has_no_rate() -> None:
    with pytest.raises(LocalError, match="ended at once"):
        steady_rate([(0.0, 10)], settled_s=0.5)


def test_a_goodput_far_from_what_frames_allow_is_doubtful() -> None:
    assert Goodput(0.90, 0.956).doubtful
    assert not Goodput(0.95, 0.956).doubtful


@given(st.floats(1e4, 1e9), st.sampled_from([1514, 9014]), st.integers(1 << 14, 16 * MIB))
def test_a_bucket_holds_a_few_frames_or_at_most_a_quarter_of_a_piece(rate: float, frame: int, piece: int) -> None:
    burst = burst_bytes(rate, frame, piece)
    assert burst >= 4 * frame
    assert burst <= max(4 * frame, piece / 4 + 1)


def test_payload_is_what_frames_hold_beyond_headers() -> None:
    text = "Inter-|\n face |\n  n0: 3028 2 0 0 0 0 0 0 660 10 0 0 0 0 0 0\n    lo: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    counters = parse_device_counters(text)
    assert set(counters) == {"n0", "lo"}
    assert received_payload(counters["n0"]) == 2 * 1448
    assert sent_payload(counters["n0"]) == 0  # ten acknowledgements


def test_work_inside_no_namespace_is_done_right_here() -> None:
    assert inside(None, lambda: 7) == 7


def test_busy_is_neither_idle_nor_waiting() -> None:
    before = CoreTime.parse("cpu  100 0 100 1000 100 0 0 0 0 0\ncpu0 1 1 1\n")
    after = CoreTime.parse("cpu  160 0 110 1020 110 0 0 0 50 0\ncpu0 1 1 1\n")
    assert after.busy_since(before) == 0.7


def traffic(*, direct: int, seed: int, peer: int, supernode: int = 0) -> Traffic:
    return Traffic(direct + supernode, supernode, seed, direct + seed + peer, peer, 0, 0)


def test_samples_follow_the_counters_and_end_at_the_nodes_own_figures() -> None:
    readings = [
        Reading(1.0, traffic(direct=0, seed=100, peer=0, supernode=300)),
        Reading(2.0, traffic(direct=0, seed=200, peer=440, supernode=300)),
    ]
    found = samples(readings, {"seed": 190, "peer": 400}, [1.5, 1.9])
    assert [one.received_bytes["seed"] for one in found] == [95, 190]
    assert [one.received_bytes["peer"] for one in found] == [0, 400]
    assert [one.received_bytes["origin"] for one in found] == [0, 0]
    assert [one.nodes_done for one in found] == [0, 2]


def test_native_pulls_everything_unless_that_takes_too_long() -> None:
    assert native_fraction(200.0, 300.0) == 1.0
    assert native_fraction(600.0, 300.0) == 0.5


def test_an_image_has_layers_of_exactly_the_asked_sizes_that_nothing_compresses(tmp_path: Path) -> None:
    image = make_exact_image(tmp_path / "a", [3 * MIB, 1000], seed=5)
    assert [layer.size_bytes for layer in image.layers] == [3 * MIB, 1000]
    for blob in image.blobs:
        assert blob.digest == f"sha256:{hashlib.sha256(blob.path.read_bytes()).hexdigest()}"
    assert [one["size"] for one in json.loads(image.manifest.path.read_text())["layers"]] == [3 * MIB, 1000]
    assert make_exact_image(tmp_path / "b", [3 * MIB, 1000], seed=5).manifest.digest == image.manifest.digest
    assert make_exact_image(tmp_path / "c", [3 * MIB, 1000], seed=6).manifest.digest != image.manifest.digest


Usage = namedtuple("Usage", "free")


def with_space(monkeypatch: pytest.MonkeyPatch, *, memory: int, tmpfs: int, disk: int) -> None:
    monkeypatch.setattr(disk_space, "available_memory_bytes", lambda: memory * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage((tmpfs if path == Path("/dev/shm") else disk) * MIB))


def test_stores_are_in_memory_if_they_fit_beside_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, memory=24_000, tmpfs=24_000, disk=90_000)
    assert find_disk_space(100, 64 * MIB, tmp_path, None).in_memory
    assert find_disk_space(250, 64 * MIB, tmp_path, None).folder == tmp_path
    assert find_disk_space(100, 64 * MIB, Path("/"), tmp_path).folder == tmp_path


def test_too_little_room_is_said_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_space(monkeypatch, memory=24_000, tmpfs=24_000, disk=90_000)
    assert stores_bytes(200, 1024 * MIB) > 90_000 * MIB
    with pytest.raises(LocalError, match="free"):
        find_disk_space(200, 1024 * MIB, tmp_path, None)
    with pytest.raises(LocalError, match="of memory"):
        find_disk_space(900, MIB, tmp_path, None)


def test_the_gate_is_about_the_scheduled_mode_and_the_piece_bound() -> None:
    scenario = equal_links(1, (MIB,), 1e6)
    limits = bounds(scenario)
    node = NodeTimes(0, "node", 0.0, 0.1, 2 * limits.piece_s)
    figures = summaries(
        scenario,
        limits,
        [ModeRun(mode, (node,), (), MIB, 1, 0) for mode in ("native", "scheduled")],
    )
    assert exceeded(2.1, figures) == []
    assert exceeded(None, figures) == []
    assert exceeded(1.9, figures) == ["scheduled: 2.000 times the piece bound, at most 1.9"]
