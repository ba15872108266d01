"""Several ranges in one request, as lazy clients ask: from the store, while they arrive, and from the origin."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from peer.node.blobs import BlobFailed
from proto.ids import Digest
from proto.oci.ranges import RANGES_MAX
from tests.support.fake_origin import Fault, fake_origin
from tests.support.multipart import parts_of
from tests.unit.peer.proxy.harness import Mirror, ScriptedBlob, running_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_origin import FakeOrigin

CONTENT = random.Random(11).randbytes(2 * 1024 * 1024 + 5)
SIZE = len(CONTENT)
PATH = f"/v2/name/blobs/{Digest.of(CONTENT)}"
# In order, touching, and the end.
SEVERAL = f"bytes=10-19,20-29,1000000-1000099,{SIZE - 47}-{SIZE - 1}"
EXPECTED = [
    (f"bytes {start}-{end - 1}/{SIZE}", CONTENT[start:end])
    for start, end in ((10, 20), (20, 30), (1_000_000, 1_000_100), (SIZE - 47, SIZE))
]


@pytest.fixture
def pair() -> Iterator[tuple[FakeOrigin, Mirror]]:
    with fake_origin() as origin, running_mirror(origin.upstream) as mirror:
        origin.add(CONTENT)
        yield origin, mirror


def share(mirror: Mirror, *, available: int | None = None) -> ScriptedBlob:
    blob = mirror.node.blobs[Digest.of(CONTENT)] = ScriptedBlob(
        CONTENT, available=available, complete=available is None
    )
    return blob


def ask(mirror: Mirror, header: str, **headers: str) -> tuple[int, list[tuple[str, bytes]]]:
    lines = [("Range", header), *((name.replace("_", "-"), value) for name, value in headers.items())]
    response, body = mirror.request(PATH, headers=lines)
    assert response.getheader("Content-Length") == str(len(body))
    assert response.getheader("Content-Range") is None
    return response.status, parts_of(response.getheader("Content-Type"), body)


def test_a_stored_blob_gives_each_as_it_was_asked(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    share(mirror)
    assert ask(mirror, SEVERAL) == (206, EXPECTED)
    assert not origin.asked


def test_order_and_overlaps_are_the_clients(pair: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = pair
    share(mirror)
    status, parts = ask(mirror, "bytes=500-599, -3, 550-559")
    assert (status, [content for _, content in parts]) == (206, [CONTENT[500:600], CONTENT[-3:], CONTENT[550:560]])


def test_each_is_waited_for_and_sent_when_it_is_there(pair: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = pair
    blob = share(mirror, available=15)
    with mirror.answering(PATH, [("Range", SEVERAL)]) as answer:
        wait_until(lambda: blob.waited_for[-1:] == [15])
        blob.move(SIZE)
        body = answer.read()
    assert parts_of(answer.getheader("Content-Type"), body) == EXPECTED


def test_what_the_swarm_does_not_bring_comes_from_the_origin(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    blob = share(mirror, available=25)
    with mirror.answering(PATH, [("Range", SEVERAL)]) as answer:
        wait_until(lambda: blob.waited_for[-1:] == [25])
        blob.move(failure=BlobFailed("scripted"))
        body = answer.read()
    assert parts_of(answer.getheader("Content-Type"), body) == EXPECTED
    assert origin.blob_requests()[0].range == "bytes=25-29"


def test_an_origin_that_knows_one_range_at_a_time_gives_all_of_them(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    assert ask(mirror, SEVERAL, Authorization="Bearer mine") == (206, EXPECTED)
    # What touches is one question.
    asked = [each.range for each in origin.asked if each.method == "GET"]
    assert asked == ["bytes=10-29", "bytes=1000000-1000099", f"bytes={SIZE - 47}-{SIZE - 1}"]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_origin_that_cuts_one_is_asked_for_the_rest(pair: tuple[FakeOrigin, Mirror], ranges: bool) -> None:
    origin, mirror = pair
    origin.ranges = ranges
    origin.faults += [Fault(), Fault(cut_after_bytes=13)]
    assert ask(mirror, SEVERAL) == (206, EXPECTED)


def test_an_origin_without_ranges_sends_the_blob_once(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.ranges = False
    assert ask(mirror, SEVERAL) == (206, EXPECTED)
    assert len(origin.blob_requests()) == 1


def test_what_stands_out_of_order_is_all_sent_by_an_origin_without_ranges(pair: tuple[FakeOrigin, Mirror]) -> None:
    origin, mirror = pair
    origin.ranges = False
    response, body = mirror.request(PATH, headers=[("Range", "bytes=500-509,0-9")])
    assert (response.status, body) == (200, CONTENT)


def test_out_of_order_comes_out_of_order(pair: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = pair
    status, parts = ask(mirror, "bytes=500-509,0-9")
    assert (status, [content for _, content in parts]) == (206, [CONTENT[500:510], CONTENT[:10]])


@pytest.mark.parametrize("shared", [True, False])
def test_one_that_is_left_of_several_is_no_multipart(pair: tuple[FakeOrigin, Mirror], shared: bool) -> None:
    _, mirror = pair
    if shared:
        share(mirror)
    response, body = mirror.request(PATH, headers=[("Range", f"bytes=5-9,{SIZE}-")])
    assert (response.status, body, response.getheader("Content-Range")) == (206, CONTENT[5:10], f"bytes 5-9/{SIZE}")


@pytest.mark.parametrize("shared", [True, False])
def test_where_none_is_in_the_blob_its_size_is_told(pair: tuple[FakeOrigin, Mirror], shared: bool) -> None:
    _, mirror = pair
    if shared:
        share(mirror)
    response, _ = mirror.request(PATH, headers=[("Range", f"bytes={SIZE}-,{SIZE + 5}-{SIZE + 6}")])
    assert (response.status, response.getheader("Content-Range")) == (416, f"bytes */{SIZE}")


@pytest.mark.parametrize("shared", [True, False])
def test_too_many_are_refused_so_that_the_client_asks_for_fewer(pair: tuple[FakeOrigin, Mirror], shared: bool) -> None:
    _, mirror = pair
    if shared:
        share(mirror)
    header = "bytes=" + ",".join(f"{at}-{at}" for at in range(0, 2 * RANGES_MAX + 2, 2))
    response, body = mirror.request(PATH, headers=[("Range", header)])
    assert response.status == 400
    assert b"ask for 1024 at most" in body


def test_ranges_of_another_version_are_not_given(pair: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = pair
    share(mirror)
    response, body = mirror.request(PATH, headers=[("Range", SEVERAL), ("If-Range", '"another"')])
    assert (response.status, body) == (200, CONTENT)
    assert ask(mirror, SEVERAL, If_Range=f'"{Digest.of(CONTENT)}"') == (206, EXPECTED)


def test_a_head_has_no_ranges(pair: tuple[FakeOrigin, Mirror]) -> None:
    _, mirror = pair
    share(mirror)
    response, _ = mirror.request(PATH, method="HEAD", headers=[("Range", SEVERAL)])
    assert (response.status, response.getheader("Content-Length")) == (200, str(SIZE))


@pytest.mark.parametrize("told", [SIZE - 100, SIZE + 100])
@pytest.mark.parametrize("header", ["bytes=-50", "bytes=0-9,-50", "bytes=-50,-60"])
def test_where_a_head_told_a_wrong_size_that_of_the_get_counts(
    pair: tuple[FakeOrigin, Mirror], header: str, told: int
) -> None:
    origin, mirror = pair
    origin.always["HEAD"] = Fault(content_length=told)
    response, body = mirror.request(PATH, headers=[("Range", header)])
    if response.status == 200:  # where none of what it told is there
        assert (told, body) == (SIZE + 100, CONTENT)
        return
    assert (response.status, CONTENT[-50:] in body) == (206, True)
    assert f"/{told}" not in f"{response.getheader('Content-Range')} {body!r}"
