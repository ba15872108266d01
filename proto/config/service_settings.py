"""The options that both services have: store, uploads, upstreams, log. Each declares its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from proto.config.rates import Rate, at_least, parse_daily_rate
from proto.config.settings import Settings, option
from proto.config.upstream_sections import upstreams_of
from proto.config.values import (
    one_of,
    parse_bool,
    parse_duration,
    parse_host_port,
    parse_int,
    parse_rate,
    parse_reachable,
    parse_size,
    parse_text,
    parse_url,
    within,
)
from proto.oci.upstreams import DOCKER_HUB_URL, UpstreamTable

if TYPE_CHECKING:
    from proto.config.upstream_sections import Places
    from proto.config.values import HostPort

GIB: Final = 1 << 30
# Far above what is given up as too slow (origin_rate_min).
ORIGIN_RATE_LEAST_BYTES_S: Final = 64 << 10
# Options of earlier releases.
SERVICE_REMOVED: Final = {
    "public_ttl": "permission_ttl is the one time for all that origins say of who may read; set it on all nodes alike",
    "public_outage": "what is said of a registry that is down counts for stale_if_down, and not by default",
}


def address(default: HostPort | None, help: str) -> Any:
    """An option that is an address to listen at; port 0 is any free one."""
    return option(parse_host_port, default, help, metavar="HOST:PORT")


@dataclass(frozen=True, kw_only=True)
class ServiceSettings(Settings):
    """Sizes in bytes, rates in bytes/s, 0 for no limit; None: not set. Raises ConfigError for a wrong upstream."""

    # What the keys of an upstream's section may name beside a registry.
    PLACES: ClassVar[Places]

    advertise: HostPort | None = option(
        parse_reachable,
        None,
        "upload address that other nodes use; by default the host where peer and supernode reach each other",
        metavar="HOST:PORT",
    )
    p2p: bool = option(parse_bool, True, "false: share nothing, let pulls pass through", reloadable=True)
    allow_upstream: tuple[str, ...] = option(
        parse_text, (), "further https registry", multiple=True, reloadable=True, metavar="HOST"
    )
    insecure_upstream: tuple[str, ...] = option(
        parse_text, (), "plain-http registry", multiple=True, reloadable=True, metavar="HOST:PORT"
    )
    store_size_bytes: int = option(
        within(parse_size, 1, math.inf, "at least 1 byte"),
        50 * GIB,
        "size limit of the store, bytes: a day's images of a cluster, a node's of some weeks",
    )
    store_free_floor_bytes: int = option(
        parse_size, 2 * GIB, "bytes left free on the store's disk, for logs, state and the machine's own needs"
    )
    verify_after_s: float = option(
        parse_duration,
        86_400.0,
        "seconds; what was not checked for so long is checked against its piece hashes while it is sent; 0: every time",
    )
    scrub_interval_s: float = option(
        parse_duration, 7 * 86_400.0, "seconds in which every blob of the store is read once, to find rot; 0: never"
    )
    scrub_rate_bytes_s: int = option(
        within(parse_rate, 1, math.inf, "at least 1 byte/s"),
        8 << 20,
        "how fast that reads, bits or bytes a second: 50 GiB in two hours, and no disk feels it",
    )
    upload_rate: Rate = option(
        parse_daily_rate,
        Rate(),
        "limit of what is sent to peers, bits or bytes a second; 0 for none. As with each rate here another may count "
        "at hours of each day: 50MiB, 22:00-06:00 = 500MiB",
        reloadable=True,
    )
    origin_rate: Rate = option(
        at_least(ORIGIN_RATE_LEAST_BYTES_S, "at least 64KiB/s, or 0 for no limit"),
        Rate(),
        "limit of the blobs that this process takes from each origin, bits or bytes a second; 0 for none. The "
        "supernode's is for all nodes, a peer's for what it asks itself",
        reloadable=True,
    )
    upload_slots: int = option(
        within(parse_int, 1, math.inf, "at least 1"), 8, "transfers to peers at a time; more share one link no better"
    )
    permission_ttl_s: float = option(
        within(parse_duration, 0.0, 3600.0, "0s to 1h"),
        60.0,
        "seconds; what an origin said of who may read a blob counts so long from when it was asked, on the way to a "
        "client's node and there together, and no longer than a token says; alike on all nodes",
    )
    stale_if_down_s: float = option(
        parse_duration,
        0.0,
        "seconds for which the last such word counts while its origin is down or hangs, of public blobs also while it "
        "answers 429; a node then answers its clients what they were answered before, manifests too; 0: not at all",
    )
    origin_first_byte_s: float = option(
        within(parse_duration, 1.0, 3600.0, "1s to 1h"),
        120.0,
        "how long an origin may take for an answer's first byte: some scan an image before they send it",
    )
    origin_rate_min_bytes_s: int = option(
        parse_rate, 1024, "a body from an origin that comes slower than this for 30 s is given up, bytes/s; 0: never"
    )
    encrypt: str = option(
        one_of("private", "all"),
        "private",
        "which pieces travel by TLS between nodes: those of private blobs, or all, which costs CPU; alike on all nodes",
    )
    log_level: str = option(
        one_of("debug", "info", "warning", "error"), "info", "debug, info, warning or error", reloadable=True
    )
    log_json: bool = option(parse_bool, False, "log lines as JSON")

    otlp_endpoint: str | None = option(
        parse_url,
        None,
        "URL of a collector that takes OTLP over HTTP (http://127.0.0.1:4318): traces go there; none by default. Needs "
        "layercast[tracing]",
        metavar="URL",
    )
    trace_percent: int = option(
        within(parse_int, 1, 100, "1 to 100"), 100, "of the clients' requests so many have a trace"
    )

    # Where requests go that name no registry.
    default_upstream: str = DOCKER_HUB_URL
    upstreams: UpstreamTable = field(init=False)

    def __post_init__(self) -> None:
        table = UpstreamTable.build(
            allow=self.allow_upstream,
            insecure=self.insecure_upstream,
            sections=upstreams_of(self.upstream_tables, self.PLACES),
            default_url=self.default_upstream,
        )
        object.__setattr__(self, "upstreams", table)
