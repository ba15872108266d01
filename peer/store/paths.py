"""Where a store keeps its files, whose it is, and which schema it has. Knows names and locks, nothing of pieces.

    schema                     "1": the layout described here
    lock                       flock'ed by the process that uses the store
    kept                       blobs that are not to be evicted (peer.store.kept)
    blobs/ALG/ab/HEX           a complete blob, nothing but its bytes
    partial/ALG/ab/HEX         one that is still arriving (sparse)
    meta/ALG/ab/HEX.json       size, piece size, boot id; its mtime is the blob's last use
    meta/ALG/ab/HEX.hashes     piece hashes and who signed them, appended (peer.store.hashes)
    meta/ALG/ab/HEX.held       one bit a piece, only while the blob is partial

Another schema than ours is refused; there is none older.
"""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peer.store.files import DIR_MODE, FILE_MODE, replace, sync
from proto.errors import ConfigError, DigestInvalid
from proto.ids import HEX_LENGTHS, Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA: Final = 1
_KINDS: Final = ("blobs", "partial", "meta")

log = logging.getLogger(__name__)


def unusable(root: Path, error: OSError) -> ConfigError:
    """Names the very file: one that another user made, or that stands where a folder is expected."""
    return ConfigError(
        f"store {root}: {error.filename or root}: {error.strerror}; look after it, or name another folder"
    )


@dataclass(frozen=True, slots=True)
class BlobPaths:
    """The files of one blob."""

    complete: Path
    partial: Path
    meta: Path
    hashes: Path
    held: Path

    def make_folders(self) -> None:
        """The folders above the files, open to this user alone."""
        for path in (self.complete, self.partial, self.meta):
            path.parent.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)

    def unlink_all(self) -> None:
        """The meta file goes first: without it the rest counts for nothing after a crash in between."""
        for path in (self.meta, self.held, self.hashes, self.partial, self.complete):
            path.unlink(missing_ok=True)

    def touch(self, now_ns: int) -> None:
        """The blob was used now: the order of eviction after a restart. Raises OSError."""
        os.utime(self.meta, ns=(now_ns, now_ns))

    def last_use_ns(self) -> int:
        """Raises OSError."""
        return self.meta.stat().st_mtime_ns


class StoreRoot:
    """The folder of one store, locked for this process until close()."""

    def __init__(self, root: Path) -> None:
        """Make or take the folder. Raises ConfigError: unusable, in use, or of another schema."""
        self.root: Final = root
        try:
            root.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
            self._lock_fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise ConfigError(f"store {root}: {error.strerror}; name a folder this user may write") from None
        try:
            self._take_lock()
            self._check_schema()
            self._make_kinds()
        except OSError as error:
            os.close(self._lock_fd)
            raise unusable(root, error) from None
        except BaseException:
            os.close(self._lock_fd)
            raise

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock_fd)

    def of(self, digest: Digest) -> BlobPaths:
        """The files of a blob, there or not."""
        # Each path is taken apart once: this is done for every small layer.
        name = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"
        return BlobPaths(
            complete=Path(f"{self.root}/blobs/{name}"),
            partial=Path(f"{self.root}/partial/{name}"),
            meta=Path(f"{self.root}/meta/{name}.json"),
            hashes=Path(f"{self.root}/meta/{name}.hashes"),
            held=Path(f"{self.root}/meta/{name}.held"),
        )

    def digests(self) -> Iterator[Digest]:
        """Every blob that has a meta file."""
        for path in sorted((self.root / "meta").glob("*/*/*.json")):
            digest = _digest_of(path, ".json")
            if digest is not None:
                yield digest

    def remove_orphans(self, known: set[Digest]) -> None:
        """Delete files that a crash left behind without a meta file."""
        for kind in _KINDS:
            for path in (self.root / kind).glob("*/*/*"):
                digest = _digest_of(path, *(() if kind != "meta" else (".json", ".hashes", ".held")))
                if digest is None or digest not in known:
                    log.info("store: removing the orphan %s/%s", kind, path.name[:12])
                    path.unlink(missing_ok=True)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"store {self.root} is in use by another process: stop it or name another folder"
            ) from None

    def _check_schema(self) -> None:
        path = self.root / "schema"
        try:
            text = path.read_text("ascii").strip()
        except FileNotFoundError:
            self._begin(path)
            return
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"store {self.root}: its schema file cannot be read ({error})") from None
        if not text.isdecimal():
            raise ConfigError(f"store {self.root}: schema {text[:20]!r} is no number; is this folder a store?")
        if int(text) != SCHEMA:
            raise ConfigError(f"store {self.root} has schema {text}, ours is {SCHEMA}: use a newer Layercast")

    def _begin(self, path: Path) -> None:
        """Only in a folder that holds nothing foreign: what is below it will be deleted some day."""
        foreign = sorted(entry.name for entry in self.root.iterdir() if entry.name not in ("lock", "schema"))
        if foreign:
            raise ConfigError(f"store {self.root} holds {foreign[0]!r} and no schema file: name an empty folder")
        replace(path, f"{SCHEMA}\n".encode())
        sync(path)

    def _make_kinds(self) -> None:
        for kind in _KINDS:
            (self.root / kind).mkdir(mode=DIR_MODE, exist_ok=True)
            for algorithm in HEX_LENGTHS:
                (self.root / kind / algorithm).mkdir(mode=DIR_MODE, exist_ok=True)


def _digest_of(path: Path, *suffixes: str) -> Digest | None:
    name = path.name
    if suffixes:
        if path.suffix not in suffixes:
            return None
        name = path.stem
    try:
        return Digest.parse(f"{path.parent.parent.name}:{name}")
    except DigestInvalid:
        return None
