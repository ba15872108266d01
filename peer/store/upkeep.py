"""A service's store, and what keeps it sound while it runs: the scrub, the operator's commands verify, evict and gc.

A command blocks until it is done.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from peer.store.disk import DiskStore
from peer.store.scrub import Scrub
from proto.errors import LocalError
from proto.ids import Digest
from proto.pieces import indices
from proto.runtime.operator_socket import OperatorSocket

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from proto.config.service_settings import ServiceSettings
    from proto.runtime.operator_socket import OperatorCommand

# Exit code, as of a pull whose digest did not match.
ROTTEN: Final = 3
_MIB: Final = 1 << 20


def open_store(data_dir: Path, settings: ServiceSettings) -> DiskStore:
    """The store of a service. Raises ConfigError."""
    return DiskStore(
        data_dir / "store",
        size_limit_bytes=settings.store_size_bytes,
        free_floor_bytes=settings.store_free_floor_bytes,
        verify_after_s=settings.verify_after_s,
    )


def begin(
    store: DiskStore,
    data_dir: Path,
    settings: ServiceSettings,
    refetched: str,
    closing: contextlib.ExitStack,
    further: Mapping[str, OperatorCommand] | None = None,
) -> None:
    """Until `closing` is closed. Not before the listeners of `store` are there. `further` are commands of the service
    beside the store's. Raises LocalError.
    """
    scrub = Scrub(store, interval_s=settings.scrub_interval_s, rate_bytes_s=settings.scrub_rate_bytes_s)
    closing.callback(scrub.close)
    upkeep = Upkeep(store, refetched)
    operator = OperatorSocket(data_dir, {**upkeep.commands, **(further or {})})
    closing.callback(operator.close)
    closing.callback(upkeep.stop)


class Upkeep:
    """Commands of proto.runtime.operator_socket. stop() has a verification end after the piece in hand."""

    def __init__(self, store: DiskStore, refetched: str) -> None:
        """`refetched` says when what is dropped is fetched again."""
        self._store = store
        self._refetched = refetched
        self._stopped = False

    @property
    def commands(self) -> dict[str, OperatorCommand]:
        """By name."""
        return {"verify": self.verify, "evict": self.evict, "gc": self.gc}

    def stop(self) -> None:
        """The service ends."""
        self._stopped = True

    def verify(self, argument: str, say: Callable[[str], None]) -> tuple[str, int]:
        """Read one blob, or every blob, and drop what does not match. Raises LocalError, DigestInvalid."""
        if argument:
            digests = [Digest.parse(argument)]
            if all(stored.digest != digests[0] for stored in self._store.inventory()):
                raise LocalError(f"blob {argument} is not in the store {self._store.root}")
        else:
            digests = [stored.digest for stored in self._store.inventory()]
        read_bytes = rotten = 0
        for digest in digests:
            size_bytes, lost = self._verify(digest)
            read_bytes, rotten = read_bytes + size_bytes, rotten + lost
            if lost:
                say(f"{digest}: {lost} {_pieces(lost)} rotten and dropped; {self._refetched}")
        found = f"{rotten} {_pieces(rotten)} rotten" if rotten else "all as they should be"
        return f"verified {len(digests)} blobs, {read_bytes / _MIB:.1f} MiB: {found}", ROTTEN if rotten else 0

    def _verify(self, digest: Digest) -> tuple[int, int]:
        """Bytes read, and how many pieces were rotten."""
        handle = self._store.get(digest, used=False)
        if handle is None:
            return 0, 0  # it was evicted meanwhile
        try:
            held, lost = handle.held, 0
            for piece in indices(held):
                if self._stopped:
                    raise LocalError("the service is stopping: verify again after its start")
                lost |= handle.check_pieces(1 << piece, "operator")
            return handle.layout.bytes_in(held), lost.bit_count()
        finally:
            handle.close()

    def evict(self, argument: str, say: Callable[[str], None]) -> tuple[str, int]:
        """Delete one blob. Raises LocalError, also for one that is in use, and DigestInvalid."""
        digest = Digest.parse(argument)
        sizes = {stored.digest: stored.layout.size_bytes for stored in self._store.inventory()}
        if digest not in sizes:
            raise LocalError(f"blob {digest} is not in the store {self._store.root}")
        if digest in self._store.kept:
            raise LocalError(f"blob {digest} is kept: `layercast keeps --drop` at the supernode lets it go")
        if not self._store.remove(digest):
            raise LocalError(f"blob {digest} is in use: somebody reads it or fetches it; try again later")
        return f"evicted {digest}, {sizes[digest] / _MIB:.1f} MiB", 0

    def gc(self, argument: str, say: Callable[[str], None]) -> tuple[str, int]:
        """Delete what nobody used for so many seconds; `SECONDS dry-run`: say what that would be.

        What is kept or in use stays. Raises LocalError.
        """
        seconds, _, dry_run = argument.partition(" ")
        count = freed_bytes = 0
        for blob in self._store.unused(time.time() - float(seconds)):
            if self._stopped:
                break
            if dry_run or self._store.remove(blob.digest):
                count += 1
                freed_bytes += blob.layout.bytes_in(blob.held)
                say(f"{blob.digest} {blob.layout.bytes_in(blob.held) / _MIB:.1f} MiB")
        done = "would evict" if dry_run else "evicted"
        return f"{done} {count} blobs, {freed_bytes / _MIB:.1f} MiB; {len(self._store.kept)} blobs are kept", 0


def _pieces(count: int) -> str:
    return "piece was" if count == 1 else "pieces were"
