"""What operators are told of swarms, nodes and quarantines: once, for /v1/status, /v1/nodes and the web console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proto.ids import short_peer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proto.ids import PeerId
    from supernode.control.node_registry import NodeRegistry, Quarantine
    from supernode.control.open_swarm import OpenSwarm
    from supernode.control.peer_session import PeerSession
    from supernode.control.seed_reach import SeedReach


def swarm_row(swarm: OpenSwarm) -> dict[str, Any]:
    """One swarm, for JSON."""
    return {
        "digest": str(swarm.digest),
        "size_bytes": swarm.layout.size_bytes,
        "pieces": swarm.layout.count,
        "seed_pieces": swarm.seed_held.bit_count(),
        "members": len(swarm.members),
        "wanted_by": swarm.wanted_by,
        "vouched": swarm.vouched,
        "origin": swarm.origin_state or "idle",
    }


def node_row(session: PeerSession, quarantined: Mapping[PeerId, Quarantine], seed_reach: SeedReach) -> dict[str, Any]:
    """One connected node, for JSON; `node` is the number that the log, the event log and its stories use."""
    quarantine, store = quarantined.get(session.info.peer), session.store
    return {
        "node": session.node,
        "peer": short_peer(session.info.peer),
        "address": session.info.address,
        "zone": session.info.zone,
        "agent": session.info.agent,
        "blobs_wanted": len(session.wanting),
        "blobs_announced": len(session.announced),
        "store_used_bytes": store.used_bytes if store is not None else None,
        "store_limit_bytes": store.limit_bytes if store is not None else None,
        "quarantine": quarantine.reason if quarantine is not None else None,
        "trouble": trouble_of(session, quarantined, seed_reach),
    }


def trouble_of(session: PeerSession, quarantined: Mapping[PeerId, Quarantine], seed_reach: SeedReach) -> str:
    """What an operator should look after at a connected node; empty for nothing."""
    quarantine = quarantined.get(session.info.peer)
    if quarantine is not None:
        return f"in quarantine: {quarantine.reason}"
    if session.info.address_refused:
        return f"advertises {session.info.address_refused}, which is not allowed: nobody is sent there"
    if seed_reach.is_out(session):
        return f"does not reach the supernode's port for pieces at {session.seed_address}"
    store = session.store
    if store is not None and store.rotten > 0:
        return f"{store.rotten} pieces of its store rotted: look after its disk"
    if store is not None and store.refused > 0:
        return "its store had no room: see store_size and store_free_floor, and its disk"
    return ""


def quarantine_rows(nodes: NodeRegistry, now_s: float) -> list[dict[str, Any]]:
    """Who is put aside, connected or not, by a monotonic clock."""
    return [
        {"peer": short_peer(peer), "reason": each.reason, "ends_in_s": round(each.until_s - now_s, 1)}
        for peer, each in nodes.quarantined.items()
    ]


def unreached_rows(seed_reach: SeedReach, now_s: float) -> list[dict[str, Any]]:
    """Addresses of the supernode's own store that no node reaches."""
    return [
        {"address": address, "for_s": round(now_s - since_s, 1)} for address, since_s in seed_reach.since_s().items()
    ]
