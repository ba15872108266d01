"""libtorrent: a v2 torrent, seed and leech in separate processes, connected by hand; no DHT, LSD, UPnP or uTP.

A v2 torrent is hashed with SHA-256 in blocks of 16 KiB, which does not give the blob's own SHA-256: that is
computed from the file at the end, so that it does the same job, and reported with and without.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import libtorrent

from benchmarks.dataplane.contract import Marks
from proto.errors import LocalError
from proto.ids import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.dataplane.contract import Job, Sending

_READ_BYTES: Final = 256 * 1024
_POLL_S: Final = 0.005
# What a settings_pack is in Python.
_SETTINGS: Final[libtorrent.settings_pack] = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "out_enc_policy": 2,
    "in_enc_policy": 2,
    "alert_mask": 0,
    # Deep enough that one peer fills the link at once.
    "max_out_request_queue": 1500,
    "max_allowed_in_request_queue": 2000,
}


def make_torrent(job: Job) -> None:
    """Write job.torrent_file for the source file. Not part of what is measured."""
    source = Path(job.source_file)
    files = libtorrent.list_files(str(source))
    creator = libtorrent.create_torrent(files, job.piece_size_bytes, libtorrent.create_torrent.v2_only)
    libtorrent.set_piece_hashes(creator, str(source.parent))
    Path(job.torrent_file).write_bytes(libtorrent.bencode(creator.generate()))


def _add(session: libtorrent.session, job: Job, folder: str, *, seeds: bool) -> libtorrent.torrent_handle:
    parameters = libtorrent.load_torrent_file(job.torrent_file)
    parameters.save_path = folder
    parameters.flags = libtorrent.torrent_flags.seed_mode if seeds else 0
    if seeds and parameters.ti is not None:
        # Else each piece is hashed once more when it is first asked for; our own source trusts its store too.
        parameters.verified_pieces = [True] * parameters.ti.num_pieces()
    return session.add_torrent(parameters)


def send(job: Job, sending: Sending) -> None:
    """A seed that trusts its file."""
    session = libtorrent.session(_SETTINGS)
    handle = _add(session, job, str(Path(job.source_file).parent), seeds=True)
    _wait_until(lambda: bool(session.listen_port()) and bool(handle.status().is_seeding))
    sending.started(f"127.0.0.1:{session.listen_port()}")
    sending.wait_for_end()


def receive(job: Job, address: str) -> Marks:
    """A leech that knows one peer."""
    Path(job.target).mkdir()
    host, port = address.split(":")
    marks = Marks()
    marks.begin()
    session = libtorrent.session(_SETTINGS)
    handle = _add(session, job, job.target, seeds=False)
    _wait_until(lambda: str(handle.status().state) == "downloading")
    handle.connect_peer((host, int(port)))
    _wait_until(lambda: bool(handle.status().is_seeding))
    _wait_for_file(session, handle)
    marks.reached("pieces")
    _check_digest(Path(job.target) / Path(job.source_file).name, Digest.parse(job.digest))
    marks.reached("all")
    return marks


def _wait_for_file(session: libtorrent.session, handle: libtorrent.torrent_handle) -> None:
    """Until all is in the file: a torrent counts as complete while its last blocks wait to be written."""
    session.apply_settings({"alert_mask": libtorrent.alert.category_t.storage_notification})
    handle.flush_cache()
    _wait_until(lambda: any(isinstance(one, libtorrent.cache_flushed_alert) for one in session.pop_alerts()))


def _wait_until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 600
    while not condition():
        if time.monotonic() > give_up_s:
            raise LocalError("libtorrent came to no end within 10 minutes")
        time.sleep(_POLL_S)


def _check_digest(path: Path, digest: Digest) -> None:
    hasher, buffer = digest.hasher(), memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := os.readv(file.fileno(), [buffer]):
            hasher.update(buffer[:count])
    if hasher.hexdigest() != digest.hex:
        raise LocalError("libtorrent received another blob")
