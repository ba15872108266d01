"""The state store in one SQLite file below --data-dir: what a supernode uses unless another store is configured."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from proto.errors import ConfigError
from proto.wire.messages import Source
from supernode.state.base import SavedEvent, SavedJob, SavedPublic, SavedSwarm, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from proto.ids import Digest, PeerId
    from supernode.state.base import NewEvent

SCHEMA_VERSION: Final = 6
# Swarms and public checks beyond these are forgotten, the longest unused first.
SWARMS_MAX: Final = 50_000
PUBLIC_MAX: Final = 200_000
# Of one blob: the newest holders, since nodes come and go, and the first sources.
HOLDERS_MAX: Final = 64
SOURCES_MAX: Final = 16
# What registries told, so that it is not done twice, and what their tags named by then.
EVENT_KEYS_MAX: Final = 200_000
TAGS_MAX: Final = 100_000
# So many new rows between two looks at these limits.
PRUNE_EVERY: Final = 1000

_EVENTS = """
CREATE TABLE events (number INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE event_keys (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE);
CREATE TABLE tags (
    number INTEGER PRIMARY KEY AUTOINCREMENT, repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
    told INTEGER NOT NULL, UNIQUE (repository, tag));
"""
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE swarms (
    digest TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, piece_size_bytes INTEGER NOT NULL,
    vouched INTEGER NOT NULL, used_unix_s REAL NOT NULL);
CREATE INDEX swarms_used ON swarms (used_unix_s);
CREATE TABLE sources (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, upstream TEXT NOT NULL, repository TEXT NOT NULL,
    manifest INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (digest, upstream, repository)) WITHOUT ROWID;
CREATE TABLE hashes (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, first INTEGER NOT NULL, hashes BLOB NOT NULL,
    PRIMARY KEY (digest, first));
CREATE TABLE holders (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, peer BLOB NOT NULL, number INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (digest, peer)) WITHOUT ROWID;
CREATE TABLE private (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, upstream TEXT NOT NULL,
    PRIMARY KEY (digest, upstream)) WITHOUT ROWID;
CREATE TABLE public (
    upstream TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, checked_unix_s REAL NOT NULL, manifest INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (upstream, repository, digest)) WITHOUT ROWID;
CREATE INDEX public_checked ON public (checked_unix_s);
CREATE TABLE jobs (number INTEGER PRIMARY KEY, text TEXT NOT NULL);
{_EVENTS}
"""
# From version 1. Of hashes that no digest vouched for, some were what a peer claimed.
_UPGRADE_1 = """
ALTER TABLE holders ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
DELETE FROM hashes WHERE digest IN (SELECT digest FROM swarms WHERE NOT vouched);
"""
# From version 2, which had public blobs alone.
_UPGRADE_2 = """
CREATE TABLE private (
    digest TEXT NOT NULL REFERENCES swarms ON DELETE CASCADE, upstream TEXT NOT NULL,
    PRIMARY KEY (digest, upstream)) WITHOUT ROWID;
"""
# From version 3, which had no manifests.
_UPGRADE_3 = """
ALTER TABLE sources ADD COLUMN manifest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE public ADD COLUMN manifest INTEGER NOT NULL DEFAULT 0;
"""
# From version 4, which had no jobs.
_UPGRADE_4 = """
CREATE TABLE jobs (number INTEGER PRIMARY KEY, text TEXT NOT NULL);
"""
# From version 5, which knew no events.
_UPGRADES: Final = (_UPGRADE_1, _UPGRADE_2, _UPGRADE_3, _UPGRADE_4, _EVENTS)


_SAVE_TAG: Final = "INSERT OR REPLACE INTO tags (repository, tag, digest, told) VALUES (?, ?, ?, ?)"


class SqliteState:
    """See state.base.State. The file of an earlier start is continued."""

    def __init__(
        self,
        path: Path,
        *,
        swarms_max: int = SWARMS_MAX,
        public_max: int = PUBLIC_MAX,
        event_keys_max: int = EVENT_KEYS_MAX,
        prune_every: int = PRUNE_EVERY,
    ) -> None:
        """Open or create. Raises ConfigError when the file is unusable or of a newer schema."""
        self._limits = (
            ("swarms", "used_unix_s", swarms_max),
            ("public", "checked_unix_s", public_max),
            ("event_keys", "number", event_keys_max),
            ("tags", "number", TAGS_MAX),
        )
        self._prune_every = prune_every
        self._saved = 0
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare(path)
            self._prune()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"state file {path}: {error}; move it away to start without memory") from None

    def _prepare(self, path: Path) -> None:
        # WAL with NORMAL survives a kill -9 of this process; a power loss may cost the last transactions.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA foreign_keys=ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        elif 1 <= version < SCHEMA_VERSION:
            upgrade = "".join(_UPGRADES[version - 1 :])
            self._db.executescript(f"BEGIN;{upgrade}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        elif version != SCHEMA_VERSION:
            self._db.close()
            raise ConfigError(
                f"state file {path} has schema {version}, this program writes {SCHEMA_VERSION}: "
                "run the version that wrote it, or move the file away"
            )

    def next_epoch(self) -> int:
        with self._transaction() as db:
            row = db.execute(
                "INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value"
            ).fetchone()
        return int(row[0])

    def load_swarm(self, digest: Digest) -> SavedSwarm | None:
        name = str(digest)
        with self._transaction() as db:
            row = db.execute(
                "SELECT size_bytes, piece_size_bytes, vouched FROM swarms WHERE digest = ?", (name,)
            ).fetchone()
            if row is None:
                return None
            sources = db.execute(
                "SELECT upstream, repository, manifest FROM sources WHERE digest = ?", (name,)
            ).fetchall()
            hashes = db.execute("SELECT first, hashes FROM hashes WHERE digest = ? ORDER BY first", (name,)).fetchall()
            holders = db.execute("SELECT peer FROM holders WHERE digest = ? ORDER BY peer", (name,)).fetchall()
            private = db.execute("SELECT upstream FROM private WHERE digest = ?", (name,)).fetchall()
        return SavedSwarm(
            size_bytes=row[0],
            piece_size_bytes=row[1],
            vouched=bool(row[2]),
            sources=tuple(Source(upstream, repository, bool(manifest)) for upstream, repository, manifest in sources),
            hashes=tuple((first, run) for first, run in hashes),
            holders=tuple(peer for (peer,) in holders),
            private_at=tuple(upstream for (upstream,) in private),
        )

    def save_swarm(self, digest: Digest, size_bytes: int, piece_size_bytes: int, now_unix_s: float) -> None:
        name = str(digest)
        with self._transaction() as db:
            db.execute(
                "DELETE FROM swarms WHERE digest = ? AND (size_bytes, piece_size_bytes) != (?, ?)",
                (name, size_bytes, piece_size_bytes),
            )
            db.execute(
                "INSERT INTO swarms VALUES (?, ?, ?, 0, ?) "
                "ON CONFLICT DO UPDATE SET used_unix_s = excluded.used_unix_s",
                (name, size_bytes, piece_size_bytes, now_unix_s),
            )
            self._prune_sometimes()

    def add_source(self, digest: Digest, source: Source) -> None:
        self._write(
            "INSERT OR IGNORE INTO sources (digest, upstream, repository, manifest) "
            "SELECT digest, ?, ?, ? FROM swarms WHERE digest = ? "
            "AND (SELECT count(*) FROM sources WHERE sources.digest = swarms.digest) < ?",
            (source.upstream, source.repository, source.manifest, str(digest), SOURCES_MAX),
        )

    def add_private(self, digest: Digest, upstream: str) -> None:
        self._write(
            "INSERT OR IGNORE INTO private SELECT digest, ? FROM swarms WHERE digest = ?", (upstream, str(digest))
        )

    def add_hashes(self, digest: Digest, added: Sequence[tuple[int, bytes]]) -> None:
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO hashes SELECT digest, ?, ? FROM swarms WHERE digest = ?",
                [(first, hashes, str(digest)) for first, hashes in added],
            )

    def vouch(self, digest: Digest, hashes: bytes) -> None:
        name = str(digest)
        with self._transaction() as db:
            db.execute("DELETE FROM hashes WHERE digest = ?", (name,))
            db.execute("UPDATE swarms SET vouched = 1 WHERE digest = ?", (name,))
            db.execute("INSERT INTO hashes SELECT digest, 0, ? FROM swarms WHERE digest = ?", (hashes, name))

    def add_holder(self, digest: Digest, peer: PeerId) -> None:
        name = str(digest)
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO holders SELECT digest, ?, "
                "(SELECT coalesce(max(number), 0) + 1 FROM holders WHERE holders.digest = swarms.digest) "
                "FROM swarms WHERE digest = ?",
                (peer, name),
            )
            db.execute(
                "DELETE FROM holders WHERE digest = ? "
                "AND number <= (SELECT max(number) - ? FROM holders WHERE digest = ?)",
                (name, HOLDERS_MAX, name),
            )

    def remove_holder(self, digest: Digest, peer: PeerId) -> None:
        self._write("DELETE FROM holders WHERE digest = ? AND peer = ?", (str(digest), peer))

    def forget_swarm(self, digest: Digest) -> None:
        self._write("DELETE FROM swarms WHERE digest = ?", (str(digest),))

    def load_public(self, source: Source, digest: Digest) -> SavedPublic | None:
        with self._transaction() as db:
            row = db.execute(
                "SELECT size_bytes, checked_unix_s FROM public "
                "WHERE upstream = ? AND repository = ? AND digest = ? AND manifest = ?",
                (source.upstream, source.repository, str(digest), source.manifest),
            ).fetchone()
        return None if row is None else SavedPublic(row[0], row[1])

    def save_public(self, source: Source, digest: Digest, size_bytes: int, now_unix_s: float) -> None:
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO public VALUES (?, ?, ?, ?, ?, ?)",
                (source.upstream, source.repository, str(digest), size_bytes, now_unix_s, source.manifest),
            )
            self._prune_sometimes()

    def forget_public(self, source: Source, digest: Digest) -> None:
        self._write(
            "DELETE FROM public WHERE upstream = ? AND repository = ? AND digest = ? AND manifest = ?",
            (source.upstream, source.repository, str(digest), source.manifest),
        )

    def save_job(self, job: SavedJob) -> None:
        self._write("INSERT OR REPLACE INTO jobs VALUES (?, ?)", (job.number, job.text))

    def forget_job(self, number: int) -> None:
        self._write("DELETE FROM jobs WHERE number = ?", (number,))

    def load_jobs(self) -> list[SavedJob]:
        with self._transaction() as db:
            return [
                SavedJob(number, text) for number, text in db.execute("SELECT number, text FROM jobs ORDER BY number")
            ]

    def add_events(self, events: Sequence[NewEvent]) -> list[int]:
        with self._transaction() as db:
            numbers = [_add_event(db, event) for event in events]
            for _ in events:
                self._prune_sometimes()
        return numbers

    def save_event(self, event: SavedEvent) -> None:
        self._write("UPDATE events SET text = ? WHERE number = ?", (event.text, event.number))

    def end_event(self, number: int) -> None:
        self._write("DELETE FROM events WHERE number = ?", (number,))

    def load_events(self) -> list[SavedEvent]:
        with self._transaction() as db:
            rows = db.execute("SELECT number, text FROM events ORDER BY number")
            return [SavedEvent(number, text) for number, text in rows]

    def save_tags(self, repository: str, tags: Mapping[str, str]) -> None:
        with self._transaction() as db:
            db.executemany(_SAVE_TAG, [(repository, tag, digest, False) for tag, digest in tags.items()])
            for _ in tags:
                self._prune_sometimes()

    def load_tags(self, repository: str) -> dict[str, str]:
        with self._transaction() as db:
            return dict(db.execute("SELECT tag, digest FROM tags WHERE repository = ?", (repository,)).fetchall())

    def load_repositories(self) -> list[str]:
        with self._transaction() as db:
            rows = db.execute("SELECT DISTINCT repository FROM tags ORDER BY repository")
            return [repository for (repository,) in rows]

    def close(self) -> None:
        self._db.close()

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._transaction() as db:
            db.execute(statement, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN and COMMIT, or ROLLBACK when the block raises. Raises StateError for what SQLite raises."""
        try:
            # Begins as a reader: the first statement that writes makes it a writer, and nobody else writes this file.
            self._db.execute("BEGIN")
            with self._db:
                yield self._db
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise StateError(str(error)) from None

    def _prune_sometimes(self) -> None:
        self._saved += 1
        if self._saved % self._prune_every == 0:
            self._prune()

    def _prune(self) -> None:
        for table, column, limit in self._limits:
            self._db.execute(
                f"DELETE FROM {table} WHERE {column} < "
                f"(SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1 OFFSET ?)",
                (limit - 1,),
            )


def _add_event(db: sqlite3.Connection, event: NewEvent) -> int:
    """Its number, or 0 where it is not new."""
    added = db.execute("INSERT OR IGNORE INTO event_keys (key) VALUES (?)", (event.key,))
    if not added.rowcount:
        return 0
    number = added.lastrowid
    assert number is not None
    if event.digest:
        tag = (event.repository, event.tag)
        told = db.execute("SELECT digest FROM tags WHERE (repository, tag) = (?, ?) AND told", tag).fetchone()
        if told == (event.digest,):
            return 0
        db.execute(_SAVE_TAG, (*tag, event.digest, True))
    db.execute("INSERT INTO events VALUES (?, ?)", (number, event.text))
    return number
