"""The node's own certificate authority, by which clients believe the registries that it intercepts.

`DATA_DIR/interception` has its key (0600) and `ca.pem`, which the operator gives to this node's clients. It is put into
no system's store. Leaves have one key a process, stand in memory, and are made anew after two thirds of their life.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from peer.proxy.leaf_certificates import (
    AUTHORITY_LIFE_S,
    BACKDATED_S,
    LEAF_LIFE_S,
    certify_authority,
    certify_leaf,
    hosts_of,
    new_authority_name,
    new_key,
)
from proto.bounded_dict import BoundedDict
from proto.errors import ConfigError
from proto.runtime.certificates import key_pem
from proto.runtime.private_files import write_private
from proto.runtime.tls import load_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

FOLDER: Final = "interception"
CERTIFICATE: Final = "ca.pem"
_KEY: Final = "ca.key"
# One a host of the allow-list, and some more where that was changed.
_LEAVES_MAX: Final = 1024


class NodeAuthority:
    """Made with the folder, filled by open(). Safe to use from many threads."""

    def __init__(self, data_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = data_dir / FOLDER
        self._clock = clock
        self._lock = threading.Lock()
        self._key: EllipticCurvePrivateKey | None = None
        self._certificate: x509.Certificate | None = None
        self._leaf_key = new_key()
        # By host: the context, and when its leaf was made, in Unix seconds.
        self._contexts: BoundedDict[str, tuple[ssl.SSLContext, float]] = BoundedDict(_LEAVES_MAX)

    @property
    def certificate_file(self) -> Path:
        """What clients are told to trust."""
        return self._folder / CERTIFICATE

    def open(self, hosts: Sequence[str]) -> None:
        """Load it, or make it; certify it anew where it is not for exactly these hosts. Raises ConfigError.

        The key stays, so that clients which trust the certificate before go on with the hosts of that one.
        """
        try:
            with self._lock:
                self._open(hosts)
        except OSError as error:
            problem = f"{self._folder}: {error.strerror}; make it writable for this user, on a disk with room"
            raise ConfigError(problem) from None
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.InvalidVersion) as error:
            problem = f"{self._folder} is damaged ({error}): remove it, and give clients the new {CERTIFICATE}"
            raise ConfigError(problem) from None

    def context(self, host: str) -> ssl.SSLContext:
        """For the server's end of a connection to that host. Blocks for a millisecond where it is new."""
        now_unix_s = self._clock()
        with self._lock:
            context, made_unix_s = self._contexts.get(host, (None, 0.0))
            # Also where the clock was set back: clients do not take what begins in the future.
            if context is None or not -BACKDATED_S < now_unix_s - made_unix_s < LEAF_LIFE_S * 2 / 3:
                context = self._make_context(host, now_unix_s)
                self._contexts[host] = context, now_unix_s
            return context

    def _open(self, hosts: Sequence[str]) -> None:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._key = self._load_key()
        before = self._load_certificate(self._key)
        now_unix_s = self._clock()
        if before is not None and hosts_of(before) == set(hosts) and _is_good(before, now_unix_s):
            self._certificate = before
            return
        if self._key is None:
            self._key, before = new_key(), None
            write_private(self._folder / _KEY, key_pem(self._key))
        name = new_authority_name() if before is None else before.subject
        self._certificate = certify_authority(self._key, name, hosts, now_unix_s)
        write_private(self.certificate_file, self._certificate.public_bytes(serialization.Encoding.PEM))
        self.certificate_file.chmod(0o644)
        self._contexts.clear()
        if before is not None:
            logger.warning(
                "interception_ca_changed file=%s: it is for other registries than before, or for longer; give it to "
                "this node's clients again",
                self.certificate_file,
            )

    def _load_key(self) -> EllipticCurvePrivateKey | None:
        try:
            content = (self._folder / _KEY).read_bytes()
        except FileNotFoundError:
            return None
        key = serialization.load_pem_private_key(content, None)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise TypeError(f"{_KEY} is another kind of key")
        return key

    def _load_certificate(self, key: EllipticCurvePrivateKey | None) -> x509.Certificate | None:
        """None also where it is not this key's."""
        try:
            found = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        except FileNotFoundError:
            return None
        return found if key is not None and found.public_key() == key.public_key() else None

    def _make_context(self, host: str, now_unix_s: float) -> ssl.SSLContext:
        assert self._key is not None
        assert self._certificate is not None
        leaf = certify_leaf(self._certificate, self._key, self._leaf_key, host, now_unix_s)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        load_pair(context, leaf.public_bytes(serialization.Encoding.PEM), key_pem(self._leaf_key))
        return context


def _is_good(certificate: x509.Certificate, now_unix_s: float) -> bool:
    """Whether it has begun, which it has not where the clock was ahead, and a third of its life is left."""
    begins_unix_s, ends_unix_s = (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )
    return begins_unix_s <= now_unix_s < ends_unix_s - AUTHORITY_LIFE_S / 3
