"""A certificate authority for one test run, and server certificates by it. Test keys only: 2048-bit RSA, one day."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, as objects and as PEM files."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path

    def server_context(self) -> ssl.SSLContext:
        """A context for a server that presents this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


class Authority:
    """A certificate authority whose files lie in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pair = self._make("ca", x509.BasicConstraints(ca=True, path_length=0), None, None)

    @property
    def certificate_file(self) -> Path:
        """The CA's own certificate, PEM: what clients are told to trust."""
        return self._pair.certificate_file

    def issue(self, hosts: Sequence[str]) -> KeyPair:
        """A certificate for these DNS names and IP addresses."""
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._make(hosts[0], x509.BasicConstraints(ca=False, path_length=None), names, self._pair)

    def _make(
        self,
        common_name: str,
        constraints: x509.BasicConstraints,
        names: x509.SubjectAlternativeName | None,
        issuer: KeyPair | None,
    ) -> KeyPair:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(constraints, critical=True)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(key if issuer is None else issuer.key, hashes.SHA256())
        stem = common_name.replace(":", "_")
        key_file, certificate_file = self._directory / f"{stem}.key", self._directory / f"{stem}.crt"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return KeyPair(key, certificate, key_file, certificate_file)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
