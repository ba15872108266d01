"""What an image is, as its registry says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from peer.registry.origins import Origins
from proto.oci.upstreams import UpstreamTable
from supernode.jobs.job import JobSpec
from supernode.jobs.resolution import Resolver, Unresolved
from tests.support.image_of_fakes import REPOSITORY, TAG, image_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio


@pytest.fixture
def resolver(origin: FakeOrigin) -> Iterator[Resolver]:
    table = UpstreamTable.build(sections=[origin.upstream])
    origins = Origins(lambda: table)
    yield Resolver(origins, lambda upstream: False)
    origins.close()


async def test_an_image_of_one_manifest_is_that_its_config_and_its_layers(
    origin: FakeOrigin, resolver: Resolver
) -> None:
    image = image_at(origin, 100, 200)
    found = await resolver.resolve(JobSpec(image.name))
    assert found.digest == str(image.manifests[0])
    assert {blob.digest: blob.size_bytes for blob in found.blobs} == {
        str(digest): len(content) for digest, content in image.content.items()
    }
    assert [blob.digest for blob in found.blobs if blob.manifest] == [str(image.manifests[0])]


async def test_of_an_index_every_platform_comes(origin: FakeOrigin, resolver: Resolver) -> None:
    image = image_at(origin, 100, architectures=("amd64", "arm64"))
    found = await resolver.resolve(JobSpec(image.name))
    assert {blob.digest for blob in found.blobs} == set(map(str, image.content))


async def test_of_an_index_the_platforms_that_are_named_come(origin: FakeOrigin, resolver: Resolver) -> None:
    image = image_at(origin, 100, architectures=("amd64", "arm64"))
    found = await resolver.resolve(JobSpec(image.name, ("linux/arm64",)))
    manifests = {blob.digest for blob in found.blobs if blob.manifest}
    assert manifests == {str(image.manifests[0]), str(image.manifests[2])}


async def test_a_digest_is_taken_by_its_word(origin: FakeOrigin, resolver: Resolver) -> None:
    image = image_at(origin, 100)
    name = f"{origin.authority}/{REPOSITORY}@{image.manifests[0]}"
    assert (await resolver.resolve(JobSpec(name))).digest == str(image.manifests[0])


async def test_a_registry_that_sends_another_manifest_is_not_believed(origin: FakeOrigin, resolver: Resolver) -> None:
    image = image_at(origin, 100)
    origin.blobs[str(image.manifests[0])] = b"{}"
    with pytest.raises(Unresolved, match="something else") as refused:
        await resolver.resolve(JobSpec(f"{origin.authority}/{REPOSITORY}@{image.manifests[0]}"))
    assert not refused.value.lasting


@pytest.mark.parametrize(
    ("name", "platforms", "said"),
    [
        (f"{{}}/{REPOSITORY}:other", (), "404"),
        (f"{{}}/{REPOSITORY}:{TAG}", ("linux/riscv64",), "not built for linux/riscv64"),
        (f"registry.elsewhere/{REPOSITORY}:{TAG}", (), "registry.elsewhere"),
    ],
)
async def test_what_is_not_there_will_not_be_later(
    origin: FakeOrigin, resolver: Resolver, name: str, platforms: tuple[str, ...], said: str
) -> None:
    image_at(origin, 100, architectures=("amd64",))
    with pytest.raises(Unresolved, match=said) as refused:
        await resolver.resolve(JobSpec(name.format(origin.authority), platforms))
    assert refused.value.lasting


@pytest.mark.parametrize(
    "manifest",
    [
        b'{"layers": [], "more": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"config": {"digest": "sha256:%s", "size": %d}, "layers": []}' % (b"0" * 64, 1 << 64),
    ],
    ids=["nested", "huge"],
)
async def test_what_anybody_may_push_is_read_within_limits(
    origin: FakeOrigin, resolver: Resolver, manifest: bytes
) -> None:
    image = image_at(origin)
    child = {"digest": str(origin.add(manifest)), "size": len(manifest), "platform": {"os": "linux"}}
    origin.blobs[TAG] = json.dumps({"manifests": [child]}).encode()
    with pytest.raises(Unresolved) as refused:
        await resolver.resolve(JobSpec(image.name))
    assert refused.value.lasting
