"""A light client that reads ranges of a blob through a peer's mirror, as lazy clients do."""

from __future__ import annotations

import contextlib
import http.client
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import WAIT_S
from tests.support.multipart import parts_of
from tests.support.pullers import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_ranges(
    proxy: str,
    digest: str,
    *ranges: tuple[int, int],
    repository: str = REPOSITORY,
    headers: Mapping[str, str] | None = None,
) -> list[bytes]:
    """The bytes [start, end) of each range, all in one request. An assertion fails if it is answered otherwise."""
    status, answer = ask(proxy, digest, *ranges, repository=repository, headers=headers)
    assert status == 206, status
    return answer


def ask(
    proxy: str,
    digest: str,
    *ranges: tuple[int, int],
    repository: str = REPOSITORY,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, list[bytes]]:
    """The status, and of a 206 the bytes of each range."""
    asked = ",".join(f"{start}-{end - 1}" for start, end in ranges)
    with contextlib.closing(http.client.HTTPConnection(proxy, timeout=2 * WAIT_S)) as connection:
        path = f"/v2/{repository}/blobs/{digest}"
        connection.request("GET", path, headers={**(headers or {}), "Range": f"bytes={asked}"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 206:
            return answer.status, []
        if len(ranges) == 1:
            return 206, [body]
        return 206, [content for _, content in parts_of(answer.getheader("Content-Type"), body)]
