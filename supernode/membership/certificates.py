"""The certificates of a cluster (X.509, Ed25519): authorities, the supernode's, the nodes'. Pure; the time is given.

A node's certificate is good for its own key, which is its PeerId. Validity begins in the past, so that clocks that
differ by hours do not matter.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from proto.errors import LayercastError
from proto.ids import PeerId
from proto.runtime.certificates import builder, common_name, for_host
from proto.wire.join import SUPERNODE_NAME, fingerprint_of, node_host

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY_S: Final = 86_400
AUTHORITY_LIFE_S: Final = 3650 * DAY_S
# A node renews after two thirds of it, so it may be away for a month.
NODE_LIFE_S: Final = 90 * DAY_S
SUPERNODE_LIFE_S: Final = 365 * DAY_S
# Certificates are good since two days ago, authorities since two weeks: for clocks that are behind.
BACKDATED_S: Final = 2 * DAY_S
AUTHORITY_BACKDATED_S: Final = 14 * DAY_S


class RequestInvalid(LayercastError):
    """A certificate request that is malformed, or not for an Ed25519 key whose owner signed it."""


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """One that certifies: a certificate and its private key."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey

    @property
    def fingerprint(self) -> str:
        """What join tokens pin."""
        return fingerprint_of(_public_der(self.certificate.public_key()))

    @property
    def name(self) -> x509.Name:
        """What certificates by it have as their issuer."""
        return self.certificate.subject


def new_authority(now_unix_s: float) -> Authority:
    """A new random one, certified by itself."""
    key = Ed25519PrivateKey.generate()
    name = common_name(f"Layercast authority {secrets.token_hex(4)}")
    return Authority(_certify_authority(name, key.public_key(), name, key, now_unix_s), key)


def cross_certify(older: Authority, newer: Authority, now_unix_s: float) -> x509.Certificate:
    """The older authority's word for the newer one's key: who trusts the older alone believes the newer by it."""
    return _certify_authority(newer.name, newer.key.public_key(), older.name, older.key, now_unix_s)


def certify_supernode(authority: Authority, key: Ed25519PublicKey, now_unix_s: float) -> x509.Certificate:
    """For whoever serves sessions; good for no client."""
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    return _certify(authority, key, "supernode", SUPERNODE_NAME, usages, SUPERNODE_LIFE_S, now_unix_s)


def certify_node(authority: Authority, peer: PeerId, now_unix_s: float) -> x509.Certificate:
    """For the node with this key. It may serve other nodes under its own name too, never as the supernode."""
    key = Ed25519PublicKey.from_public_bytes(peer)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    return _certify(authority, key, peer.hex(), node_host(peer), usages, NODE_LIFE_S, now_unix_s)


def read_request(der: bytes) -> PeerId:
    """The key that a certificate request is for, and whose owner signed it. Raises RequestInvalid."""
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        if not isinstance(key, Ed25519PublicKey):
            raise RequestInvalid("the certificate request is not for an Ed25519 key")
        if not request.is_signature_valid:
            raise RequestInvalid("the certificate request is not signed by its own key")
    except (ValueError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        raise RequestInvalid("the certificate request cannot be read") from None
    return PeerId(key.public_bytes_raw())


def pem(certificates: Sequence[x509.Certificate]) -> str:
    """One after the other."""
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def _certify(
    authority: Authority,
    key: Ed25519PublicKey,
    subject: str,
    host: str,
    usages: Sequence[x509.ObjectIdentifier],
    life_s: float,
    now_unix_s: float,
) -> x509.Certificate:
    # Never beyond its authority, whose own end nobody else would notice.
    expires_unix_s = min(now_unix_s + life_s, authority.certificate.not_valid_after_utc.timestamp())
    begins_unix_s = now_unix_s - BACKDATED_S
    built = builder(common_name(subject), key, authority.name, authority.key, begins_unix_s, expires_unix_s)
    return for_host(built, x509.DNSName(host), usages).sign(authority.key, None)


def _certify_authority(
    subject: x509.Name, key: Ed25519PublicKey, issuer: x509.Name, issuer_key: Ed25519PrivateKey, now_unix_s: float
) -> x509.Certificate:
    begins_unix_s, expires_unix_s = now_unix_s - AUTHORITY_BACKDATED_S, now_unix_s + AUTHORITY_LIFE_S
    return builder(subject, key, issuer, issuer_key, begins_unix_s, expires_unix_s, path_length=1).sign(
        issuer_key, None
    )


def _public_der(key: object) -> bytes:
    assert isinstance(key, Ed25519PublicKey)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
