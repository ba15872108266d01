"""Our own transport for private blobs: the same, by TLS between two members."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.dataplane import layercast
from peer.transport.member_tls import MemberTls

if TYPE_CHECKING:
    from benchmarks.dataplane.contract import Job, Marks, Sending


def send(job: Job, sending: Sending) -> None:
    layercast.serve(job, sending, member(job, "sender"))


def receive(job: Job, address: str) -> Marks:
    return layercast.fetch(job, address, member(job, "receiver"))


def member(job: Job, role: str) -> MemberTls:
    """What that role shows the other."""
    folder, tls = Path(job.certificates), MemberTls()
    tls.use(
        (folder / f"{role}.pem").read_bytes(), (folder / f"{role}.key").read_bytes(), (folder / "ca.pem").read_text()
    )
    return tls
