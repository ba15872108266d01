"""The downloader's times and counts. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds and counts; the reason stands beside each default."""

    # A supernode's restart takes seconds; then the nodes are on their own.
    grace_s: float = 6.0
    # One that is silent may only be slow: its host has other work, or the network is down.
    silent_grace_s: float = 45.0
    # Where a node knows nobody to share the origin with, each begins at a moment of its own.
    grace_jitter_s: float = 10.0
    # The node whose turn it is may be dead, or refused by the origin: the next one tries when nothing came for this
    # long, or for as long as all owners need for a piece each at the slowest useful rate, if that is longer.
    turn_s: float = 15.0
    # containerd gives up on headers after 30 s.
    # The supernode says before that, after 20 s, that an origin is slow.
    size_wait_s: float = 23.0
    # A reader whose answer comes behind one about another upstream goes to its own: that one's trouble is not its.
    other_upstream_s: float = 0.5
    # For how long it counts that a blob is public, from when its origin was asked.
    public_s: float = 60.0
    # The same while the origin cannot be asked; 0: not at all.
    stale_s: float = 0.0
    # For how long a repository that refused an anonymous question is not asked that again for another of its blobs.
    denied_s: float = 60.0
    denied_max: int = 4096
    # How long a reader waits without progress: no transfer, no payload, no word that the origin or the swarm moves.
    stall_s: float = 30.0
    # The same of what no client waits for while the supernode is there: pulls come first, and it says when to stop.
    preheat_s: float = 3600.0
    # Where others share the origin, a node that has nothing after this much more time asks it alone. Longer than all
    # turns.
    starved_s: float = 90.0
    # The same where the swarm moves, or other blobs come: it may be others' turn, or this node may reach nobody.
    # With stall_s and starved_s it is less than the 5 minutes after which containerd gives up a body.
    patience_s: float = 150.0
    # A client that is given nothing for so long, though pieces come, since nobody vouches for them, goes to its origin:
    # before containerd gives up.
    withheld_s: float = 240.0
    # After the store failed, clients go straight upstream for this long.
    store_rest_s: float = 30.0
    # Transfers at a time, whoever asked for them; the supernode's budget is far below.
    fetches_max: int = 64
    # Without a supernode: transfers at a time, and at a time from one holder.
    standalone_fetches_max: int = 4
    standalone_fetches_per_holder: int = 2
    queries_max: int = 4
    # How often a holder is asked again what it holds.
    refresh_s: float = 3.0
    # A node that got nothing for so long counts each copy of a piece twice, after twice as long four times, and so on,
    # up to this often: some that are before it may not want the piece.
    turn_doublings_max: int = 6
    # A holder that failed rests this long, twice that the next time, and so on up to this many times.
    holder_rest_s: float = 0.5
    holder_failures_max: int = 5
    # A holder that sent corrupt bytes: its disk or memory may be mended meanwhile, and each try costs a piece.
    ban_s: float = 600.0
    # Without a supernode a transfer may take this long, or its bytes at the slowest rate worth waiting for.
    standalone_deadline_s: float = 30.0
    standalone_rate_min_bytes_s: int = 256 * 1024
    # Entries of a blob's history, for story().
    history_max: int = 512
    # What stays of it when the blob is not in use any more.
    history_idle_max: int = 16
    # Remembered (blob, source) pairs, and blobs that peers once made wrong.
    public_max: int = 65_536
    distrusted_max: int = 1024
