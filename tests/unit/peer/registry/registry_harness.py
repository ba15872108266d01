"""What the tests of the registry reader share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from peer.registry.client import OriginHttp
from peer.registry.connection import OriginTimeouts
from peer.registry.reader import RegistryReader
from proto.errors import UpstreamError
from proto.oci.upstreams import UpstreamTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.registry.blob_response import BlobResponse
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
