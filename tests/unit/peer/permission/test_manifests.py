"""Which blobs a manifest permits."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.permission.manifests import BLOBS_MAX, listed_blobs
from proto.ids import Digest

CONFIG, LAYER, OTHER = (Digest.of(content) for content in (b"config", b"layer", b"other"))


def entry(digest: Digest, size: object = 5, **more: object) -> dict[str, object]:
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": str(digest), "size": size, **more}


def body(**more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": entry(CONFIG, 1), "layers": [entry(LAYER, 2)], **more}).encode()


def test_a_manifest_permits_its_config_and_layers() -> None:
    assert listed_blobs(body()) == [(CONFIG, 1), (LAYER, 2)]


def test_never_its_subject() -> None:
    assert OTHER not in dict(listed_blobs(body(subject=entry(OTHER))))


def test_never_an_index_and_never_what_is_both() -> None:
    assert listed_blobs(json.dumps({"manifests": [entry(OTHER)]}).encode()) == []
    assert listed_blobs(body(manifests=[entry(OTHER)])) == []


def test_never_what_is_foreign_or_not_distributed() -> None:
    layers = [
        entry(OTHER, urls=["https://elsewhere.example/layer"]),
        entry(OTHER, mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        entry(OTHER, mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar"),
    ]
    assert listed_blobs(body(layers=layers)) == [(CONFIG, 1)]


def test_what_makes_no_sense_permits_nothing() -> None:
    layers = [entry(OTHER, size) for size in (-1, True, "5", None, 1.5)] + [{}, None, {"digest": "sha256:x", "size": 1}]
    assert listed_blobs(body(layers=layers, config=[])) == []
    assert listed_blobs(body(layers={})) == []
    assert listed_blobs(body(layers=[entry(OTHER)] * (BLOBS_MAX + 1))) == []


@pytest.mark.parametrize(("filling", "listed"), [(400_000, 1), (600_000, 0)])
def test_what_would_hold_up_the_node_to_read_permits_nothing(filling: int, listed: int) -> None:
    assert len(listed_blobs(body(layers=[entry(OTHER)], annotations={"filling": "x" * filling}, config={}))) == listed


@given(st.binary())
def test_no_bytes_are_an_accident(content: bytes) -> None:
    assert listed_blobs(content) == []
