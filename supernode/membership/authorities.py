"""The folder with the cluster's certificate authorities: one that certifies, and after a rotation one beside it.

`authorities.json` says which there are, and is written last; each has a `NUMBER.key` and a `NUMBER.crt`. Made by
whoever comes first, a supernode that starts or a command beside it. The commands and the supernode share it by a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proto.errors import ConfigError, LocalError
from proto.runtime.certificates import key_pem
from proto.runtime.private_files import make_private_folder, write_private
from supernode.membership.certificates import Authority, cross_certify, new_authority, pem
from supernode.membership.database import MemberDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER: Final = "ca"
_INDEX: Final = "authorities.json"
# 2025-01-01: a clock before this was never set.
_CLOCK_MIN_UNIX_S: Final = 1_735_689_600.0
# The certificates of all that are trusted, for other programs that ask the supernode (curl, Prometheus).
BUNDLE: Final = "ca.pem"
# What an operator on another machine shows to read status and metrics.
OPERATOR_TOKEN: Final = "operator.token"


@dataclass(frozen=True, slots=True)
class Authorities:
    """`current` certifies. `older` is trusted until `older_until_unix_s`, and `cross` is its word for the current."""

    current: Authority
    older: x509.Certificate | None = None
    cross: x509.Certificate | None = None
    older_until_unix_s: float = 0.0

    def at(self, now_unix_s: float) -> Authorities:
        """Without the older one if its time is over."""
        if self.older is None or now_unix_s < self.older_until_unix_s:
            return self
        return Authorities(self.current)

    @property
    def trusted(self) -> list[x509.Certificate]:
        """The current one first."""
        return [self.current.certificate, *([self.older] if self.older is not None else [])]

    @property
    def chain(self) -> list[x509.Certificate]:
        """What the supernode shows after its own certificate."""
        return [self.cross] if self.cross is not None else []


class AuthorityFolder:
    """`DATA_DIR/ca`. Blocking; safe beside other processes."""

    def __init__(self, data_dir: Path) -> None:
        self.path: Final = data_dir / FOLDER

    def exists(self) -> bool:
        """Whether there is an authority."""
        return (self.path / _INDEX).exists()

    def stamp(self) -> int:
        """Changes when an authority was added."""
        with contextlib.suppress(OSError):
            return (self.path / _INDEX).stat().st_mtime_ns
        return 0

    def load_or_create(self) -> Authorities:
        """The authorities, the first one made if there is none. Raises ConfigError."""
        now_unix_s = _checked_clock()
        with self._locked(make=True):
            if not self.exists():
                # Before the index: who is killed in between begins again.
                write_private(self.path / OPERATOR_TOKEN, secrets.token_urlsafe(32).encode() + b"\n")
                MemberDatabase(self.path, make=True).close()
                self._add(1, new_authority(now_unix_s), None, 0.0)
            self._tidy()
            found = self._load()
        self._check_validity(found.current.certificate, now_unix_s)
        return found

    def load(self) -> Authorities:
        """The authorities as they are now. None is made: a folder that is gone is to come back. Raises ConfigError."""
        with self._locked():
            return self._load()

    def operator_token(self) -> str:
        """Raises ConfigError."""
        try:
            token = (self.path / OPERATOR_TOKEN).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path / OPERATOR_TOKEN}: {error}; make it readable for this user") from None
        if not token:
            raise ConfigError(f"{self.path / OPERATOR_TOKEN} is empty: write a long random word into it")
        return token

    def rotate(self, overlap_s: float) -> Authorities:
        """A new authority certifies from now on; the one before stays trusted for `overlap_s`.

        Raises ConfigError, and LocalError while the one before that is still trusted: its nodes would be put out.
        """
        now_unix_s = _checked_clock()
        with self._locked():
            before = self._load()
            if before.older is not None and overlap_s > 0:
                raise LocalError(
                    "there was a rotation already: nodes that have not been connected since are known by the authority "
                    f"before it, until {_date(before.older_until_unix_s)}. Rotate again after that; or, if a key was "
                    "stolen, now with --overlap 0, which puts all nodes out"
                )
            newer = new_authority(now_unix_s)
            cross = cross_certify(before.current, newer, now_unix_s) if overlap_s > 0 else None
            self._add(self._number() + 1, newer, cross, now_unix_s + overlap_s)
            return self._load()

    # --- files -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, *, make: bool = False) -> Iterator[None]:
        try:
            if make:
                make_private_folder(self.path)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; it must be there, for the user that runs this") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise ConfigError(
                f"{self.path}: {error.strerror}; make it writable for this user, on a disk with room"
            ) from None
        finally:
            os.close(descriptor)

    def _number(self) -> int:
        return int(json.loads((self.path / _INDEX).read_text())["current"])

    def _add(self, number: int, newer: Authority, cross: x509.Certificate | None, older_until_unix_s: float) -> None:
        write_private(self.path / f"{number}.key", key_pem(newer.key))
        write_private(self.path / f"{number}.crt", pem([newer.certificate]).encode())
        if cross is not None:
            write_private(self.path / f"{number}-by-{number - 1}.crt", pem([cross]).encode())
        index = {"current": number, "older_until_unix_s": older_until_unix_s if cross is not None else 0.0}
        write_private(self.path / _INDEX, json.dumps(index).encode() + b"\n")
        self._tidy()

    def _tidy(self) -> None:
        """What follows from the index; also after who wrote that was killed before this was done."""
        bundle, file = pem(self._load().trusted).encode(), self.path / BUNDLE
        if not file.exists() or file.read_bytes() != bundle:
            write_private(file, bundle)
        # The key of one that certifies no more is of use to nobody but a thief.
        kept = self.path / f"{self._number()}.key"
        for key in self.path.glob("*.key"):
            if key != kept:
                key.unlink(missing_ok=True)

    def _load(self) -> Authorities:
        try:
            index = json.loads((self.path / _INDEX).read_text())
            number, older_until_unix_s = int(index["current"]), float(index["older_until_unix_s"])
            key = serialization.load_pem_private_key((self.path / f"{number}.key").read_bytes(), None)
            current = Authority(self._certificate(f"{number}.crt"), _checked(key))
            if current.key.public_key() != current.certificate.public_key():
                raise ValueError(f"{number}.key is not the key of {number}.crt")
            if older_until_unix_s <= 0.0:
                return Authorities(current)
            older, cross = self._certificate(f"{number - 1}.crt"), self._certificate(f"{number}-by-{number - 1}.crt")
        except (OSError, ValueError, KeyError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise ConfigError(
                f"{self.path} is damaged ({error}): restore it from a backup, or remove it and let all nodes join anew"
            ) from None
        return Authorities(current, older, cross, older_until_unix_s).at(time.time())

    def _check_validity(self, certificate: x509.Certificate, now_unix_s: float) -> None:
        until_unix_s = certificate.not_valid_after_utc.timestamp()
        if until_unix_s < now_unix_s:
            raise ConfigError(
                f"the authority in {self.path} was good until {_date(until_unix_s)}: it was made by a wrong clock, or "
                "is too old. Remove that folder and let all nodes join anew"
            )

    def _certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.path / name).read_bytes())


def _checked_clock() -> float:
    """Unix seconds. Raises ConfigError: what is certified by a clock that was never set is good at no other time."""
    now_unix_s = time.time()
    if now_unix_s < _CLOCK_MIN_UNIX_S:
        raise ConfigError(f"this machine's clock shows {_date(now_unix_s)}: set it before certificates are made by it")
    return now_unix_s


def _checked(key: object) -> Ed25519PrivateKey:
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("its key is of another kind")
    return key


def _date(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))
