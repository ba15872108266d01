"""The certificate that browsers are shown at the API port: they know no Ed25519, which all others here are of.

It is by itself, in one file with its key, where an operator may put one that browsers believe. Members never see it:
they ask for the supernode by its name.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from proto.errors import ConfigError
from proto.runtime import tls
from proto.runtime.certificates import builder, common_name, for_host, key_pem
from proto.runtime.private_files import write_private
from proto.wire.join import SUPERNODE_NAME
from supernode.membership.certificates import AUTHORITY_LIFE_S, BACKDATED_S

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

FILE: Final = "console.pem"


def load_or_create(folder: Path) -> bytes:
    """PEM of the key and the certificate, as the folder has it from now on. Raises ConfigError."""
    file = folder / FILE
    try:
        if not file.exists():
            write_private(file, _made(time.time()))
        pair = file.read_bytes()
        browser_context(pair, "")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}; put a key and its certificate there (PEM), or remove it") from None
    return pair


def browser_context(pair: bytes, authorities: str) -> ssl.SSLContext:
    """Shows it. Raises ssl.SSLError, an OSError."""
    return tls.server_context(pair, b"", authorities)


def show_to_browsers(context: ssl.SSLContext, browsers: ssl.SSLContext) -> None:
    """Whoever does not ask for the supernode by its name is shown what `browsers` shows."""

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name != SUPERNODE_NAME:
            connection.context = browsers

    context.sni_callback = choose


def _made(now_unix_s: float) -> bytes:
    key, name = ec.generate_private_key(ec.SECP256R1()), common_name("Layercast console")
    built = builder(name, key.public_key(), name, key, now_unix_s - BACKDATED_S, now_unix_s + AUTHORITY_LIFE_S)
    host = x509.DNSName(SUPERNODE_NAME)
    signed = for_host(built, host, [ExtendedKeyUsageOID.SERVER_AUTH]).sign(key, hashes.SHA256())
    return key_pem(key) + signed.public_bytes(serialization.Encoding.PEM)
