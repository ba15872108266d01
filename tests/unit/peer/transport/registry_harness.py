"""What the tests of the registry reader share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from peer.transport.origin_connection import OriginTimeouts
from peer.transport.origin_http import OriginHttp
from peer.transport.registry import RegistryReader
from proto.errors import UpstreamError
from proto.upstreams import UpstreamTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.transport.blob_response import BlobResponse
    from tests.support.fake_origin import FakeOrigin

CONTENT = bytes(range(256)) * 1000


@contextlib.contextmanager
def reading(*origins: FakeOrigin, read_s: float = 5.0) -> Iterator[RegistryReader]:
    table = UpstreamTable.build(sections=[origin.upstream for origin in origins])
    http = OriginHttp(OriginTimeouts(connect_s=5.0, read_s=read_s))
    reader = RegistryReader(lambda: table, http)
    try:
        yield reader
    finally:
        reader.close()


def read_all(response: BlobResponse) -> bytes:
    received = bytearray()
    buffer = bytearray(10_000)
    with response:
        while count := response.readinto(memoryview(buffer)):
            received += buffer[:count]
    return bytes(received)


def read_on(response: BlobResponse, buffer: memoryview) -> None:
    while response.readinto(buffer):
        pass


def refused(call: Callable[[], object]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        call()
    return caught.value
