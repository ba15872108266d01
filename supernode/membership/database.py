"""The database of tokens and nodes, one SQLite file beside the authorities, which commands and the supernode share.

Blocking, each operation whole or not at all. It knows no certificates, only what was decided about them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proto.errors import ConfigError, LocalError
from proto.ids import PeerId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from proto.wire.join import JoinToken

FILE: Final = "members.sqlite"
SCHEMA_VERSION: Final = 1
TOKENS_MAX: Final = 10_000
NODES_MAX: Final = 200_000
# Another process writes for milliseconds.
_BUSY_TIMEOUT_S: Final = 5.0
# How long a token that is over stays in the list, so that an operator can see what became of it.
_TOKEN_KEPT_S: Final = 30 * 86_400.0

_SCHEMA = """
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, proof_key BLOB NOT NULL, created_unix_s REAL NOT NULL, expires_unix_s REAL NOT NULL,
    uses_max INTEGER, uses INTEGER NOT NULL, revoked INTEGER NOT NULL);
CREATE TABLE nodes (
    peer BLOB PRIMARY KEY, token TEXT NOT NULL, joined_unix_s REAL NOT NULL, expires_unix_s REAL NOT NULL,
    revoked_unix_s REAL, seen_unix_s REAL, address TEXT NOT NULL);
"""
# Whose quarantine the operator ended; the running supernode takes them out.
_LIFTS: Final = "CREATE TABLE IF NOT EXISTS lifts (peer BLOB PRIMARY KEY)"


class DatabaseError(LocalError):
    """The file cannot be read or written now."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """`uses_max` is None for no limit. The proof's key stays inside."""

    id: str
    created_unix_s: float
    expires_unix_s: float
    uses_max: int | None
    uses: int
    revoked: bool

    def state(self, now_unix_s: float) -> str:
        """open, revoked, expired or used up."""
        if self.revoked:
            return "revoked"
        if now_unix_s >= self.expires_unix_s:
            return "expired"
        return "used up" if self.uses_max is not None and self.uses >= self.uses_max else "open"


@dataclass(frozen=True, slots=True)
class NodeRow:
    """`expires_unix_s` is that of its newest certificate. `address` is where it connected from last."""

    peer: PeerId
    token: str
    joined_unix_s: float
    expires_unix_s: float
    revoked_unix_s: float | None
    seen_unix_s: float | None
    address: str


