"""Blobs that are sent from memory, so that the bytes that were compared are the ones that leave."""

from __future__ import annotations

import contextlib
import http.client
import random
from typing import TYPE_CHECKING, cast

import pytest

from benchmarks.cluster.processes import WAIT_S, wait_until
from peer.proxy.checked_sending import CheckedSending
from proto.ids import Digest
from proto.pieces import KIB, MIB
from tests.support.fake_origin import fake_origin
from tests.unit.peer.proxy.harness import Mirror, ScriptedBlob, _Handle, running_mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.proxy.client_socket import ClientSocket
    from peer.store.base import BlobHandle

PIECE = 256 * KIB


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with fake_origin() as origin, running_mirror(origin.upstream) as running:
        yield running


def share(mirror: Mirror, size_bytes: int) -> ScriptedBlob:
    blob = ScriptedBlob(random.Random(size_bytes).randbytes(size_bytes))
    blob.checked_every_time = True
    mirror.node.blobs[Digest.of(blob.content)] = blob
    return blob


def path_of(blob: ScriptedBlob) -> str:
    return f"/v2/library/app/blobs/{Digest.of(blob.content)}"


def counted(blob: ScriptedBlob) -> list[int]:
    """The pieces that are read from now on."""
    read: list[int] = []

    def read_checked(piece: int) -> memoryview:
        read.append(piece)
        return blob.piece(piece)

    blob.read_checked = read_checked
    return read


@pytest.mark.parametrize("size_bytes", [1, PIECE, 3 * MIB + 5])
def test_all_of_it_comes(mirror: Mirror, size_bytes: int) -> None:
    blob = share(mirror, size_bytes)
    assert mirror.request(path_of(blob))[1] == blob.content


def test_a_range_comes_of_the_pieces_that_it_touches(mirror: Mirror) -> None:
    blob = share(mirror, 3 * MIB)
    read = counted(blob)
    _, body = mirror.request(path_of(blob), headers=[("Range", f"bytes={PIECE + 7}-{3 * PIECE}")])
    assert (body, read) == (blob.content[PIECE + 7 : 3 * PIECE + 1], [1, 2, 3])


def test_what_is_written_to_the_file_before_the_client_has_read_changes_nothing(mirror: Mirror) -> None:
    """With sendfile the socket holds the file's own pages, and the client reads what they are then."""
    blob = share(mirror, MIB)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=WAIT_S)) as connection:
        connection.request("GET", path_of(blob))
        wait_until(lambda: mirror.counted("layercast_client_bytes_total", **{"from": "store"}) == MIB)
        blob.file.seek(0)
        blob.file.write(bytes(MIB))
        blob.file.flush()
        assert connection.getresponse().read() == blob.content


def test_a_piece_that_is_found_rotten_is_asked_for_until_it_is_right(mirror: Mirror) -> None:
    blob = share(mirror, MIB)
    answers = iter([None, None])
    blob.read_checked = lambda piece: next(answers, blob.piece(piece)) if piece == 2 else blob.piece(piece)
    assert mirror.request(path_of(blob))[1] == blob.content


class SlowClient:
    """Stands for a ClientSocket that takes a third of a piece, then nothing until it was waited for."""

    def __init__(self) -> None:
        self.got = b""
        self._full = False

    async def run(self, function: Callable[..., object], *arguments: object) -> object:
        return function(*arguments)

    def send_some(self, content: memoryview) -> int:
        if self._full:
            return 0
        self._full = True
        part = bytes(content[: PIECE // 3])
        self.got += part
        return len(part)

    async def writable(self) -> None:
        self._full = False


@pytest.mark.asyncio
@pytest.mark.parametrize(("kept_bytes_max", "reads"), [(PIECE, 1), (PIECE - 1, 4)])
async def test_where_memory_is_short_a_slow_client_has_its_piece_read_again(kept_bytes_max: int, reads: int) -> None:
    blob = ScriptedBlob(random.Random(5).randbytes(PIECE))
    read = counted(blob)
    client, sending = SlowClient(), CheckedSending(kept_bytes_max)
    while len(client.got) < PIECE:
        handle = cast("BlobHandle", _Handle(blob))
        await sending.send(cast("ClientSocket", client), handle, len(client.got), PIECE, lambda _: None)
    assert (client.got, len(read)) == (blob.content, reads)
    blob.file.close()
