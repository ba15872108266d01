"""The peer's settings: every option once, and the frozen dataclass that the rest of the program is given.

Read here alone. Each default has its reason beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.registry.origins import PLACES
from proto.config import settings
from proto.config.settings import Option, default_data_dir
from proto.config.upstream_sections import upstreams_of
from proto.config.values import (
    HostPort,
    parse_bool,
    parse_duration,
    parse_host_port,
    parse_int,
    parse_log_level,
    parse_path,
    parse_rate,
    parse_size,
    parse_text,
    parse_url,
    parse_zone,
)
from proto.errors import ConfigError
from proto.oci.upstreams import UpstreamTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GIB: Final = 1 << 30

SUPERNODE = Option(
    "supernode", parse_url, None, "URL of the supernode; without one, a pull-through cache", metavar="URL"
)
LISTEN = Option(
    "listen", parse_host_port, HostPort("127.0.0.1", 65001), "proxy for this node's clients", metavar="HOST:PORT"
)
UPLOAD_LISTEN = Option(
    "upload_listen", parse_host_port, HostPort("0.0.0.0", 65002), "where peers fetch pieces", metavar="HOST:PORT"
)
ADVERTISE = Option(
    "advertise",
    parse_host_port,
    None,
    "upload address that others are told; unless given, the host at which the supernode sees this node",
    metavar="HOST:PORT",
)
TORRENT_LISTEN = Option(
    "torrent_listen",
    parse_host_port,
    HostPort("0.0.0.0", 65004),
    'where peers fetch pieces if the supernode has transport = "torrent"; unused otherwise',
    metavar="HOST:PORT",
)
STATUS_LISTEN = Option(
    "status_listen", parse_host_port, None, "/healthz and /metrics; unless given, as --listen", metavar="HOST:PORT"
)
DATA_DIR = Option(
    "data_dir",
    parse_path,
    default_data_dir() / "peer",
    "folder of the store, the state file and the key; one process each",
)
DEFAULT_UPSTREAM = Option(
    "default_upstream",
    parse_url,
    "https://registry-1.docker.io",
    "registry of requests that name none; docker and podman mean Docker Hub",
    reloadable=True,
    metavar="URL",
)
ALLOW_UPSTREAM = Option(
    "allow_upstream", parse_text, (), "further https registry", multiple=True, reloadable=True, metavar="HOST"
)
INSECURE_UPSTREAM = Option(
    "insecure_upstream", parse_text, (), "plain-http registry", multiple=True, reloadable=True, metavar="HOST:PORT"
)
ZONE = Option("zone", parse_zone, "", "where this node is; near peers are preferred", metavar="REGION/ZONE/RACK")
STORE_SIZE = Option("store_size", parse_size, 50 * GIB, "size limit of the store, bytes: a node's images of some weeks")
STORE_FREE_FLOOR = Option(
    "store_free_floor", parse_size, 2 * GIB, "bytes left free on the store's disk for the node's own needs"
)
UPLOAD_RATE = Option(
    "upload_rate", parse_rate, 0, "limit of what is sent to peers, bits or bytes a second; 0 for none", reloadable=True
)
DOWNLOAD_RATE = Option(
    "download_rate", parse_rate, 0, "limit of what is taken from peers, a second; 0 for none", reloadable=True
)
UPLOAD_SLOTS = Option("upload_slots", parse_int, 8, "transfers to peers at a time; more share one link no better")
DOWNLOAD_SLOTS = Option("download_slots", parse_int, 8, "transfers from peers at a time; each has a thread and 256 KiB")
PUBLIC_TTL = Option(
    "public_ttl", parse_duration, 3600.0, "how long an origin's word that it gives a blob to anyone is believed"
)
P2P = Option("p2p", parse_bool, True, "false: share nothing, pass every pull through", reloadable=True)
LOG_LEVEL = Option("log_level", parse_log_level, "info", "debug, info, warning or error", reloadable=True)
LOG_JSON = Option("log_json", parse_bool, False, "log lines as JSON")

OPTIONS: Final = (
    SUPERNODE, LISTEN, UPLOAD_LISTEN, TORRENT_LISTEN, ADVERTISE, STATUS_LISTEN, DATA_DIR, DEFAULT_UPSTREAM,
    ALLOW_UPSTREAM, INSECURE_UPSTREAM, ZONE, STORE_SIZE, STORE_FREE_FLOOR, UPLOAD_RATE, DOWNLOAD_RATE, UPLOAD_SLOTS,
    DOWNLOAD_SLOTS, PUBLIC_TTL, P2P, LOG_LEVEL, LOG_JSON,
)  # fmt: skip

# Of earlier releases. A node that no longer starts would cost its pulls more than a line in its log.
REMOVED: Final = {"prefetch": "layers are no longer begun before a client asks for them"}

SLOTS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """See the options of the same names. Rates in bytes/s, 0: no limit; None: not given. `warnings`: for the log."""

    supernode: str | None
    listen: HostPort
    upload_listen: HostPort
    torrent_listen: HostPort
    advertise: HostPort | None
    status_listen: HostPort | None
    data_dir: Path
    upstreams: UpstreamTable
    zone: str
    store_size_bytes: int
    store_free_floor_bytes: int
    upload_rate_bytes_s: int
    download_rate_bytes_s: int
    upload_slots: int
    download_slots: int
    public_ttl_s: float
    p2p: bool
    log_level: str
    log_json: bool
    warnings: tuple[str, ...]


def load(argv: Sequence[str], environ: Mapping[str, str]) -> PeerConfig:
    """Flags over environment over file over defaults. Raises ConfigError; exits for --help and its kin."""
    loaded = settings.load(
        "layercast-peer",
        "The node's registry mirror: pulls layers from other nodes, and from the origin what no node holds.",
        OPTIONS,
        argv,
        environ,
        removed=REMOVED,
    )
    if loaded.get(STORE_SIZE) < 1:
        raise ConfigError(f"{STORE_SIZE.flag} {loaded.get(STORE_SIZE)}: at least 1 byte expected")
    for option in (UPLOAD_SLOTS, DOWNLOAD_SLOTS):
        if not 1 <= loaded.get(option) <= SLOTS_MAX:
            raise ConfigError(f"{option.flag} {loaded.get(option)}: 1 to {SLOTS_MAX} expected")
    advertise = loaded.optional(ADVERTISE)
    if advertise is not None and (advertise.port == 0 or advertise.host in ("0.0.0.0", "::")):
        raise ConfigError(f"--advertise {advertise}: an address that peers can connect to expected")
    return PeerConfig(
        supernode=loaded.optional(SUPERNODE),
        listen=loaded.get(LISTEN),
        upload_listen=loaded.get(UPLOAD_LISTEN),
        torrent_listen=loaded.get(TORRENT_LISTEN),
        advertise=advertise,
        status_listen=loaded.optional(STATUS_LISTEN),
        data_dir=loaded.get(DATA_DIR),
        upstreams=UpstreamTable.build(
            allow=loaded.many(ALLOW_UPSTREAM),
            insecure=loaded.many(INSECURE_UPSTREAM),
            sections=upstreams_of(loaded.upstream_tables, PLACES),
            default_url=loaded.get(DEFAULT_UPSTREAM),
        ),
        zone=loaded.get(ZONE),
        store_size_bytes=loaded.get(STORE_SIZE),
        store_free_floor_bytes=loaded.get(STORE_FREE_FLOOR),
        upload_rate_bytes_s=loaded.get(UPLOAD_RATE),
        download_rate_bytes_s=loaded.get(DOWNLOAD_RATE),
        upload_slots=loaded.get(UPLOAD_SLOTS),
        download_slots=loaded.get(DOWNLOAD_SLOTS),
        public_ttl_s=loaded.get(PUBLIC_TTL),
        p2p=loaded.get(P2P),
        log_level=loaded.get(LOG_LEVEL),
        log_json=loaded.get(LOG_JSON),
        warnings=loaded.warnings,
    )
