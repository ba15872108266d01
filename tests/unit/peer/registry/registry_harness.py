"""What the tests of a registry as an origin share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.registry.base import ANYONE, Caller
from peer.registry.client import OriginHttp
from peer.registry.origins import Origins
from peer.registry.sockets import OriginTimeouts
from peer.transport.cancellation import Cancellation
from proto.errors import UpstreamError
from proto.oci.upstreams import UpstreamTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.registry.base import BlobBody
    from proto.ids import Digest
    from proto.oci.upstreams import UpstreamConfig
    from tests.support.fake_origin import FakeOrigin

CONTENT = bytes(range(256)) * 1000


class Reader:
    """Asks registries for blobs of the repository `name`."""

    def __init__(self, upstreams: list[UpstreamConfig], http: OriginHttp | None = None) -> None:
        table = UpstreamTable.build(sections=upstreams)
        self._origins = Origins(lambda: table, http=http)

    def open(
        self,
        upstream: UpstreamConfig,
        digest: Digest,
        start: int = 0,
        end: int | None = None,
        *,
        authorization: str | None = None,
        cancel: Cancellation | None = None,
        lines: tuple[tuple[str, str], ...] = (),
    ) -> BlobBody:
        origin = self._origins.of(upstream)
        return origin.open_range(
            "name", digest, start, end, Caller(authorization, lines=lines), cancel or Cancellation()
        )

    def stat(self, upstream: UpstreamConfig, digest: Digest) -> int | None:
        """As anyone."""
        return self._origins.of(upstream).stat("name", digest, ANYONE, Cancellation())

    def close(self) -> None:
        self._origins.close()


@contextlib.contextmanager
def reading(*origins: FakeOrigin, read_s: float = WAIT_S) -> Iterator[Reader]:
    http = OriginHttp(OriginTimeouts(connect_s=WAIT_S, tls_s=WAIT_S, read_s=read_s))
    with contextlib.closing(Reader([origin.upstream for origin in origins], http)) as reader:
        yield reader


def read_all(response: BlobBody) -> bytes:
    received = bytearray()
    buffer = bytearray(10_000)
    with response:
        while count := response.readinto(memoryview(buffer)):
            received += buffer[:count]
    return bytes(received)


def read_on(response: BlobBody, buffer: memoryview) -> None:
    while response.readinto(buffer):
        pass


def refused(call: Callable[[], object]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        call()
    return caught.value