class MemberDatabase:
    """One connection, used by one thread at a time."""

    def __init__(self, folder: Path, *, make: bool = False, clock: Callable[[], float] = time.time) -> None:
        """Open; `make`: or make it, for an authority that is just made. Raises ConfigError.

        None is made later: in an empty one nobody is revoked, while the certificates of all who were are still good.
        """
        path = folder / FILE
        restore = f"restore it from a backup, or remove {folder} and let all nodes join anew"
        self._clock = clock
        try:
            # SQLite gives what it makes beside the file the file's own mode.
            os.close(os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            if not self._prepare(path, make=make):
                self._db.close()
                raise ConfigError(f"{path} is empty, and who was revoked is lost: {restore}")
        except FileNotFoundError:
            raise ConfigError(f"{path} is gone, and with it who was revoked: {restore}") from None
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; its owner must be the user that runs this") from None
        except sqlite3.OperationalError as error:
            raise ConfigError(f"{path}: {error}; end what holds it, or see to its disk, then start again") from None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is damaged ({error}): {restore}") from None

    def _prepare(self, path: Path, *, make: bool) -> bool:
        """False where there are no tables, and none are to be made."""
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                if not make:
                    return False
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise ConfigError(f"{path} has schema {version}, this program writes {SCHEMA_VERSION}: update it")
            self._db.execute(_LIFTS)
        return True

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def stamp(self) -> int:
        """Changes when another process changed the database."""
        with self._reading() as db:
            return int(db.execute("PRAGMA data_version").fetchone()[0])

    # --- tokens ------------------------------------------------------------------------------------------------

    def add_token(self, token: JoinToken, ttl_s: float, uses_max: int | None) -> None:
        """Raises DatabaseError, also when there are too many."""
        now_s = self._clock()
        with self._writing() as db:
            db.execute("DELETE FROM tokens WHERE expires_unix_s < ?", (now_s - _TOKEN_KEPT_S,))
            if db.execute("SELECT count(*) FROM tokens").fetchone()[0] >= TOKENS_MAX:
                raise DatabaseError(f"there are {TOKENS_MAX} join tokens already: use fewer, for more nodes each")
            db.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, 0, 0)",
                (token.id, token.proof_key, now_s, now_s + ttl_s, uses_max),
            )

    def token(self, token_id: str) -> tuple[TokenRow, bytes] | None:
        """A token, and the key that proofs of it are made with."""
        with self._reading() as db:
            row = db.execute(f"SELECT {_TOKEN}, proof_key FROM tokens WHERE id = ?", (token_id,)).fetchone()
        return None if row is None else (_token(row), row[-1])

    def tokens(self) -> list[TokenRow]:
        """The newest first."""
        with self._reading() as db:
            return [_token(row) for row in db.execute(f"SELECT {_TOKEN} FROM tokens ORDER BY created_unix_s DESC")]

    def revoke_token(self, token_id: str) -> bool:
        """Nobody joins by it any more. False if there is none."""
        with self._writing() as db:
            return db.execute("UPDATE tokens SET revoked = 1 WHERE id = ?", (token_id,)).rowcount > 0

    # --- nodes -------------------------------------------------------------------------------------------------

    def node(self, peer: PeerId) -> NodeRow | None:
        """What is known of the node with this key."""
        with self._reading() as db:
            row = db.execute(f"SELECT {_NODE} FROM nodes WHERE peer = ?", (peer,)).fetchone()
        return None if row is None else _node(row)

    def nodes(self) -> list[NodeRow]:
        """In the order in which they joined."""
        with self._reading() as db:
            return [_node(row) for row in db.execute(f"SELECT {_NODE} FROM nodes ORDER BY joined_unix_s, peer")]

    def admit(self, peer: PeerId, token_id: str, expires_unix_s: float, address: str) -> bool:
        """The node gets a certificate by this token, and takes one use of it, once. False if none is left."""
        now_s = self._clock()
        with self._writing() as db:
            again = db.execute("SELECT 1 FROM nodes WHERE peer = ? AND token = ?", (peer, token_id)).fetchone()
            if again is None:
                taken = db.execute(
                    "UPDATE tokens SET uses = uses + 1 WHERE id = ? AND (uses_max IS NULL OR uses < uses_max)",
                    (token_id,),
                )
                if not taken.rowcount:
                    return False
            self._make_room(db, now_s)
            db.execute(
                "INSERT INTO nodes VALUES (?, ?, ?, ?, NULL, NULL, ?) ON CONFLICT (peer) DO UPDATE "
                "SET token = excluded.token, joined_unix_s = excluded.joined_unix_s, "
                "expires_unix_s = excluded.expires_unix_s, address = excluded.address",
                (peer, token_id, now_s, expires_unix_s, address),
            )
        return True

    def renew(self, peer: PeerId, expires_unix_s: float) -> None:
        """It got a new certificate."""
        with self._writing() as db:
            db.execute("UPDATE nodes SET expires_unix_s = ? WHERE peer = ?", (expires_unix_s, peer))

    def record_seen(self, seen: Sequence[tuple[PeerId, str, float]]) -> None:
        """These connected: key, from which address, when its certificate ends. One that a lost database had is back."""
        now_s = self._clock()
        with self._writing() as db:
            db.executemany(
                "INSERT INTO nodes VALUES (?, '', ?, ?, NULL, ?, ?) ON CONFLICT (peer) DO UPDATE "
                "SET seen_unix_s = excluded.seen_unix_s, address = excluded.address",
                [(peer, now_s, expires_unix_s, now_s, address) for peer, address, expires_unix_s in seen],
            )

    def revoke_node(self, peer: PeerId) -> bool:
        """It is no member any more, for good. False if there is none."""
        with self._writing() as db:
            return (
                db.execute(
                    "UPDATE nodes SET revoked_unix_s = coalesce(revoked_unix_s, ?) WHERE peer = ?",
                    (self._clock(), peer),
                ).rowcount
                > 0
            )

    def revoked(self) -> frozenset[PeerId]:
        """Every key that was revoked."""
        with self._reading() as db:
            return frozenset(
                PeerId(peer) for (peer,) in db.execute("SELECT peer FROM nodes WHERE revoked_unix_s IS NOT NULL")
            )

    def lift(self, peer: PeerId) -> None:
        """The running supernode is to end its quarantine."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO lifts VALUES (?)", (peer,))

    def take_lifts(self) -> frozenset[PeerId]:
        """Whose quarantine is to end; each is returned once."""
        with self._reading() as db:
            if db.execute("SELECT 1 FROM lifts").fetchone() is None:
                return frozenset()  # nothing is written: the disk may be full
        with self._writing() as db:
            return frozenset(PeerId(peer) for (peer,) in db.execute("DELETE FROM lifts RETURNING peer").fetchall())

    def _make_room(self, db: sqlite3.Connection, now_s: float) -> None:
        if db.execute("SELECT count(*) FROM nodes").fetchone()[0] < NODES_MAX:
            return
        # A revoked one whose certificate has ended could not come back anyway.
        db.execute("DELETE FROM nodes WHERE expires_unix_s < ?", (now_s,))
        if db.execute("SELECT count(*) FROM nodes").fetchone()[0] >= NODES_MAX:
            raise DatabaseError(f"there are {NODES_MAX} nodes already")

    # --- SQLite ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise DatabaseError(f"{FILE}: {error}") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise DatabaseError(f"{FILE}: {error}") from None


_TOKEN: Final = "id, created_unix_s, expires_unix_s, uses_max, uses, revoked"
_NODE: Final = "peer, token, joined_unix_s, expires_unix_s, revoked_unix_s, seen_unix_s, address"


def _token(row: Sequence[Any]) -> TokenRow:
    return TokenRow(row[0], row[1], row[2], row[3], row[4], bool(row[5]))


def _node(row: Sequence[Any]) -> NodeRow:
    return NodeRow(PeerId(row[0]), *row[1:7])
