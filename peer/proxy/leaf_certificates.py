"""The certificates of an intercepting proxy (X.509, P-256): the node's own authority, and leaves for hosts. Pure; the
time is given.

The authority can certify for its hosts alone: it has critical name constraints, so that who steals its key gains no
other name. P-256, because every client knows it.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DAY_S: Final = 86_400
AUTHORITY_LIFE_S: Final = 3650 * DAY_S
LEAF_LIFE_S: Final = 30 * DAY_S
# For clocks that are behind.
BACKDATED_S: Final = 2 * DAY_S
_ALL_ADDRESSES: Final = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))


def new_key() -> EllipticCurvePrivateKey:
    """A random one."""
    return generate_private_key(SECP256R1())


def new_authority_name() -> x509.Name:
    """One that no other node's has."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Layercast node {secrets.token_hex(4)}")])


def certify_authority(
    key: EllipticCurvePrivateKey, name: x509.Name, hosts: Sequence[str], now_unix_s: float
) -> x509.Certificate:
    """Certified by itself, for these host names and addresses and no others."""
    names = [each for each in map(general_name, hosts) if isinstance(each, x509.DNSName)]
    addresses = [_network(host) for host in hosts if isinstance(general_name(host), x509.IPAddress)]
    families = {address.version for address in addresses}
    permitted: list[x509.GeneralName] = [*names, *map(x509.IPAddress, addresses)]
    # A kind of name that is not constrained at all would be allowed.
    excluded: list[x509.GeneralName] = [x509.IPAddress(all_) for all_ in _ALL_ADDRESSES if all_.version not in families]
    if not names:
        excluded.append(x509.DNSName(""))
    builder = (
        _builder(name, key, name, key, now_unix_s - BACKDATED_S, now_unix_s + AUTHORITY_LIFE_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted or None, excluded or None), critical=True)
    )
    return builder.sign(key, hashes.SHA256())


def certify_leaf(
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    key: EllipticCurvePrivateKey,
    host: str,
    now_unix_s: float,
) -> x509.Certificate:
    """For a server of that name or address."""
    expires_unix_s = min(now_unix_s + LEAF_LIFE_S, authority.not_valid_after_utc.timestamp())
    # No host: OpenSSL holds a name that looks like one to the constraints of DNS names, also where it is an address.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Layercast mirror of a registry")])
    builder = (
        _builder(subject, key, authority.subject, authority_key, now_unix_s - BACKDATED_S, expires_unix_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(host)]), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())


def hosts_of(authority: x509.Certificate) -> set[str]:
    """The hosts that it may certify for."""
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    return set(_texts(constraints.permitted_subtrees or ()))


def general_name(host: str) -> x509.GeneralName:
    """As certificates have it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _texts(names: Iterable[x509.GeneralName]) -> Iterable[str]:
    for name in names:
        if isinstance(name, x509.DNSName):
            yield name.value
        elif isinstance(name, x509.IPAddress) and isinstance(name.value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            yield str(name.value.network_address)


def _network(host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(host)


def _builder(
    subject: x509.Name,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: EllipticCurvePrivateKey,
    begins_unix_s: float,
    expires_unix_s: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(begins_unix_s))
        .not_valid_after(_time(expires_unix_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
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
