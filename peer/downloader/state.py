"""The downloader's state as a whole and the few steps every rule takes: new ids, notes, commands, lookups.

No rule lives here. One State belongs to one Downloader; the rule modules change it and append to `out`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random  # noqa: TC003  # compiled, a dataclass looks its fields' types up
from typing import TYPE_CHECKING

from peer.downloader.blob import Asked, Blob, StoreState
from peer.downloader.contract import (
    BytesPrivate,
    CancelUpstream,
    CloseInStore,
    Command,
    FailReaders,
    ForgetBlob,
    Holder,
    OpenInStore,
    Send,
    SourcePublic,
    Withhold,
)
from peer.downloader.limits import Limits
from proto.errors import DigestInvalid
from proto.ids import Digest, PeerName  # compiled, a dataclass looks its fields' types up
from proto.pieces import mask_to_bytes
from proto.wire.messages import PROVEN, Announce, PiecesWanted, ReaderMoved, Withdraw

if TYPE_CHECKING:
    from peer.downloader.blob import Reader
    from proto.wire.messages import Message, Source


@dataclass(slots=True)
class State:
    """Dictionaries keep the order things came in: nothing here iterates over a set."""

    rng: Random
    # This node's own.
    name: PeerName
    limits: Limits = field(default_factory=Limits)
    now: float = 0.0
    sharing: bool = True
    connected: bool = False
    ever_connected: bool = False
    # After the loss of the session: when the nodes may ask upstream, until when that can be put off, and by how much
    # this one, where it knows no other, begins later.
    upstream_from: float = 0.0
    upstream_latest: float = 0.0
    jitter_s: float = 0.0
    blobs: dict[Digest, Blob] = field(default_factory=dict)
    # Wanted and not complete: what the plans look at.
    busy: dict[Blob, None] = field(default_factory=dict)
    swarms: dict[int, Blob] = field(default_factory=dict)
    nodes: dict[int, Holder] = field(default_factory=dict)
    # The supernode's own store, once it was named.
    seed: PeerName | None = None
    # Who works on what: ids of transfers, upstream fetches, checks and queries, and readers, to their blob.
    owners: dict[int, Blob] = field(default_factory=dict)
    reader_blobs: dict[int, Blob] = field(default_factory=dict)
    # This node's own questions to origins, and since when they are on their way.
    public_checks: dict[int, tuple[Digest, Source, float]] = field(default_factory=dict)
    # Until when it counts that a source gives a blob to anyone.
    public: dict[tuple[Digest, Source], float] = field(default_factory=dict)
    # Places that refused an anonymous question, and until when that counts.
    denied: dict[Source, float] = field(default_factory=dict)
    queries: dict[int, tuple[Digest, PeerName]] = field(default_factory=dict)
    leases: dict[int, int] = field(default_factory=dict)
    # Who sent this node corrupt bytes, and until when it is asked for nothing.
    banned: dict[PeerName, float] = field(default_factory=dict)
    # Blobs of which only pieces with a signed hash come from peers: others made them wrong once.
    proven_only: dict[Digest, None] = field(default_factory=dict)
    out: list[Command] = field(default_factory=list)
    last_id: int = 0
    # When a piece of any blob last came.
    piece_at: float = float("-inf")

    def new_id(self) -> int:
        """Never reused, from 1."""
        self.last_id += 1
        return self.last_id

    def emit(self, command: Command) -> None:
        self.out.append(command)

    def send(self, message: Message) -> None:
        """To the supernode, if there is one now."""
        if self.connected:
            self.out.append(Send(message))

    def ban(self, peer: PeerName) -> None:
        """It sent corrupt bytes: nothing is asked of it by our own plans for limits.ban_s."""
        self.banned = {other: until for other, until in self.banned.items() if until > self.now}
        self.banned[peer] = self.now + self.limits.ban_s

    def is_banned(self, peer: PeerName) -> bool:
        return self.banned.get(peer, -1.0) > self.now

    def blob(self, digest: Digest) -> Blob:
        """The blob's entry, made when it is new."""
        found = self.blobs.get(digest)
        if found is None:
            found = Blob(digest, deque(maxlen=self.limits.history_max), progress_at=self.now)
            self.blobs[digest] = found
        return found

    def named(self, text: str) -> Blob | None:
        """The blob of a digest as the supernode wrote it; None for an unknown one and for nonsense."""
        try:
            return self.blobs.get(Digest.parse(text))
        except DigestInvalid:
            return None

    def note(self, blob: Blob, text: str, piece: int | None = None, *values: object) -> None:
        """A line of the blob's history: `text`, with its values where it has any (`text % values`)."""
        blob.history.append((self.now, piece, text, values))

    # --- public at a source -----------------------------------------------------------------------------------

    def is_public(self, digest: Digest, source: Source, *, outage: bool = False) -> bool:
        """`outage`: the origin cannot be asked now, so that its earlier word counts for longer."""
        longer_s = max(0.0, self.limits.stale_s - self.limits.public_s) if outage else 0.0
        return self.public.get((digest, source), float("-inf")) + longer_s > self.now

    def mark_public(self, blob: Blob, source: Source, asked_at: float) -> None:
        """An origin, asked then or later, gives this blob to anyone; valid for limits.public_s from then."""
        until = max(asked_at + self.limits.public_s, self.public.pop((blob.digest, source), float("-inf")))
        self.public[blob.digest, source] = until
        if len(self.public) > self.limits.public_max:
            del self.public[next(iter(self.public))]
        if source in blob.sources:
            blob.sources.remove(source)
        blob.sources.insert(0, source)
        del blob.sources[8:]
        self.note(blob, f"public at {source.upstream}/{source.repository}")
        self.denied.pop(source, None)
        self.end_private(blob)
        self.emit(SourcePublic(blob.digest, source))

    # --- private ----------------------------------------------------------------------------------------------

    def deny(self, source: Source) -> None:
        """The place gives nothing to who has no credential."""
        self.denied.pop(source, None)
        self.denied[source] = self.now + self.limits.denied_s
        if len(self.denied) > self.limits.denied_max:
            del self.denied[next(iter(self.denied))]

    def is_denied(self, source: Source) -> bool:
        return self.denied.get(source, float("-inf")) >= self.now

    def mark_private(self, blob: Blob, upstream: str) -> None:
        """From now on its bytes come from there, by clients' credentials."""
        if upstream not in blob.private_at:
            blob.private_at[upstream] = None
            self.note(blob, f"private at {upstream}")
            self.emit(BytesPrivate(blob.digest, tuple(blob.private_at)))

    def end_private(self, blob: Blob) -> None:
        """Its bytes are public, or gone."""
        blob.alone, blob.private_source = False, None
        if blob.private_at:
            blob.private_at.clear()
            self.emit(BytesPrivate(blob.digest, ()))

    # --- the store's pin --------------------------------------------------------------------------------------

    def open_store(self, blob: Blob) -> None:
        """Pin it; StoreOpened or StoreRefused follows."""
        if blob.store is StoreState.CLOSED and blob.layout is not None:
            blob.store = StoreState.OPENING
            self.emit(OpenInStore(blob.digest, blob.layout.size_bytes, blob.layout.piece_size_bytes))

    def close_store(self, blob: Blob) -> None:
        """Unpin it, if it is open."""
        if blob.store is StoreState.OPEN:
            blob.store = StoreState.CLOSED
            self.emit(CloseInStore(blob.digest))

    def settle(self, blob: Blob) -> None:
        """After any change: busy or not, unpin what nobody uses, forget what is nothing any more."""
        if blob.wanted and not blob.complete:
            self.busy[blob] = None
            return
        blob.whole = blob.preheated = blob.pulled = False
        self.busy.pop(blob, None)
        if not blob.idle:
            return
        if blob.store is StoreState.OPEN:
            self.close_store(blob)
            # A node keeps thousands of blobs for weeks: of one that rests, the end of its history is enough.
            while len(blob.history) > self.limits.history_idle_max:
                blob.history.popleft()
        if blob.store is StoreState.CLOSED and not blob.held and not blob.complete and not blob.unanswered:
            if blob.announced:
                self.send(Withdraw(str(blob.digest)))
            if blob.swarm:
                self.swarms.pop(blob.swarm, None)
            del self.blobs[blob.digest]
            self.emit(ForgetBlob(blob.digest))
        elif blob.swarm and blob.announced_wanted and not blob.complete:
            self.announce(blob, None)

    def takeable(self, blob: Blob) -> int:
        """Pieces (mask) that may come from peers without a supernode."""
        return blob.hashed if blob.digest in self.proven_only else blob.full

    def distrust(self, blob: Blob) -> None:
        """Pieces without a signed hash made it wrong: of this blob none are taken any more."""
        blob.unproven = False
        self.proven_only[blob.digest] = None
        if len(self.proven_only) > self.limits.distrusted_max:
            del self.proven_only[next(iter(self.proven_only))]

    def withhold(self, blob: Blob, pieces: int) -> None:
        """These pieces (mask), and no others, are given to no client before the digest has passed."""
        if pieces != blob.withheld:
            blob.withheld = pieces
            self.emit(Withhold(blob.digest, pieces))

    def note_found(self, blob: Blob) -> None:
        """Without a supernode: what nodes known here hold of it may have become more."""
        found = blob.held | (blob.holders.reachable() & self.takeable(blob))
        if found & ~blob.found:
            blob.found_at = self.now
        blob.found = found

    def stop_upstream(self, blob: Blob) -> None:
        """End this node's own fetch from the origin after the piece in hand."""
        if blob.upstream is not None and not blob.upstream.cancelled:
            blob.upstream.cancelled = True
            self.emit(CancelUpstream(blob.upstream.fetch))

    # --- messages to the supernode ----------------------------------------------------------------------------

    def announce(self, blob: Blob, source: Source | None, allowed: int = 0) -> None:
        """What we hold and want, naming one source (None: see Blob.place; a private one's own).

        Without one, and with nothing wanted, it asks nothing: a node that comes back with thousands of blobs has the
        origins asked about none of them.
        Each is answered, in order, by SwarmOpened or BlobRefused; without a source it would be refused.
        """
        wanted = blob.wanted and not blob.complete
        asks = wanted or source is not None
        if source is None and blob.private:
            source, allowed = blob.private_source, PROVEN
        source = source or blob.place
        if not self.connected or source is None or blob.alone:
            return
        layout = blob.layout
        held = mask_to_bytes(blob.held, layout.count) if layout is not None else b""
        size, piece_size = (layout.size_bytes, layout.piece_size_bytes) if layout is not None else (0, 0)
        own = blob.fetched_here & ~blob.held if layout is not None else 0
        fetching = mask_to_bytes(own, layout.count) if layout is not None and own else b""
        ranges, background = wanted and blob.ranges_alone, wanted and blob.background_alone
        self.emit(
            Send(
                Announce(
                    str(blob.digest),
                    (source,),
                    wanted,
                    size,
                    piece_size,
                    held,
                    b"",
                    fetching,
                    allowed,
                    asks,
                    ranges,
                    background,
                )
            )
        )
        blob.unanswered.append(Asked(source, allowed, self.now, asks))
        blob.announced, blob.announced_held, blob.announced_wanted = True, blob.held, wanted
        blob.announced_ranges, blob.announced_background = ranges, background
        if not wanted:
            blob.asked_sent = 0

    def tell_asked(self, blob: Blob) -> None:
        """Which pieces clients wait for who read ranges, where the supernode does not know it."""
        asked = blob.asked
        news = asked & ~blob.asked_sent or blob.asked_sent & ~asked & ~blob.held
        if self.connected and blob.swarm and blob.announced_wanted and news and blob.layout is not None:
            blob.asked_sent = asked
            self.send(PiecesWanted(blob.swarm, mask_to_bytes(asked, blob.layout.count)))

    def tell_reader_moved(self, blob: Blob) -> None:
        """Only when the earliest missing piece that is waited for changed.

        For a blob of one piece it would repeat the announcement.
        """
        if blob.full == 1:
            return
        first = blob.first_read
        if self.connected and blob.swarm and first != blob.reader_sent:
            blob.reader_sent = first
            self.send(ReaderMoved(blob.swarm, first))

    def fail_readers(self, blob: Blob, message: str, *, mismatch: bool = False) -> None:
        """Tell present readers that no more comes; they close in their own time."""
        if blob.being_read:
            self.note(blob, f"readers failed: {message}")
            self.emit(FailReaders(blob.digest, mismatch, message))
        for reader in blob.readers.values():
            if reader.answered:
                reader.failed = True
        self.tell_reader_moved(blob)

    def fail_reader(self, blob: Blob, reader: Reader, message: str) -> None:
        """The same for one reader."""
        self.note(blob, f"reader {reader.reader} failed: {message}")
        reader.failed = True
        self.emit(FailReaders(blob.digest, False, message, reader.reader))
        self.tell_reader_moved(blob)
