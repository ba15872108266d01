"""Which layers a manifest names that passes through, and that what is no manifest harms nobody."""

from __future__ import annotations

import gzip
import json

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.processes import wait_until
from peer.proxy.manifests import layers_of
from proto.ids import Digest
from proto.wire.messages import Source
from tests.unit.peer.proxy.harness import Reply, Seen, running_mirror, scripted_origin

FIRST, SECOND = Digest.of(b"first"), Digest.of(b"second")


def manifest(*layers: dict[str, object]) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": {"digest": str(Digest.of(b"config"))}, "layers": layers}).encode()


IMAGE = manifest({"digest": str(FIRST), "size": 5}, {"digest": str(SECOND), "size": 7})


def test_an_images_layers_in_their_order() -> None:
    assert layers_of(IMAGE) == (FIRST, SECOND)


def test_a_layer_that_is_named_twice_counts_once() -> None:
    assert layers_of(manifest({"digest": str(SECOND)}, {"digest": str(FIRST)}, {"digest": str(SECOND)})) == (
        SECOND,
        FIRST,
    )


def test_a_layer_that_lies_elsewhere_is_not_asked_for_here() -> None:
    assert layers_of(manifest({"digest": str(FIRST), "urls": ["https://example.com/x"]}, {"digest": str(SECOND)})) == (
        SECOND,
    )


def test_an_index_of_platforms_names_no_layers() -> None:
    assert layers_of(json.dumps({"schemaVersion": 2, "manifests": [{"digest": str(FIRST)}]}).encode()) == ()


@given(st.binary(max_size=200))
def test_no_body_whatever_raises(body: bytes) -> None:
    layers_of(body)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(str(FIRST)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["digest", "urls", "x"]), inner),
    max_leaves=8,
)


@given(_json)
def test_layers_of_any_shape_name_digests_or_nothing(layers: object) -> None:
    assert all(isinstance(layer, Digest) for layer in layers_of(json.dumps({"layers": layers}).encode()))


def test_a_client_that_reads_a_manifest_has_its_layers_told_before_it_can_ask() -> None:
    with scripted_origin(lambda _: Reply(200, [], IMAGE)) as origin, running_mirror(origin.upstream) as mirror:
        _, body = mirror.request("/v2/library/app/manifests/latest")
        wait_until(lambda: mirror.images == [(Source(origin.upstream.host, "library/app"), (FIRST, SECOND))])
    assert body == IMAGE


def test_what_is_refused_packed_or_another_kind_of_answer_is_not_read() -> None:
    def answer(seen: Seen) -> Reply:
        if seen.target.endswith("packed"):
            return Reply(200, [("Content-Encoding", "gzip")], gzip.compress(IMAGE))
        return Reply(404 if seen.target.endswith("refused") else 200, [], IMAGE)

    with scripted_origin(answer) as origin, running_mirror(origin.upstream) as mirror:
        for path in ("manifests/packed", "manifests/refused", "tags/list"):
            mirror.request(f"/v2/library/app/{path}")
        mirror.request("/v2/library/app/manifests/last")
        wait_until(lambda: len(mirror.images) == 1)


def test_a_manifest_of_unlikely_length_passes_unread() -> None:
    long = manifest({"digest": str(FIRST), "annotations": {"x": "y" * 200_000}})
    with scripted_origin(lambda _: Reply(200, [], long)) as origin, running_mirror(origin.upstream) as mirror:
        _, body = mirror.request("/v2/library/app/manifests/long")
        mirror.request("/v2/library/app/manifests/long", method="HEAD")
        assert mirror.images == []
    assert body == long
