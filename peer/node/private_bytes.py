"""Which blobs of the store are not public: whoever gives out bytes asks here first. Safe to use from any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proto.ids import Digest


class PrivateBytes:
    """`on_change` is told the upstreams that a blob's bytes came from privately; none for public ones, or none at all.

    It has to have them on the disk before the store is opened for the blob, or a crash would leave bytes of which
    nobody knows whose they are.
    """

    def __init__(self, on_change: Callable[[Digest, tuple[str, ...]], None] = lambda digest, upstreams: None) -> None:
        self._on_change = on_change
        self._digests: set[Digest] = set()

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._digests

    def found(self, digest: Digest) -> None:
        """In the store at the start."""
        self._digests.add(digest)

    def set(self, digest: Digest, upstreams: tuple[str, ...]) -> None:
        """From these upstreams its bytes come privately."""
        if upstreams:
            self._digests.add(digest)
        elif digest in self._digests:
            self._digests.discard(digest)
        else:
            return
        self._on_change(digest, upstreams)
