"""The libtorrent session of a node: its settings, port, rate limits and alerts. No blob and no policy here.

Peers are met by connect_peer alone: no DHT, no local discovery, no peer exchange, no port mapping, no uTP, and of
libtorrent's extensions only the one that bans who sends wrong blocks. A session starts threads: it is made in the
running program, never before a fork.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import libtorrent

from proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proto.config.values import HostPort
    from proto.ids import Digest
    from proto.pieces import PieceLayout

# Binding takes a millisecond, and what fails says so; on a machine that starts many nodes at once it waits its turn.
_LISTEN_WAIT_S: Final = 10.0
_POLL_S: Final = 0.001
# Blocks on their way to the disk; beyond it a download waits for the disk.
_DISK_QUEUE_BYTES: Final = 16 * 1024 * 1024
_ALERTS_MAX: Final = 20_000
# Transfers that share a link make each piece arrive later, and only a whole piece can be passed on.
_SLOTS_MAX: Final = 4
# Of a torrent's status: no bitfields and no names, which cost time and are not asked for.
_COUNTERS_ALONE: Final = 0

# What a settings_pack is in Python.
_SETTINGS: Final[libtorrent.settings_pack] = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "enable_ip_notifier": False,
    "dht_bootstrap_nodes": "",
    "user_agent": "layercast",
    # Plain, as our own wire is.
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    # Nodes behind one address, and tests.
    "allow_multiple_connections_per_ip": True,
    "listen_system_port_fallback": False,
    "max_retry_port_bind": 0,
    # Connecting, and choosing whom to serve, wait for a tick (ms). An image is pulled in seconds: the defaults, made
    # for days, would leave links idle.
    "tick_interval": 100,
    "connection_speed": 200,
    "unchoke_interval": 5,
    "optimistic_unchoke_interval": 15,
    "min_reconnect_time": 2,
    # A slow link's queue loses a connection's first packet more than once; TCP sends it again after 1, 3 and 7 s. Each
    # attempt that fails makes the next one's time 3 s longer.
    "peer_connect_timeout": 15,
    "handshake_timeout": 15,
    "listen_queue_size": 128,
    "request_timeout": 15,
    "peer_timeout": 30,
    # Who is complete keeps its connections, and makes none. Closed for being of no use, they would be made again at
    # once, all over; and the word that somebody is complete, which comes with the word of its last piece, would close
    # the connection to a peer that waits for that very piece. Idle ones give way when there are too many (s).
    "close_redundant_connections": False,
    "seeding_outgoing_connections": False,
    "inactivity_timeout": 20,
    # The first pieces are chosen like all others: at random they would be the same ones twice, from the first seed.
    "initial_picker_threshold": 0,
    # Deep enough that one peer fills the link at once.
    "max_out_request_queue": 1500,
    "aio_threads": 2,
    "hashing_threads": 1,
    "max_queued_disk_bytes": _DISK_QUEUE_BYTES,
    "rate_limit_ip_overhead": False,
    "alert_queue_size": _ALERTS_MAX,
}


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Over all blobs: peers served at a time (at most a few), connections, and rates in bytes/s (0: no limit)."""

    slots: int
    connections_max: int
    upload_rate_bytes_s: int = 0
    download_rate_bytes_s: int = 0


