"""The peer's settings, each default with its reason beside it. Read nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.registry import origins
from proto.config import settings
from proto.config.rates import Rate, parse_daily_rate
from proto.config.service_settings import SERVICE_REMOVED, ServiceSettings, address
from proto.config.settings import default_data_dir, option
from proto.config.values import (
    HostPort,
    parse_bool,
    parse_duration,
    parse_int,
    parse_path,
    parse_text,
    parse_url,
    parse_zone,
    within,
)
from proto.errors import ConfigError, NameInvalid
from proto.oci.upstreams import DOCKER_HUB_URL, normalise_authority, split_authority
from proto.wire.join import parse_join_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from proto.wire.join import JoinToken

# Options of earlier releases: one that is still set is a warning, since a node needs its peer to start.
REMOVED: Final = {**SERVICE_REMOVED, "prefetch": "layers are no longer begun before a client asks for them"}


def _parse_token_file(text: str) -> Path:
    """A path, and not the token itself, which would be told wherever the file cannot be read."""
    try:
        parse_join_token(text)
    except ValueError:
        return parse_path(text)
    raise ValueError("expected a file; this is the token itself: write it into a file, or set LAYERCAST_JOIN")


def _parse_tunnel_host(text: str) -> str:
    """`HOST` or `HOST:PORT` -> HOST:PORT, normalised."""
    try:
        host, port = split_authority(normalise_authority(text.strip()), 443)
    except NameInvalid:
        raise ValueError("expected HOST or HOST:PORT") from None
    return str(HostPort(host, port))


@dataclass(frozen=True, kw_only=True)
class PeerConfig(ServiceSettings):
    """In addition to ServiceSettings. Rates in bytes/s, 0 for no limit; None: not set."""

    PLACES = origins.PLACES

    supernode: str | None = option(
        parse_url, None, "URL of the supernode; without one, a pull-through cache", metavar="URL"
    )
    join: JoinToken | None = option(
        parse_join_token,
        None,
        "token with which this node becomes a member, once; better in --join-file, since processes are listed",
        metavar="TOKEN",
        secret=True,
    )
    join_file: Path | None = option(
        _parse_token_file,
        None,
        "file that holds the token; read only while this node has no certificate",
        metavar="FILE",
    )
    open: bool = option(
        parse_bool, False, "use a supernode that was started with --open: no certificates, no TLS; for trials"
    )
    listen: HostPort = address(HostPort("127.0.0.1", 65001), "proxy for this node's clients")
    upload_listen: HostPort = address(HostPort("0.0.0.0", 65002), "where peers fetch pieces")
    torrent_listen: HostPort = address(
        HostPort("0.0.0.0", 65004),
        'where peers fetch pieces if the supernode has transport = "torrent"; unused otherwise',
    )
    status_listen: HostPort | None = address(None, "/healthz and /metrics; by default as --listen")
    mirror_hosts: tuple[str, ...] = option(
        parse_text,
        (),
        "further name by which clients address the mirror, or * for any; others are refused, as a web page could have "
        "its own name lead here",
        multiple=True,
        metavar="HOST",
    )
    forward_proxy: bool = option(
        parse_bool,
        True,
        "false: no CONNECT and no whole URLs on --listen, where clients' HTTPS_PROXY may point",
        reloadable=True,
    )
    tunnel_hosts: tuple[str, ...] = option(
        _parse_tunnel_host,
        (),
        "further host, port 443 or as named, that the forward proxy tunnels to, also at a private address; the only "
        "ones where --listen is not on loopback",
        multiple=True,
        reloadable=True,
        metavar="HOST[:PORT]",
    )
    push: bool = option(
        parse_bool,
        True,
        "false: clients may not push through the mirror; true: as the registry allows it",
        reloadable=True,
    )
    access_log: str | None = option(
        parse_text,
        None,
        "file with a line for each request of a client, or - for standard output; none by default. Whoever rotates it "
        "moves it away",
        metavar="FILE",
    )
    data_dir: Path = option(
        parse_path, default_data_dir() / "peer", "folder of the store, the state file and the key; one process each"
    )
    default_upstream: str = option(
        parse_url,
        DOCKER_HUB_URL,
        "registry of requests that name none; docker and podman mean Docker Hub",
        reloadable=True,
        metavar="URL",
    )
    tag_ttl_s: float = option(
        within(parse_duration, 0.0, 3600.0, "0s to 1h"),
        1.0,
        "seconds; the origin is asked no more often what a tag names, by clients with one credential; 0s: each time, "
        "but for those who ask at once",
    )
    range_prefetch: bool = option(
        parse_bool,
        False,
        "true: of a layer that a client reads by ranges (a lazy format) all the rest comes too, after these",
    )
    supernode_patience_s: float = option(
        within(parse_duration, 0.0, 3600.0, "0s to 1h"),
        45.0,
        "how long a silent supernode is waited for before this node asks origins itself; 6 s, if that is less, for one "
        "that hung up",
    )
    zone: str = option(parse_zone, "", "where this node is; near peers are preferred", metavar="REGION/ZONE/RACK")
    download_rate: Rate = option(
        parse_daily_rate, Rate(), "limit of what is taken from peers, a second; 0 for none", reloadable=True
    )
    upload_slots: int = option(
        within(parse_int, 1, 64, "1 to 64"), 8, "transfers to peers at a time; more share one link no better"
    )
    download_slots: int = option(
        within(parse_int, 1, 64, "1 to 64"), 8, "transfers from peers at a time; each has a thread and 256 KiB"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.open and (self.join is not None or self.join_file is not None):
            raise ConfigError("--open: a node without certificates needs no join token; give one of the two")


def load(argv: Sequence[str], environ: Mapping[str, str]) -> PeerConfig:
    """Flags over environment over file over defaults. Raises ConfigError; exits for --help and its kin."""
    return settings.load(
        "layercast-peer",
        "The node's registry mirror: pulls layers from other nodes, and from the origin what no node holds.",
        PeerConfig,
        argv,
        environ,
        removed=REMOVED,
    )
