"""Parsers of setting values: sizes, rates, times, addresses. Each raises ValueError that says what would be right."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N", int, float)
Network: TypeAlias = IPv4Network | IPv6Network

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z/]*)")
_PRICE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s+(\w{1,8}|[$€£¥])")
_SIZE_UNITS = {
    "": 1.0,
    "b": 1.0,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "tb": 1e12,
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
    "tib": 2.0**40,
}
_RATE_UNITS = {**_SIZE_UNITS, "bit": 1 / 8, "kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class HostPort:
    """A TCP address. `str()` brackets an IPv6 host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Price:
    """Of a GB, 10^9 bytes."""

    per_gb: float
    currency: str

    def __str__(self) -> str:
        return f"{self.per_gb:g} {self.currency}"


def _number(text: str, units: dict[str, float], expected: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    value = float(match[1]) * units.get(match[2].lower(), math.nan) if match else math.nan
    if not math.isfinite(value):
        raise ValueError(expected)
    return value


def parse_price(text: str) -> Price:
    """`0.09 USD`: of a GB."""
    match = _PRICE.fullmatch(text.strip())
    if match is None:
        raise ValueError("expected what a GB costs, and the currency, such as 0.09 USD")
    return Price(float(match[1]), match[2])


def parse_size(text: str) -> int:
    """`10GiB`, `500MB`, `4096` -> bytes."""
    return int(_number(text, _SIZE_UNITS, "expected a size such as 10GiB, 500MB or 4096"))


def parse_rate(text: str) -> int:
    """`100Mbit` (bits a second) or `10MiB/s` -> bytes a second; 0 is no limit."""
    each = text.strip().lower().removesuffix("/s").removesuffix("ps")
    return int(_number(each, _RATE_UNITS, "expected a rate such as 100Mbit, 10MiB/s, or 0 for no limit"))


def parse_duration(text: str) -> float:
    """`500ms`, `10s`, `5min`, `1h` -> seconds."""
    return _number(text, _TIME_UNITS, "expected a time such as 500ms, 10s, 5min or 1h")


def parse_bool(text: str) -> bool:
    """true or false."""
    lowered = text.strip().lower()
    if lowered in ("true", "yes", "on", "1"):
        return True
    if lowered in ("false", "no", "off", "0"):
        return False
    raise ValueError("expected true or false")


def parse_int(text: str) -> int:
    """A whole number, not negative."""
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise ValueError("expected a whole number")
    return int(text)


def parse_host_port(text: str) -> HostPort:
    """`127.0.0.1:65001`, `[::1]:65001`, `node-1:65001`; an empty host means every interface; port 0 a free one."""
    expected = "expected HOST:PORT, for example 127.0.0.1:65001 or [::1]:65001"
    host, separator, port = text.strip().rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(expected)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "/" in host or "@" in host or any(c.isspace() for c in host):
        raise ValueError(expected)
    return HostPort(host or "0.0.0.0", int(port))


def parse_reachable(text: str) -> HostPort:
    """As parse_host_port(), of one interface and one port: for others to connect to."""
    address = parse_host_port(text)
    if address.port == 0 or address.host in ("0.0.0.0", "::"):
        raise ValueError("expected an address that peers can connect to")
    return address


def parse_numeric(text: str) -> HostPort:
    """As parse_reachable(), of a numeric address: no name server is asked for it."""
    address = parse_reachable(text)
    try:
        plain_address(address.host)
    except ValueError:
        raise ValueError("expected a numeric address such as 10.0.0.7:65002") from None
    return address


def plain_address(host: str) -> IPv4Address | IPv6Address:
    """A numeric address; one of IPv4 that comes in the form of IPv6 as what it is. Raises ValueError."""
    address = ipaddress.ip_address(host)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener there. A name counts only where it is `localhost`."""
    try:
        return plain_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def parse_network(text: str) -> Network:
    """`10.0.0.0/8`, `fd00::/8`, or one address."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        raise ValueError("expected a network such as 10.0.0.0/8, or an address") from None


def parse_url(text: str) -> str:
    """An http or https URL without credentials, path or query; a final slash is dropped."""
    expected = "expected a URL such as https://registry.example.com or http://10.0.0.1:65000"
    try:
        parts = urlsplit(text.strip())
        port_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(expected) from None
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or not plain or not port_fine:
        raise ValueError(expected)
    return f"{parts.scheme}://{parts.netloc}"


def parse_zone(text: str) -> str:
    """`REGION/ZONE/RACK`; parts may be left empty from the right."""
    parts = text.strip().split("/")
    if len(parts) > 3 or any(len(part) > 64 or not part.isprintable() or " " in part for part in parts):
        raise ValueError("expected REGION/ZONE/RACK, for example eu/eu-1/rack7")
    return "/".join(parts)


def parse_path(text: str) -> Path:
    """A path; `~` is the user's home."""
    if not text.strip():
        raise ValueError("expected a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("there is no such user") from None


def parse_text(text: str) -> str:
    """Any text that is not empty."""
    if not text.strip():
        raise ValueError("expected a value")
    return text.strip()


def one_of(*words: str) -> Callable[[str], str]:
    """Reads one of these words."""

    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}")
        return text.strip().lower()

    return parse


def within(parse: Callable[[str], N], least: float, most: float, expected: str) -> Callable[[str], N]:
    """Reads what `parse` does, if it is from `least` to `most`; `expected` says what would be right."""

    def parse_within(text: str) -> N:
        value = parse(text)
        if not least <= value <= most:
            raise ValueError(f"expected {expected}")
        return value

    return parse_within
