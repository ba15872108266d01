"""What outlives a restart of the supernode, in one SQLite file: the epoch, swarms with piece hashes, public checks.

Blocking, and used from one thread (StateThread). Losing a write costs work, never correctness: every piece is checked
against its hash and every blob against its digest. It knows no scheduling and holds no credential.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from proto.errors import ConfigError
from proto.wire.messages import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proto.ids import Digest, PeerId

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

SCHEMA_VERSION: Final = 1
# Swarms and public checks beyond these are forgotten, the longest unused first.
SWARMS_MAX: Final = 50_000
PUBLIC_MAX: Final = 200_000
# So many new rows between two looks at these limits.
PRUNE_EVERY: Final = 1000
# Above this many waiting writes further ones are dropped (a disk that hangs must not fill our memory).
WAITING_WRITES_MAX: Final = 50_000

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE swarms (
    digest TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, piece_size_bytes INTEGER NOT NULL,
    vouched INTEGER NOT NULL, used_unix_s REAL NOT NULL);
CREATE INDEX swarms_used ON swarms (used_unix_s);
CREATE TABLE sources (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, upstream TEXT NOT NULL, repository TEXT NOT NULL,
    PRIMARY KEY (digest, upstream, repository)) WITHOUT ROWID;
CREATE TABLE hashes (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, first INTEGER NOT NULL, hashes BLOB NOT NULL,
    PRIMARY KEY (digest, first));
CREATE TABLE holders (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, peer BLOB NOT NULL,
    PRIMARY KEY (digest, peer)) WITHOUT ROWID;
CREATE TABLE public (
    upstream TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, checked_unix_s REAL NOT NULL,
    PRIMARY KEY (upstream, repository, digest)) WITHOUT ROWID;
CREATE INDEX public_checked ON public (checked_unix_s);
"""


@dataclass(frozen=True, slots=True)
class SavedSwarm:
    """A swarm as it was before. `hashes` are runs of (first piece, hashes); a piece with a hash was once ready."""

    size_bytes: int
    piece_size_bytes: int
    vouched: bool
    sources: tuple[Source, ...]
    hashes: tuple[tuple[int, bytes], ...]
    holders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SavedPublic:
    """When a source was last found to give a blob to anyone, and its size."""

    size_bytes: int
    checked_unix_s: float


