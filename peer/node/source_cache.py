"""At which origins stored blobs were public, so that they can be announced again after a restart; and whose bytes the
private ones are, so that no other origin's word unlocks them.

SQLite with a schema version, written by one thread, many entries at a time: nobody waits for them. It gives no
permission: what is public is asked anew. A damaged file is set aside and begun anew, for nothing in it is worth failing
a pull.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from proto.errors import ConfigError, DigestInvalid
from proto.ids import Digest
from proto.wire.messages import Source

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)

# 2 has private blobs, which an older release would give to whomever some origin allows; 3 manifests, too.
SCHEMA_VERSION: Final = 3
SOURCES_PER_BLOB_MAX: Final = 8
_TABLES: Final = ("sources", "private_bytes")


class SourceCache:
    """Open on construction. Raises ConfigError where the folder cannot be written, or a newer release wrote it."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection = _open(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            logger.warning("state_set_aside %s: %s", path, error)
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    path.with_name(path.name + suffix).replace(path.with_name(path.name + suffix + ".damaged"))
            try:
                self._connection = _open(path)
            except sqlite3.Error as again:
                raise ConfigError(f"state file {path}: {again}; make its folder writable") from None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._waiting: deque[tuple[str, tuple[str | bool, ...]]] = deque()

    def load(self) -> dict[Digest, tuple[Source, ...]]:
        """Everything, latest source first. Call before the first remember()."""
        found: dict[Digest, tuple[Source, ...]] = {}
        rows = self._connection.execute("SELECT digest, upstream, repository, manifest FROM sources ORDER BY seen DESC")
        for text, upstream, repository, manifest in rows:
            with contextlib.suppress(DigestInvalid):
                digest = Digest.parse(text)
                earlier = found.get(digest, ())
                if len(earlier) < SOURCES_PER_BLOB_MAX:
                    found[digest] = (*earlier, Source(upstream, repository, bool(manifest)))
        return found

    def load_private(self) -> dict[Digest, tuple[str, ...]]:
        """The upstreams that private blobs came from. Call before the first keep_private()."""
        found: dict[Digest, tuple[str, ...]] = {}
        for text, upstream in self._connection.execute("SELECT digest, upstream FROM private_bytes"):
            with contextlib.suppress(DigestInvalid):
                digest = Digest.parse(text)
                found[digest] = (*found.get(digest, ()), upstream)
        return found

    def keep_private(self, digest: Digest, upstreams: tuple[str, ...]) -> None:
        """The blob's bytes come privately from there; from nowhere: they are public, or gone. Written at once."""
        self._waiting.append(("DELETE FROM private_bytes WHERE digest = ?", (str(digest),)))
        for upstream in upstreams:
            self._waiting.append(("INSERT OR IGNORE INTO private_bytes VALUES (?, ?)", (str(digest), upstream)))
        if upstreams:
            self._waiting.append(("DELETE FROM sources WHERE digest = ?", (str(digest),)))
        self.write_waiting()

    def remember(self, digest: Digest, source: Source) -> None:
        """The blob is public there. It is written with the next write_waiting()."""
        self._waiting.append(
            (
                "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, (SELECT coalesce(max(seen), 0) + 1 FROM sources), ?)",
                (str(digest), source.upstream, source.repository, source.manifest),
            )
        )

    def forget(self, digest: Digest) -> None:
        """The blob left the store. As remember(), from any thread; after close() at the next start."""
        for table in _TABLES:
            self._waiting.append((f"DELETE FROM {table} WHERE digest = ?", (str(digest),)))

    def write_waiting(self) -> None:
        """Write what was remembered and forgotten since, if anything. Returns at once; to be called now and then."""
        if self._waiting:
            self._thread.submit(self._write)

    def keep_only(self, digests: Iterable[Digest]) -> None:
        """Drop what is no longer in the store."""
        stored = set(map(str, digests))
        for table in _TABLES:
            known = [row[0] for row in self._connection.execute(f"SELECT DISTINCT digest FROM {table}")]
            gone = [(digest,) for digest in known if digest not in stored]
            with self._connection:
                self._connection.executemany(f"DELETE FROM {table} WHERE digest = ?", gone)

    def close(self) -> None:
        """Write what is queued, join the thread."""
        self.write_waiting()
        self._thread.shutdown(wait=True)
        self._connection.close()

    def _write(self) -> None:
        try:
            with self._connection:
                while self._waiting:
                    self._connection.execute(*self._waiting.popleft())
        except sqlite3.Error as error:
            logger.error("state_not_written %s", error)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise ConfigError(f"state file {path} has schema {version}, this release knows {SCHEMA_VERSION}: upgrade")
        connection.execute("PRAGMA journal_mode = WAL")
        # Losing the last entries, those of the last second in any crash, costs a question to the origin, no more.
        connection.execute("PRAGMA synchronous = OFF")
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS sources (digest TEXT, upstream TEXT, repository TEXT, seen INTEGER,"
                " PRIMARY KEY (digest, upstream, repository)) WITHOUT ROWID"
            )
            if "manifest" not in {column for _, column, *_ in connection.execute("PRAGMA table_info(sources)")}:
                connection.execute("ALTER TABLE sources ADD COLUMN manifest INTEGER NOT NULL DEFAULT 0")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS private_bytes (digest TEXT, upstream TEXT, PRIMARY KEY (digest, upstream))"
                " WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Read all of it: it is small, and nobody asks later. Raises DatabaseError, UnicodeDecodeError if it is damaged."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    for table in _TABLES:
        for _ in connection.execute(f"SELECT * FROM {table}"):
            pass
