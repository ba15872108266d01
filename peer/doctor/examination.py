"""Asks all parts of the way, and gathers what they said."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peer.doctor import client_probe, peer_probe, registry_probe, supernode_probe
from peer.doctor.facts import Facts, SupernodeFacts
from proto import VERSION
from proto.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peer.config import PeerConfig
    from peer.doctor.facts import PeerFacts


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked at. `clients`: these must be set up; none: those that are installed, of which one must be.

    `settings` are what the peer is thought to run with; one that runs says itself. `mirror` and `status` are its URLs.
    """

    settings: PeerConfig
    mirror: str
    status: str
    root: Path
    clients: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()


def examine(question: Question) -> Facts:
    """Blocking; some seconds where something does not answer."""
    settings = question.settings
    peer = peer_probe.probe(question.mirror, question.status, settings.data_dir)
    named = question.clients or tuple(client_probe.installed(question.root))
    ca = _text(peer.said.get("interception_ca"))
    clients = client_probe.probe(named, question.root, question.mirror, question.registries, ca)
    return Facts(
        VERSION,
        time.time(),
        peer,
        _supernode(settings, peer),
        tuple(clients),
        tuple(
            registry_probe.probe(upstream, peer_probe.relayed_status(question.mirror, host) if peer.said else 0)
            for host, upstream in _upstreams(question, peer).items()
        ),
        clients_named=bool(question.clients),
    )


def _supernode(settings: PeerConfig, peer: PeerFacts) -> SupernodeFacts:
    said = peer.said
    url = said.get("supernode", settings.supernode)
    if url is None:
        return SupernodeFacts(None)
    data_dir = Path(said.get("data_dir", settings.data_dir))
    is_open = bool(said.get("open", settings.open))
    return supernode_probe.probe(url, data_dir, is_open=is_open, peer=str(said.get("peer", "")))


def _upstreams(question: Question, peer: PeerFacts) -> dict[str, Mapping[str, str | bool]]:
    """Those that an operator configured or asks about; the default one where there are none."""
    table = question.settings.upstreams
    configured = peer.said.get("upstreams") or [upstream.facts() for upstream in table.configured()]
    found = {str(upstream["host"]): upstream for upstream in configured}
    for registry in question.registries:
        try:
            found.setdefault(registry, table.lookup(registry).facts())
        except RemoteError:
            unknown = {"host": registry, "url": f"https://{registry}", "ca_file": ""}
            found.setdefault(registry, unknown | {"by_proxy": False, "by_certificate": False, "kind": "", "place": ""})
    return found or {table.default.host: table.default.facts()}


def _text(path: str | None) -> str:
    try:
        return Path(path).read_text() if path else ""
    except OSError:
        return ""
