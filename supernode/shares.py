"""What one party may take of what is limited for all: what it likes while there is plenty, then its share. Pure.

A party is whoever cannot be many for nothing: an address, say. Many nodes may be behind one (NAT), so nobody's share is
below what a rack of nodes needs.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from typing import Final

from proto.config.values import plain_address

# What follows in an IPv6 address is its host's to choose.
_NETWORK_BITS: Final = 64


def is_over_share(taken: int, *, by_all: int, most: int, parties: int, least: int) -> bool:
    """Whether a party that has `taken` may take no more, of what all have `by_all` of and may have `most` of.

    From half of it on a party may have its share, which is never more than that half; `least` in any case.
    `parties` are those that have any, this one included.
    """
    if by_all < most // 2:
        return False
    return taken >= max(least, min(most // 2, most // max(1, parties)))


def party_of(host: str) -> str:
    """Who is at this address: an IPv4 address, or the network of an IPv6 one; what is no address stands for itself."""
    try:
        address = plain_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), _NETWORK_BITS), strict=False))
    return str(address)
