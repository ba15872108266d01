"""How long what an origin gave counts: from when it was asked, however long its answer took or was kept."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from peer.permission.gate import PermissionGate
from peer.registry.base import Caller
from peer.registry.origins import Origins
from proto.ids import Digest
from proto.oci.upstreams import UpstreamConfig, UpstreamTable

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYER, REPOSITORY = Digest.of(b"layer"), "team/app"
UPSTREAM = UpstreamConfig("quay.io", "https://quay.io", configured=True)
MINE = Caller("Basic mine", anonymous=True)
MANIFEST = json.dumps({"layers": [{"mediaType": "x", "digest": str(LAYER), "size": 5}]}).encode()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Iterator[PermissionGate]:
    table = UpstreamTable.build()
    with contextlib.closing(Origins(lambda: table)) as origins:
        yield PermissionGate(origins, 60.0, clock=clock)


def test_a_manifest_permits_from_when_it_was_asked_for(gate: PermissionGate, clock: Clock) -> None:
    gate.manifest_given(UPSTREAM, REPOSITORY, MANIFEST, MINE, age_s=20.0)
    clock.now_s += 39.0
    assert gate.known(UPSTREAM, REPOSITORY, LAYER, MINE) is not None
    clock.now_s += 1.0
    assert gate.known(UPSTREAM, REPOSITORY, LAYER, MINE) is None


def test_so_does_the_answer_for_a_blob(gate: PermissionGate, clock: Clock) -> None:
    gate.blob_given(UPSTREAM, REPOSITORY, LAYER, 5, MINE, age_s=20.0)
    clock.now_s += 39.0
    assert gate.known(UPSTREAM, REPOSITORY, LAYER, MINE) is not None
    clock.now_s += 1.0
    assert gate.known(UPSTREAM, REPOSITORY, LAYER, MINE) is None
