"""A light client that pulls blobs through a peer's mirror, in a thread, and notes everything about the answer.

For the tests in which the client itself does not matter; real clients are in tests.support.clients.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.cluster.processes import WAIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.cluster.image import Image

REPOSITORY = "library/random"
_READ_BYTES = 64 << 10
# Beyond what a busy machine takes for any pull of these tests.
PATIENCE_S = 2 * WAIT_S
# The manifests that clients take.
ACCEPTED = {"Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"}


@dataclass(slots=True)
class Answer:
    """What a client got. `status` 0: no answer at all; `error` says how the connection failed, if it did."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    received_bytes: int = 0
    sha256: str = ""
    # The start of the body: an error's document.
    start: bytes = b""
    error: str = ""
    headers_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def complete(self) -> bool:
        """Every announced byte came."""
        length = self.headers.get("content-length")
        return self.status in (200, 206) and not self.error and length == str(self.received_bytes)


class Pull:
    """One GET in a thread of its own, from construction on; a context manager, which hangs up and joins.

    `proxy` is HOST:PORT. `target` is asked for as it stands; `blob_target` makes one.
    """

    def __init__(
        self, proxy: str, target: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = PATIENCE_S
    ) -> None:
        self.answer = Answer()
        self._connection = http.client.HTTPConnection(proxy, timeout=timeout_s)
        self._connection.connect()
        self._socket = self._connection.sock
        self._target = target
        self._headers = dict(headers or {})
        self._thread = threading.Thread(target=self._run, name="pull")
        self._thread.start()

    def __enter__(self) -> Pull:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def _run(self) -> None:
        answer, started_s = self.answer, time.monotonic()
        hasher = hashlib.sha256()
        try:
            self._connection.request("GET", self._target, headers=self._headers)
            response = self._connection.getresponse()
            answer.headers_s = time.monotonic() - started_s
            answer.headers = {name.lower(): value for name, value in response.getheaders()}
            answer.status = response.status
            with response:
                while chunk := response.read1(_READ_BYTES):
                    hasher.update(chunk)
                    answer.start = answer.start or chunk[:4096]
                    answer.received_bytes += len(chunk)
        except (OSError, http.client.HTTPException) as error:
            answer.error = f"{type(error).__name__}: {error}"
        finally:
            self._connection.close()
            answer.sha256 = f"sha256:{hasher.hexdigest()}"
            answer.elapsed_s = time.monotonic() - started_s

    def wait_for_bytes(self, size_bytes: int, timeout_s: float = PATIENCE_S) -> None:
        """Wait until that much of the body came. Raises ProcessError."""
        wait_until(lambda: self.answer.received_bytes >= size_bytes, f"{size_bytes} bytes of the pull", timeout_s)

    @property
    def running(self) -> bool:
        """Whether the answer is still on its way."""
        return self._thread.is_alive()

    def result(self, timeout_s: float = PATIENCE_S) -> Answer:
        """The answer, when it has ended. Fails the test if it takes longer."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"pull not done within {timeout_s:g} s: {self.answer}"
        return self.answer

    def hang_up(self) -> None:
        """Go away in the middle, as a client does that is killed: what it has not read is refused with a reset.

        A shutdown alone leaves what the thread then drains in doubt: the other end may find the window closed and no
        reset, and wait until the kernel forgets this half-closed end.
        """
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def blob_target(digest: str, repository: str = REPOSITORY) -> str:
    """The path of a blob."""
    return f"/v2/{repository}/blobs/{digest}"


def manifest_target(reference: str, repository: str = REPOSITORY) -> str:
    """The path of a manifest, by tag or digest."""
    return f"/v2/{repository}/manifests/{reference}"


def start_pull(proxy: str, digest: str, *, timeout_s: float = PATIENCE_S) -> Pull:
    """Begin to pull a blob through the mirror at HOST:PORT."""
    return Pull(proxy, blob_target(digest), timeout_s=timeout_s)


def pull(proxy: str, digest: str, *, timeout_s: float = PATIENCE_S) -> Answer:
    """Pull a blob to the end."""
    with start_pull(proxy, digest, timeout_s=timeout_s) as running:
        return running.result(timeout_s + 5.0)


def get(proxy: str, target: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = PATIENCE_S) -> Answer:
    """GET anything to the end."""
    with Pull(proxy, target, headers=headers, timeout_s=timeout_s) as running:
        return running.result(timeout_s + 5.0)


def pull_image(proxy: str, image: Image, repository: str, headers: Mapping[str, str]) -> list[Answer]:
    """As docker does: what the tag names, the platform's manifest, then config and layers."""
    targets = [manifest_target("latest", repository), manifest_target(image.manifest.digest, repository)]
    targets += [blob_target(blob.digest, repository) for blob in image.blobs]
    return [get(proxy, target, headers=headers) for target in targets]
