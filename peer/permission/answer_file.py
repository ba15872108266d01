"""Last answers of origins that outlive the process, in a file of their own, and the key by which credentials are told.

Only with `stale_if_down`. Neither a credential nor what was asked stands in it, but keyed hashes of them; the key is
in a file beside it that only its owner may read. Written by one thread; nobody waits for it, and nothing depends on it:
what is lost is asked for again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sqlite3
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from peer.permission.credentials import KEY_BYTES
from peer.permission.last_answers import REMEMBERED_MAX, KnownAnswer
from proto.errors import ConfigError
from proto.runtime.private_files import write_private

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
KEY_FILE: Final = "answers.key"
ANSWERS_FILE: Final = "answers.sqlite"


def credential_key(folder: Path) -> bytes:
    """The key of this node, made where there is none. Raises ConfigError."""
    path = folder / KEY_FILE
    try:
        if path.exists() and len(key := path.read_bytes()) == KEY_BYTES:
            return key
        key = secrets.token_bytes(KEY_BYTES)
        write_private(path, key)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; make its folder writable") from None
    return key


def remove(folder: Path) -> None:
    """Keep nothing of an earlier run that had stale_if_down."""
    for name in (KEY_FILE, ANSWERS_FILE, f"{ANSWERS_FILE}-wal", f"{ANSWERS_FILE}-shm"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()


class SqliteAnswerFile:
    """See last_answers.AnswerFile. Open on construction; a file that is damaged, or newer, is begun anew."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where the folder cannot be written."""
        self._path = folder / ANSWERS_FILE
        try:
            self._db = self._open()
        except OSError as error:
            raise ConfigError(f"state file {self._path}: {error.strerror}; make its folder writable") from None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            logger.warning("state_set_aside %s: %s", self._path, error)
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    self._path.with_name(self._path.name + suffix).unlink()
            try:
                self._db = self._open()
            except sqlite3.Error as again:
                raise ConfigError(f"state file {self._path}: {again}; make its folder writable") from None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._waiting: deque[tuple[str, tuple[object, ...]]] = deque()

    def load(self, since_unix_s: float) -> dict[bytes, KnownAnswer]:
        """Before the first keep(). What is older, and what is beyond the limit, is dropped for good."""
        with self._db:
            self._db.execute("DELETE FROM answers WHERE asked_unix_s < ?", (since_unix_s,))
            self._db.execute(
                "DELETE FROM answers WHERE name NOT IN (SELECT name FROM answers ORDER BY asked_unix_s DESC LIMIT ?)",
                (REMEMBERED_MAX,),
            )
        found: dict[bytes, KnownAnswer] = {}
        rows = self._db.execute("SELECT name, status, lines, body, asked_unix_s FROM answers ORDER BY asked_unix_s")
        for name, status, lines, body, asked_unix_s in rows:
            with contextlib.suppress(ValueError, TypeError):
                pairs = tuple((str(each), str(value)) for each, value in json.loads(lines))
                found[bytes(name)] = KnownAnswer(int(status), pairs, float(asked_unix_s), bytes(body))
        return found

    def keep(self, name: bytes, answer: KnownAnswer) -> None:
        lines = json.dumps(answer.lines)
        values = (name, answer.status, lines, answer.body, answer.asked_unix_s)
        self._waiting.append(("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", values))
        self._thread.submit(self._write)

    def forget(self, name: bytes) -> None:
        self._waiting.append(("DELETE FROM answers WHERE name = ?", (name,)))
        self._thread.submit(self._write)

    def close(self) -> None:
        """Write what waits, join the thread."""
        self._thread.shutdown(wait=True)
        self._db.close()

    def _write(self) -> None:
        if not self._waiting:
            return
        try:
            with self._db:
                while self._waiting:
                    self._db.execute(*self._waiting.popleft())
        except sqlite3.Error as error:
            logger.error("state_not_written %s", error)

    def _open(self) -> sqlite3.Connection:
        # Before SQLite makes it: for its owner alone, as are the files that SQLite puts beside it.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, check_same_thread=False)
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                raise sqlite3.DatabaseError(f"schema {version}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = OFF")
            with db:
                db.execute(
                    "CREATE TABLE IF NOT EXISTS answers (name BLOB PRIMARY KEY, status INTEGER NOT NULL,"
                    " lines TEXT NOT NULL, body BLOB NOT NULL, asked_unix_s REAL NOT NULL) WITHOUT ROWID"
                )
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        except BaseException:
            db.close()
            raise
        return db