class SqliteState:
    """The file. One thread at a time; every method is one transaction."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises ConfigError when the file is unusable or of a newer schema."""
        self._saved = 0
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare(path)
        except sqlite3.Error as error:
            raise ConfigError(f"state file {path}: {error}; move it away to start without memory") from None

    def _prepare(self, path: Path) -> None:
        # WAL with NORMAL survives a kill -9 of this process; a power loss may cost the last transactions.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA foreign_keys=ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        elif version != SCHEMA_VERSION:
            self._db.close()
            raise ConfigError(
                f"state file {path} has schema {version}, this program writes {SCHEMA_VERSION}: "
                "run the version that wrote it, or move the file away"
            )

    def next_epoch(self) -> int:
        """One more than at the last start; recorded before it is returned."""
        row = self._db.execute(
            "INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value"
        ).fetchone()
        return int(row[0])

    def load_swarm(self, digest: Digest) -> SavedSwarm | None:
        """Everything about one blob, or None."""
        name = str(digest)
        row = self._db.execute(
            "SELECT size_bytes, piece_size_bytes, vouched FROM swarms WHERE digest = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        sources = self._db.execute("SELECT upstream, repository FROM sources WHERE digest = ?", (name,)).fetchall()
        hashes = self._db.execute(
            "SELECT first, hashes FROM hashes WHERE digest = ? ORDER BY first", (name,)
        ).fetchall()
        holders = self._db.execute("SELECT peer FROM holders WHERE digest = ? ORDER BY peer", (name,)).fetchall()
        return SavedSwarm(
            size_bytes=row[0],
            piece_size_bytes=row[1],
            vouched=bool(row[2]),
            sources=tuple(Source(upstream, repository) for upstream, repository in sources),
            hashes=tuple((first, run) for first, run in hashes),
            holders=tuple(peer for (peer,) in holders),
        )

    def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None:
        """Record a swarm's cut, or that it is used again; a different cut forgets its hashes and holders."""
        name = str(digest)
        with self._transaction():
            self._db.execute(
                "DELETE FROM swarms WHERE digest = ? AND (size_bytes, piece_size_bytes) != (?, ?)",
                (name, size_bytes, piece_size_bytes),
            )
            self._db.execute(
                "INSERT INTO swarms VALUES (?, ?, ?, 0, ?) "
                "ON CONFLICT DO UPDATE SET used_unix_s = excluded.used_unix_s",
                (name, size_bytes, piece_size_bytes, now_unix_s),
            )
        self._prune_sometimes()

    def add_source(self, digest: Digest, source: Source) -> None:
        """The blob may be asked there."""
        self._db.execute(
            "INSERT OR IGNORE INTO sources SELECT digest, ?, ? FROM swarms WHERE digest = ?",
            (source.upstream, source.repository, str(digest)),
        )

    def add_hashes(self, digest: Digest, added: list[tuple[int, bytes]]) -> None:
        """Runs of hashes that became known together."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO hashes SELECT digest, ?, ? FROM swarms WHERE digest = ?",
                [(first, hashes, str(digest)) for first, hashes in added],
            )

    def vouch(self, digest: Digest, hashes: bytes) -> None:
        """The whole blob matched: its hashes become one run."""
        name = str(digest)
        with self._transaction():
            self._db.execute("DELETE FROM hashes WHERE digest = ?", (name,))
            self._db.execute("UPDATE swarms SET vouched = 1 WHERE digest = ?", (name,))
            self._db.execute("INSERT INTO hashes SELECT digest, 0, ? FROM swarms WHERE digest = ?", (hashes, name))

    def add_holder(self, digest: Digest, peer: PeerId) -> None:
        """The peer holds pieces of the blob."""
        self._db.execute(
            "INSERT OR IGNORE INTO holders SELECT digest, ? FROM swarms WHERE digest = ?", (peer, str(digest))
        )

    def remove_holder(self, digest: Digest, peer: PeerId) -> None:
        """It does not any more."""
        self._db.execute("DELETE FROM holders WHERE digest = ? AND peer = ?", (str(digest), peer))

    def forget_swarm(self, digest: Digest) -> None:
        """Voided: hashes, sources and holders go."""
        self._db.execute("DELETE FROM swarms WHERE digest = ?", (str(digest),))

    def load_public(self, source: Source, digest: Digest) -> SavedPublic | None:
        """When this source was last found public for the blob."""
        row = self._db.execute(
            "SELECT size_bytes, checked_unix_s FROM public WHERE upstream = ? AND repository = ? AND digest = ?",
            (source.upstream, source.repository, str(digest)),
        ).fetchone()
        return None if row is None else SavedPublic(row[0], row[1])

    def save_public(self, source: Source, digest: Digest, size_bytes: int, now_unix_s: float) -> None:
        """It was found public just now."""
        self._db.execute(
            "INSERT OR REPLACE INTO public VALUES (?, ?, ?, ?, ?)",
            (source.upstream, source.repository, str(digest), size_bytes, now_unix_s),
        )
        self._prune_sometimes()

    def forget_public(self, source: Source, digest: Digest) -> None:
        """It gives it to nobody unknown any more, or sent wrong content."""
        self._db.execute(
            "DELETE FROM public WHERE upstream = ? AND repository = ? AND digest = ?",
            (source.upstream, source.repository, str(digest)),
        )

    def prune(self) -> None:
        """Keep both tables within their limits."""
        for table, column, limit in (("swarms", "used_unix_s", SWARMS_MAX), ("public", "checked_unix_s", PUBLIC_MAX)):
            self._db.execute(
                f"DELETE FROM {table} WHERE {column} < "
                f"(SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1 OFFSET ?)",
                (limit - 1,),
            )

    def _prune_sometimes(self) -> None:
        self._saved += 1
        if self._saved % PRUNE_EVERY == 0:
            self.prune()

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """BEGIN ... COMMIT, or ROLLBACK when the block raises."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


class StateThread:
    """The one thread that touches the file. Reads return futures; writes are queued and, when they fail, logged."""

    def __init__(self, state: SqliteState) -> None:
        self._state = state
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._lock = threading.Lock()
        self._waiting = 0
        self._dropped = 0

    def read(
        self, method: Callable[Concatenate[SqliteState, P], R | None], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R | None]:
        """Run `method` of the state after every write queued before; None also when the file fails (and a log line)."""

        def run() -> R | None:
            try:
                return method(self._state, *args, **kwargs)
            except sqlite3.Error as error:
                logger.error("state_read_failed operation=%s error=%s", method.__name__, error)
                return None

        return self._executor.submit(run)

    def write(self, method: Callable[Concatenate[SqliteState, P], None], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue `method` of the state. Never blocks; drops it, with a log line, when the disk does not keep up."""
        with self._lock:
            if self._waiting >= WAITING_WRITES_MAX:
                self._dropped += 1
                if self._dropped & (self._dropped - 1) == 0:
                    logger.error("state_write_dropped total=%d: the disk of --data-dir does not keep up", self._dropped)
                return
            self._waiting += 1
        self._executor.submit(self._run, method, *args, **kwargs)

    def _run(self, method: Callable[Concatenate[SqliteState, P], None], /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self._state, *args, **kwargs)
        except sqlite3.Error as error:
            logger.error("state_write_failed operation=%s error=%s", method.__name__, error)
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        """Finish what is queued, then close the file."""
        self._executor.shutdown(wait=True)
        self._state.close()
