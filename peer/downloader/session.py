"""Rules for the session with the supernode as a whole: opened, lost, nodes' numbers, sharing switched on and off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader import leases, readers
from peer.downloader.admission import end_waiting
from peer.downloader.contract import Holder
from proto.config.values import parse_numeric
from proto.errors import DigestInvalid
from proto.ids import peer_name_from_bytes
from proto.wire.messages import SEED_NODE

if TYPE_CHECKING:
    from peer.downloader.contract import SharingSwitched, SupernodeAnswered, SupernodeConnected, SupernodeLost
    from peer.downloader.state import State
    from proto.wire.messages import NodeKnown, Source


def opened(state: State, _: SupernodeConnected) -> None:
    """Announce everything. What this node fetches upstream goes on, until it hears that others see to it."""
    state.connected = state.ever_connected = True
    for blob in list(state.blobs.values()):
        # What did not come without a supernode is no reason to do without this one.
        blob.progress_at = state.now
        for fetch in blob.fetches.values():
            # The seed's link is the supernode's to share out again: it sets the pace of all.
            if fetch.standalone and fetch.holder is not None and fetch.holder.peer == state.seed:
                leases.stop(state, blob, fetch)
        asking: dict[Source, int] = {}
        for reader in blob.readers.values():
            if not reader.answered and not reader.failed and not reader.admitted:
                asking[reader.source] = max(reader.allowed, asking.get(reader.source, 0))
        blob.wanted = blob.wanted or (bool(asking) and not blob.complete)
        if blob.held or blob.wanted or blob.complete:
            state.announce(blob, None)
        for source, allowed in asking.items():
            if blob.asked_for(source) < allowed:
                state.announce(blob, source, allowed)


def lost(state: State, event: SupernodeLost) -> None:
    """The session's numbers are void; what this node has and whom it knows stay."""
    if not state.connected:
        return
    state.connected = False
    limits = state.limits
    state.upstream_latest = state.now + limits.silent_grace_s
    state.upstream_from = state.upstream_latest if event.silent else state.now + limits.grace_s
    state.jitter_s = state.rng.uniform(0.0, limits.grace_jitter_s)
    state.nodes.clear()
    state.swarms.clear()
    state.leases.clear()
    for blob in list(state.blobs.values()):
        blob.end_session()
        state.note_found(blob)
        for reader in list(blob.readers.values()):
            if reader.answered:
                end_waiting(state, blob, reader)
        for reader in list(blob.readers.values()):
            if not reader.admitted and not reader.failed:
                readers.ask(state, blob, reader.source)


def answered(state: State, _: SupernodeAnswered) -> None:
    """It is back, and may be asking the origin for others already: the grace begins anew, but not without end.

    What this node fetches upstream goes on.
    """
    if state.ever_connected and not state.connected:
        again = state.now + state.limits.grace_s
        state.upstream_from = max(state.upstream_from, min(again, state.upstream_latest))


def node_known(state: State, message: NodeKnown) -> None:
    """Which node a number of this session is. One without a numeric address cannot be asked: it stays unknown."""
    try:
        holder = Holder(peer_name_from_bytes(message.peer), str(parse_numeric(message.address)))
    except (DigestInvalid, ValueError):
        return
    state.nodes[message.node] = holder
    if message.node == SEED_NODE:
        state.seed = holder.peer


def sharing_switched(state: State, event: SharingSwitched) -> None:
    """Off: clients continue from their origins, and nothing moves between peers."""
    state.sharing = event.on
    if event.on:
        return
    for blob in list(state.blobs.values()):
        if not blob.complete:
            leases.give_up(state, blob, "off", "peer-to-peer was turned off on this node")
