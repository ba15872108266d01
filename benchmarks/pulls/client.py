"""A bare client of a registry: GET one blob, time its first byte and its end, check its digest. No retries, no store.

Also a program (`python -m benchmarks.pulls.client HOST:PORT REPOSITORY DIGEST`), to be run in a network namespace.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import time
from dataclasses import asdict, dataclass

_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class BlobPull:
    """One pull; times are seconds from the request, `ended_at_s` is on the machine's monotonic clock."""

    first_byte_s: float
    elapsed_s: float
    ended_at_s: float
    size_bytes: int
    digest_right: bool


def pull_blob(address: str, repository: str, digest: str, timeout_s: float = 600.0) -> BlobPull:
    """GET the blob at HOST:PORT. Raises OSError or http.client.HTTPException for a pull that fails."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    hasher = hashlib.new(digest.partition(":")[0])
    try:
        connection.connect()
        started_s = time.monotonic()
        connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        response = connection.getresponse()
        if response.status != 200:
            raise http.client.HTTPException(f"{address} answered {response.status} for {digest[:19]}")
        first = response.read(1)
        first_byte_s = time.monotonic() - started_s
        hasher.update(first)
        size_bytes = len(first)
        while count := response.readinto(buffer):
            hasher.update(buffer[:count])
            size_bytes += count
        ended_at_s = time.monotonic()
    finally:
        connection.close()
    right = hasher.hexdigest() == digest.partition(":")[2]
    return BlobPull(first_byte_s, ended_at_s - started_s, ended_at_s, size_bytes, right)


def main() -> None:
    """Pull one blob and print the figures as JSON."""
    address, repository, digest = sys.argv[1:]
    print(json.dumps(asdict(pull_blob(address, repository, digest))))


if __name__ == "__main__":
    main()