class TorrentSession:
    """Listens as soon as it is made. Raises ConfigError when it cannot.

    `alert_fd` gets a byte when alerts() has something again.
    """

    def __init__(self, listen: HostPort, limits: SessionLimits, alert_fd: int) -> None:
        category = libtorrent.alert_category
        settings = _SETTINGS | {
            "listen_interfaces": str(listen),
            "unchoke_slots_limit": min(limits.slots, _SLOTS_MAX),
            "connections_limit": limits.connections_max,
            "alert_mask": category.piece_progress | category.storage | category.status | category.error | category.peer,
        }
        # Flags 0: none of libtorrent's default extensions, peer exchange among them.
        self._session = libtorrent.session(settings, flags=0)
        self._session.add_extension("smart_ban")
        self._limit_everybody()
        self.set_rates(limits.upload_rate_bytes_s, limits.download_rate_bytes_s)
        self.port: Final = self._bound_port(listen)
        self._session.set_alert_fd(alert_fd)

    def _limit_everybody(self) -> None:
        """Rate limits leave out private addresses unless told otherwise, and those are all we have."""
        everybody = libtorrent.ip_filter()
        limited = 1 << int(self._session.global_peer_class_id)
        everybody.add_rule("0.0.0.0", "255.255.255.255", limited)
        everybody.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", limited)
        self._session.set_peer_class_filter(everybody)

    def _bound_port(self, listen: HostPort) -> int:
        give_up_s = time.monotonic() + _LISTEN_WAIT_S
        while time.monotonic() < give_up_s:
            for alert in self._session.pop_alerts():
                if isinstance(alert, libtorrent.listen_failed_alert):
                    raise ConfigError(f"torrent address {listen}: {alert.message()}; name one that is free here")
            if self._session.is_listening() and self._session.listen_port():
                return int(self._session.listen_port())
            time.sleep(_POLL_S)
        raise ConfigError(f"torrent address {listen}: nothing listens there after {_LISTEN_WAIT_S:.0f} s")

    def set_rates(self, upload_bytes_s: int, download_bytes_s: int) -> None:
        """Change the limits, 0 for none."""
        self._session.apply_settings({"upload_rate_limit": upload_bytes_s, "download_rate_limit": download_bytes_s})

    def add(self, metainfo: bytes, descriptor: int, held: list[bool], *, all_pieces: bool) -> libtorrent.torrent_handle:
        """Begin a torrent whose file is this open descriptor, which must stay open; `held` is believed.

        Not `all_pieces`: nothing is asked of others until a piece's priority is raised. Raises RuntimeError for
        metainfo that is none.
        """
        parameters = libtorrent.load_torrent_buffer(metainfo)
        # By the descriptor, so that the store may rename the file. Nothing is written beside it.
        parameters.save_path = "/proc/self/fd"
        parameters.renamed_files = {0: f"/proc/self/fd/{descriptor}"}
        flags = libtorrent.torrent_flags
        parameters.flags = flags.disable_dht | flags.disable_lsd | flags.disable_pex | flags.update_subscribe
        if all(held):
            parameters.flags |= flags.seed_mode
        parameters.have_pieces = held
        parameters.verified_pieces = held
        if not all_pieces:
            parameters.piece_priorities = [0] * len(held)
        return self._session.add_torrent(parameters)

    def remove(self, handle: libtorrent.torrent_handle) -> None:
        """End a torrent. Its file is touched no more if it was paused before and torrent_paused_alert has come."""
        self._session.remove_torrent(handle)

    def alerts(self) -> Iterable[libtorrent.alert]:
        """What happened since the last call."""
        return list(self._session.pop_alerts())

    def ask_counters(self) -> None:
        """A session_stats_alert follows (see sent_payload_bytes), and a state_update_alert of what changed."""
        self._session.post_session_stats()
        self._session.post_torrent_updates(_COUNTERS_ALONE)

    def close(self) -> None:
        """End every connection and thread; blocking."""
        self._session.pause()
        del self._session


def sent_payload_bytes(alert: libtorrent.session_stats_alert) -> int:
    """Since the session began."""
    return int(alert.values["net.sent_payload_bytes"])


def is_torrent_of(metainfo: bytes, digest: Digest, layout: PieceLayout) -> bool:
    """Whether this is a v2 torrent of exactly one file, which has the blob's name, size and cut."""
    try:
        info = libtorrent.load_torrent_buffer(metainfo).ti
    except RuntimeError:
        return False
    if info is None or not info.info_hashes().has_v2() or info.info_hashes().has_v1():
        return False
    files = info.layout()
    pad = libtorrent.file_storage.flag_pad_file
    real = [index for index in range(files.num_files()) if not files.file_flags(index) & pad]
    return (
        real == [0]
        and (info.name(), files.file_size(0)) == (digest.hex, layout.size_bytes)
        and (info.piece_length(), info.num_pieces()) == (layout.piece_size_bytes, layout.count)
    )
