"""The supernode's settings, each default with its reason beside it. Read nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peer.registry import origins
from proto.config import settings
from proto.config.rates import Rate, at_least
from proto.config.service_settings import SERVICE_REMOVED, ServiceSettings, address
from proto.config.settings import default_data_dir, option
from proto.config.values import (
    HostPort,
    Network,
    Price,
    one_of,
    parse_bool,
    parse_duration,
    parse_int,
    parse_network,
    parse_path,
    parse_price,
    parse_size,
    within,
)
from proto.errors import ConfigError, RemoteError
from proto.wire.handshake import SCHEDULED, TORRENT
from supernode.registry_events.rules import rules_of
from supernode.registry_events.senders import read_senders
from supernode.scheduler import build as scheduler_build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from supernode.registry_events.rules import Rule
    from supernode.registry_events.senders import Senders

# The header takes a few of them.
EVENT_LOG_BYTES_MIN: Final = 64 << 10

# Options of earlier releases: one that is still set is a warning, since a cluster needs its supernode to start.
REMOVED: Final = {**SERVICE_REMOVED, "datagrams": "control goes by TCP alone, datagrams are gone"}


@dataclass(frozen=True, kw_only=True)
class SupernodeConfig(ServiceSettings):
    """In addition to ServiceSettings. None: not set. Without an upload rate, 1 Gbit/s is assumed where it matters."""

    PLACES = origins.PLACES

    listen: HostPort = address(HostPort("0.0.0.0", 65000), "sessions and the HTTP API, by TLS")
    open: bool = option(
        parse_bool,
        False,
        "admit whoever comes, without certificates or TLS: for trials; peers need the same",
    )
    local_operators: bool = option(
        parse_bool,
        True,
        "false: to connect from this machine makes nobody an operator, as a proxy or port forwarder on it may ask for "
        "anybody; the token does",
    )
    upload_listen: HostPort = address(HostPort("0.0.0.0", 65003), "where peers fetch pieces")
    transport: str = option(
        one_of(SCHEDULED, TORRENT),
        SCHEDULED,
        "how pieces travel between all nodes: scheduled, by leases of this supernode, or torrent, by BitTorrent",
        metavar="NAME",
    )
    torrent_listen: HostPort = address(
        HostPort("0.0.0.0", 65005), 'where peers fetch pieces with transport = "torrent"; unused otherwise'
    )
    data_dir: Path = option(
        parse_path,
        default_data_dir() / "supernode",
        "folder of the store, the state file and the key; one process each",
    )
    advertise_allow: tuple[Network, ...] = option(
        parse_network,
        (),
        "network in which peers may serve pieces although they connect from elsewhere (--advertise of a peer)",
        multiple=True,
        metavar="NETWORK",
    )
    sessions_max: int = option(
        within(parse_int, 1, math.inf, "at least 1"), 20_000, "peers connected at a time; about 80 KiB of memory each"
    )
    ping_interval_s: float = option(
        within(parse_duration, 0.05, 60.0, "50ms to 60s"),
        2.0,
        "seconds; silence of 1.5 is a ping, of 3 the end of a session (peers rely on 2 s)",
    )
    recovery_s: float = option(
        parse_duration, 5.0, "seconds after a start in which peers may return before the origin is used again"
    )
    event_log: Path | None = option(
        parse_path,
        None,
        "record the scheduler's events and decisions in this file, for layercast-bench sim --replay",
        metavar="FILE",
    )
    event_log_size_bytes: int = option(
        within(parse_size, EVENT_LOG_BYTES_MIN, math.inf, "at least 64KiB"),
        256 << 20,
        "limit of that file, bytes: 4 million leases; recording stops there",
    )
    preheat_rate: Rate = option(
        at_least(64 << 10, "at least 64KiB/s, or 0 for no limit"),
        Rate(),
        "limit of what each node is sent of images that no client waits for, bits or bytes a second; 0 for none",
        reloadable=True,
    )
    origin_price: Price | None = option(
        parse_price,
        None,
        "what a GB from the origins costs, such as 0.09 USD: the console says what was saved",
        metavar="PRICE",
    )
    event_token_file: Path | None = option(
        parse_path,
        None,
        "file with the secret by which registries send events and Harbor its preheats; without it, and without "
        "event_senders, nobody may",
        reloadable=True,
        metavar="FILE",
    )
    event_senders: tuple[Network, ...] = option(
        parse_network,
        (),
        "network from which events and Harbor's preheats are taken without that secret: kraken's dialect has none",
        multiple=True,
        reloadable=True,
        metavar="NETWORK",
    )
    tag_scan_interval_s: float = option(
        parse_duration,
        3600.0,
        "seconds between two looks at what the tags name that [preheat] sections mean, for events that were lost; "
        "0: only by layercast events --scan",
    )

    # The [preheat."NAME"] sections of the file as they stand there.
    preheat_tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = field(init=False)
    senders: Senders = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rules", rules_of(self.preheat_tables))
        object.__setattr__(self, "senders", read_senders(self.event_token_file, self.event_senders))
        for rule in self.rules:
            for repository in rule.repositories:
                try:
                    self.upstreams.lookup(repository.partition("/")[0])
                except RemoteError as error:
                    raise ConfigError(f'[preheat."{rule.name}"]: {error}: add --allow-upstream') from None


def load(argv: Sequence[str], environ: Mapping[str, str]) -> SupernodeConfig:
    """Flags over environment over file over defaults. Raises ConfigError; exits for --help and its kin."""
    return settings.load(
        "layercast-supernode",
        "Asks origin registries for each image layer once and schedules its pieces across the peers. "
        "Commands about members, beside a running one: token, node, ca (each with --help).",
        SupernodeConfig,
        argv,
        environ,
        build=f"({scheduler_build()} scheduler)",
        removed=REMOVED,
    )
