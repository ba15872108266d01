"""The certificates of an intercepting proxy (X.509, P-256): the node's own authority, and leaves for hosts. Pure; the
time is given.

The authority can certify for its hosts alone: it has critical name constraints, so that who steals its key gains no
other name. P-256, because every client knows it.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from proto.runtime.certificates import builder, common_name, for_host

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
    return common_name(f"Layercast node {secrets.token_hex(4)}")


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
    begins_unix_s, expires_unix_s = now_unix_s - BACKDATED_S, now_unix_s + AUTHORITY_LIFE_S
    built = builder(name, key.public_key(), name, key, begins_unix_s, expires_unix_s, path_length=0)
    built = built.add_extension(x509.NameConstraints(permitted or None, excluded or None), critical=True)
    return built.sign(key, hashes.SHA256())


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
    subject, begins_unix_s = common_name("Layercast mirror of a registry"), now_unix_s - BACKDATED_S
    built = builder(subject, key.public_key(), authority.subject, authority_key, begins_unix_s, expires_unix_s)
    built = for_host(built, general_name(host), [ExtendedKeyUsageOID.SERVER_AUTH])
    return built.sign(authority_key, hashes.SHA256())


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
