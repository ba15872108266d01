"""The supernode's settings: every option once, and the frozen dataclass that the rest of the program is given.

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
)
from proto.errors import ConfigError
from proto.oci.upstreams import UpstreamTable
from proto.wire.messages import SCHEDULED, TORRENT
from supernode.scheduler import build as scheduler_build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GIB: Final = 1 << 30
# The header takes a few of them.
EVENT_LOG_BYTES_MIN: Final = 64 << 10

LISTEN = Option(
    "listen", parse_host_port, HostPort("0.0.0.0", 65000), "sessions, /healthz, /metrics", metavar="HOST:PORT"
)
UPLOAD_LISTEN = Option(
    "upload_listen", parse_host_port, HostPort("0.0.0.0", 65003), "where peers fetch pieces", metavar="HOST:PORT"
)
TRANSPORT = Option(
    "transport",
    parse_text,
    SCHEDULED,
    "how pieces travel between all nodes: scheduled, by leases of this supernode, or torrent, by BitTorrent",
    metavar="NAME",
)
TORRENT_LISTEN = Option(
    "torrent_listen",
    parse_host_port,
    HostPort("0.0.0.0", 65005),
    'where peers fetch pieces with transport = "torrent"; unused otherwise',
    metavar="HOST:PORT",
)
ADVERTISE = Option(
    "advertise",
    parse_host_port,
    None,
    "upload address that peers are told; unless given, the address at which each peer reached --listen",
    metavar="HOST:PORT",
)
DATA_DIR = Option(
    "data_dir",
    parse_path,
    default_data_dir() / "supernode",
    "folder of the store, the state file and the key; one process each",
)
ALLOW_UPSTREAM = Option(
    "allow_upstream", parse_text, (), "further https registry", multiple=True, reloadable=True, metavar="HOST"
)
INSECURE_UPSTREAM = Option(
    "insecure_upstream", parse_text, (), "plain-http registry", multiple=True, reloadable=True, metavar="HOST:PORT"
)
STORE_SIZE = Option("store_size", parse_size, 50 * GIB, "size limit of the store, bytes: a day's images of a cluster")
STORE_FREE_FLOOR = Option(
    "store_free_floor", parse_size, 2 * GIB, "bytes left free on the store's disk, so that logs and state still fit"
)
UPLOAD_RATE = Option(
    "upload_rate",
    parse_rate,
    0,
    "limit of what is sent to peers, bits or bytes a second; 0 for none (1 Gbit/s is then assumed where it matters)",
    reloadable=True,
)
UPLOAD_SLOTS = Option("upload_slots", parse_int, 8, "transfers to peers at a time; more share one link no better")
P2P = Option("p2p", parse_bool, True, "false: refuse to share, so that peers pass pulls through", reloadable=True)
SESSIONS_MAX = Option("sessions_max", parse_int, 20_000, "peers connected at a time; about 30 KiB of memory each")
PING_INTERVAL = Option(
    "ping_interval",
    parse_duration,
    2.0,
    "seconds; silence of 1.5 is a ping, of 3 the end of a session (peers rely on 2 s)",
)
RECOVERY = Option(
    "recovery", parse_duration, 5.0, "seconds after a start in which peers may return before the origin is asked again"
)
EVENT_LOG = Option(
    "event_log",
    parse_path,
    None,
    "record what the scheduler is told and decides in this file, to be replayed by layercast-bench sim --replay",
    metavar="FILE",
)
EVENT_LOG_SIZE = Option(
    "event_log_size", parse_size, 256 << 20, "limit of that file, bytes: 4 million leases; recording stops there"
)
LOG_LEVEL = Option("log_level", parse_log_level, "info", "debug, info, warning or error", reloadable=True)
LOG_JSON = Option("log_json", parse_bool, False, "log lines as JSON")

OPTIONS: Final = (
    LISTEN, UPLOAD_LISTEN, TRANSPORT, TORRENT_LISTEN, ADVERTISE, DATA_DIR, ALLOW_UPSTREAM, INSECURE_UPSTREAM,
    STORE_SIZE, STORE_FREE_FLOOR, UPLOAD_RATE, UPLOAD_SLOTS, P2P, SESSIONS_MAX, PING_INTERVAL, RECOVERY,
    EVENT_LOG, EVENT_LOG_SIZE, LOG_LEVEL, LOG_JSON,
)  # fmt: skip

# Of earlier releases. A supernode that no longer starts would cost a cluster more than a line in its log.
REMOVED: Final = {"datagrams": "control goes by TCP alone, datagrams are gone"}


@dataclass(frozen=True, slots=True)
class SupernodeConfig:
    """See the options of the same names. `advertise` None: what each peer sees. `warnings`: lines for the log."""

    listen: HostPort
    upload_listen: HostPort
    transport: str
    torrent_listen: HostPort
    advertise: HostPort | None
    data_dir: Path
    upstreams: UpstreamTable
    store_size_bytes: int
    store_free_floor_bytes: int
    upload_rate_bytes_s: int
    upload_slots: int
    p2p: bool
    sessions_max: int
    ping_interval_s: float
    recovery_s: float
    event_log: Path | None
    event_log_size_bytes: int
    log_level: str
    log_json: bool
    warnings: tuple[str, ...] = ()


def load(argv: Sequence[str], environ: Mapping[str, str]) -> SupernodeConfig:
    """Flags over environment over file over defaults. Raises ConfigError; exits for --help and its kin."""
    loaded = settings.load(
        "layercast-supernode",
        "Asks origin registries for each image layer once and schedules its pieces across the peers.",
        OPTIONS,
        argv,
        environ,
        build=f"({scheduler_build()} scheduler)",
        removed=REMOVED,
    )
    for option in (UPLOAD_SLOTS, SESSIONS_MAX, STORE_SIZE):
        if loaded.get(option) < 1:
            raise ConfigError(f"{option.flag} {loaded.get(option)}: at least 1 expected")
    if not 0.05 <= loaded.get(PING_INTERVAL) <= 60.0:
        raise ConfigError(f"{PING_INTERVAL.flag} {loaded.get(PING_INTERVAL)}: 50ms to 60s expected")
    if loaded.get(EVENT_LOG_SIZE) < EVENT_LOG_BYTES_MIN:
        raise ConfigError(f"{EVENT_LOG_SIZE.flag} {loaded.get(EVENT_LOG_SIZE)}: at least 64KiB expected")
    if loaded.get(TRANSPORT) not in (SCHEDULED, TORRENT):
        raise ConfigError(f"{TRANSPORT.flag} {loaded.get(TRANSPORT)}: {SCHEDULED} or {TORRENT} expected")
    advertise = loaded.optional(ADVERTISE)
    if advertise is not None and (advertise.port == 0 or advertise.host in ("0.0.0.0", "::")):
        raise ConfigError(f"--advertise {advertise}: an address that peers can connect to expected")
    return SupernodeConfig(
        listen=loaded.get(LISTEN),
        upload_listen=loaded.get(UPLOAD_LISTEN),
        transport=loaded.get(TRANSPORT),
        torrent_listen=loaded.get(TORRENT_LISTEN),
        advertise=advertise,
        data_dir=loaded.get(DATA_DIR),
        upstreams=UpstreamTable.build(
            allow=loaded.many(ALLOW_UPSTREAM),
            insecure=loaded.many(INSECURE_UPSTREAM),
            sections=upstreams_of(loaded.upstream_tables, PLACES),
        ),
        store_size_bytes=loaded.get(STORE_SIZE),
        store_free_floor_bytes=loaded.get(STORE_FREE_FLOOR),
        upload_rate_bytes_s=loaded.get(UPLOAD_RATE),
        upload_slots=loaded.get(UPLOAD_SLOTS),
        p2p=loaded.get(P2P),
        sessions_max=loaded.get(SESSIONS_MAX),
        ping_interval_s=loaded.get(PING_INTERVAL),
        recovery_s=loaded.get(RECOVERY),
        event_log=loaded.optional(EVENT_LOG),
        event_log_size_bytes=loaded.get(EVENT_LOG_SIZE),
        log_level=loaded.get(LOG_LEVEL),
        log_json=loaded.get(LOG_JSON),
        warnings=loaded.warnings,
    )
