"""Upstreams: the registries we may ask, what they are called, and how the operator wants them asked.

Names, configuration and the allow-list; no sockets. A name from a client is normalised here and then looked up:
what is not in the table is never connected to.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from proto.errors import ConfigError, NameInvalid, UpstreamNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DOCKER_HUB = "docker.io"
# One origin under three names: what users write, what old clients keep credentials under, and the API's host.
_DOCKER_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
DOCKER_HUB_URL = "https://registry-1.docker.io"

# The registries that public images come from; each speaks https on 443.
WELL_KNOWN_HOSTS = (
    "docker.io",
    "gcr.io",
    "ghcr.io",
    "icr.io",
    "k8s.gcr.io",
    "lscr.io",
    "mcr.microsoft.com",
    "nvcr.io",
    "public.ecr.aws",
    "quay.io",
    "registry.access.redhat.com",
    "registry.fedoraproject.org",
    "registry.gitlab.com",
    "registry.k8s.io",
    "registry.opensuse.org",
    "registry.redhat.io",
    "registry.suse.com",
)

_NAME_LENGTH_MAX = 255
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:]+)(?::(?P<port>[0-9]{1,5}))?")


def normalise_upstream(name: str) -> str:
    """The one spelling of a registry's `HOST` or `HOST:PORT`: lower-case, docker.io for its other names.

    Raises NameInvalid for user information, paths, control characters and anything else that is no authority.
    """
    authority = normalise_authority(name)
    return DOCKER_HUB if authority.removesuffix(":443") in _DOCKER_HUB_NAMES else authority


def normalise_authority(name: str) -> str:
    """The same for any `HOST` or `HOST:PORT`, without a view of what registry it is. Raises NameInvalid."""
    if not 0 < len(name) <= _NAME_LENGTH_MAX or not name.isascii():
        raise NameInvalid(f"registry {_shown(name)}: HOST or HOST:PORT expected")
    match = _AUTHORITY.fullmatch(name.lower())
    if match is None:
        raise NameInvalid(f"registry {_shown(name)}: HOST or HOST:PORT expected")
    host, port = match["host"], match["port"]
    if host.startswith("["):
        host = _normalise_ipv6(host, name)
    elif not _HOST_NAME.fullmatch(host):
        raise NameInvalid(f"registry {_shown(name)}: not a host name")
    if port is not None and not 1 <= int(port) <= 65535:
        raise NameInvalid(f"registry {_shown(name)}: a port is 1 to 65535")
    return host if port is None else f"{host}:{int(port)}"


def split_authority(authority: str, default_port: int) -> tuple[str, int]:
    """(host, port) of a normalised name; an IPv6 host comes without its brackets."""
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, str(default_port)
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """How one registry is asked. Paths of files are read when the first connection is made.

    `host` is the normalised name, `url` its scheme and authority. `configured` says that an operator named it:
    only then may its redirects and its token service have addresses that are not public. `redirect_hosts`
    are further names (HOST or HOST:PORT) that its redirects and token service may have there. `shared` says that every
    local client may read with `client_cert`; else it serves this node's own requests alone.
    `egress_proxy` is the http URL of a proxy through which it is reached. An origin that is no registry has a `kind`
    (the key of its section that says so) and a `place` (that key's value); its `url` is empty.
    """

    host: str
    url: str
    configured: bool = False
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    # It may hold a password.
    egress_proxy: str | None = field(default=None, repr=False)
    redirect_hosts: tuple[str, ...] = ()
    shared: bool = False
    # Where the supernode's own login is to be had: docker-config, helper:NAME or file:PATH; empty for none.
    credentials: str = ""
    kind: str = ""
    place: str = ""

    @property
    def insecure(self) -> bool:
        """Whether it is asked over plain http."""
        return self.url.startswith("http:")

    @property
    def authority(self) -> str:
        """HOST or HOST:PORT that is connected to, which for docker.io is not its name."""
        return self.url.partition("://")[2]

    def facts(self) -> dict[str, str | bool]:
        """Where it is, for the operator's eyes; nothing that is secret."""
        return {
            "host": self.host,
            "url": self.url,
            "ca_file": "" if self.ca_file is None else str(self.ca_file.absolute()),
            "by_proxy": self.egress_proxy is not None,
            "by_certificate": self.client_cert is not None,
            "kind": self.kind,
            "place": self.place,
        }


def upstream_from_url(url: str) -> UpstreamConfig:
    """The configuration that an operator means by `https://HOST[:PORT]` or `http://HOST[:PORT]`.

    Raises ConfigError for any other URL.
    """
    wanted = f"upstream url {url!r}: expected https://HOST[:PORT] or http://HOST[:PORT]"
    try:
        parts = urlsplit(url)
        host = normalise_upstream(parts.netloc)
    except (ValueError, NameInvalid) as error:
        raise ConfigError(wanted) from error
    if parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(wanted)
    if host == DOCKER_HUB and parts.scheme == "https":
        return UpstreamConfig(DOCKER_HUB, DOCKER_HUB_URL)
    return UpstreamConfig(host, f"{parts.scheme}://{host}", configured=True)


def well_known_upstreams() -> list[UpstreamConfig]:
    """The public registries that are allowed unless the operator says otherwise."""
    return [
        UpstreamConfig(host, DOCKER_HUB_URL if host == DOCKER_HUB else f"https://{host}") for host in WELL_KNOWN_HOSTS
    ]


class UpstreamTable:
    """The allow-list: every registry that may be asked, by its normalised name, and the default one."""

    def __init__(self, upstreams: Iterable[UpstreamConfig], default: str = DOCKER_HUB) -> None:
        """Later entries of the same host replace earlier ones. Raises ConfigError if the default is missing."""
        self._by_host = {upstream.host: upstream for upstream in upstreams}
        if default not in self._by_host:
            raise ConfigError(f"default upstream {default!r}: not among the allowed upstreams")
        self._default = default

    @classmethod
    def build(
        cls,
        *,
        allow: Iterable[str] = (),
        insecure: Iterable[str] = (),
        sections: Iterable[UpstreamConfig] = (),
        default_url: str = DOCKER_HUB_URL,
    ) -> UpstreamTable:
        """The table of the well-known registries and what flags and `[upstream."HOST"]` sections add.

        Raises ConfigError naming the value that is wrong.
        """
        default = upstream_from_url(default_url)
        added = [_from_flag("--allow-upstream", "https", name) for name in allow]
        added += [_from_flag("--insecure-upstream", "http", name) for name in insecure]
        return cls([*well_known_upstreams(), default, *added, *sections], default.host)

    @property
    def default(self) -> UpstreamConfig:
        """Whom requests mean that name no registry."""
        return self._by_host[self._default]

    def lookup(self, host: str) -> UpstreamConfig:
        """The configuration of a registry. Raises NameInvalid or UpstreamNotAllowed.

        `HOST:443` finds an https registry listed without its port, and the other way round.
        """
        name = normalise_upstream(host)
        found = self._by_host.get(name)
        if found is None:
            other = name.removesuffix(":443") if name.endswith(":443") else f"{name}:443"
            found = self._by_host.get(other)
            if found is not None and found.insecure:
                found = None
        if found is None:
            raise UpstreamNotAllowed(f"registry {name!r} is not an allowed upstream of this node")
        return found

    def all(self) -> list[UpstreamConfig]:
        """Every one that may be asked."""
        return list(self._by_host.values())

    def configured(self) -> list[UpstreamConfig]:
        """Those that an operator named, in the order of their naming."""
        return [upstream for upstream in self._by_host.values() if upstream.configured]


def _from_flag(flag: str, scheme: str, name: str) -> UpstreamConfig:
    try:
        return upstream_from_url(f"{scheme}://{name}")
    except ConfigError:
        raise ConfigError(f"{flag} {name!r}: HOST or HOST:PORT expected") from None


def _normalise_ipv6(bracketed: str, name: str) -> str:
    try:
        return f"[{ipaddress.IPv6Address(bracketed[1:-1])}]"
    except ValueError as error:
        raise NameInvalid(f"registry {_shown(name)}: not an IPv6 address") from error


def _shown(name: str) -> str:
    """Without the user and password that may stand in front of it: this is logged."""
    return repr(name.rpartition("@")[2][:80])
