"""What certificates of a cluster's authority and of a node's own have in common (X.509). Pure; the time is given."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
    )


def common_name(text: str) -> x509.Name:
    """A name of this one part."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def builder(
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    issuer: x509.Name,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    begins_unix_s: float,
    expires_unix_s: float,
    *,
    path_length: int | None = None,
) -> x509.CertificateBuilder:
    """A certificate that is not signed yet. `path_length` is for an authority; without it, it certifies nobody."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(begins_unix_s))
        .not_valid_after(_time(expires_unix_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=path_length is not None, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=path_length is not None), critical=True)
    )


def for_host(
    built: x509.CertificateBuilder, host: x509.GeneralName, usages: Sequence[x509.ObjectIdentifier]
) -> x509.CertificateBuilder:
    """Of whoever has this name or address."""
    return built.add_extension(x509.ExtendedKeyUsage(usages), critical=False).add_extension(
        x509.SubjectAlternativeName([host]), critical=False
    )


def key_pem(key: PrivateKeyTypes) -> bytes:
    """PKCS #8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _time(unix_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(unix_s), datetime.UTC)
