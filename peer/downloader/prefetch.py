"""Rules for the layers that a client will ask for next: they are begun while it still reads others.

A container engine reads a manifest, then its layers in order, a few at a time, and asks for the next when one is
whole. In a swarm whose nodes all do so every node runs out of work at the same time, and the next layers begin cold.
So when all layers that clients read are nearly here each brings one more: the first after all that the client asked
for. Those before it that it did not ask for it has. While one of them is far from here the links have work enough.

Only what others may have as well is begun (the layer that brings it is public at the same source), only with a
supernode, and nobody waits for it: what cannot be had is asked for again when the client comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader import readers

if TYPE_CHECKING:
    from peer.downloader.blob import Blob
    from peer.downloader.contract import ImageNamed
    from peer.downloader.state import State
    from proto.ids import Digest
    from proto.wire.messages import Source


def image_named(state: State, event: ImageNamed) -> None:
    """A client read a manifest; the first layers may have been asked for before its last byte was seen."""
    state.images.name(event.source, event.layers)
    for layer in event.layers:
        blob = state.blobs.get(layer)
        if blob is not None and any(reader.source == event.source for reader in blob.readers.values()):
            state.images.asked(layer, event.source)


def plan(state: State, blob: Blob) -> None:
    """Begin the next layer where this one, which a client reads, and all others that are read there are nearly here."""
    source = state.images.source_of(blob.digest)
    if source is None or not state.linked or not state.sharing or not _read_there(blob, source):
        return
    if not _nearly_here(state, blob) or any(
        _read_there(other, source) and not _nearly_here(state, other) for other in state.busy
    ):
        return
    following = state.images.take_next(blob.digest)
    if following is not None:
        _begin(state, following, source)


def _nearly_here(state: State, blob: Blob) -> bool:
    if blob.layout is None:
        return False
    return blob.layout.count - blob.held.bit_count() <= blob.layout.count * state.limits.prefetch_part


def _read_there(blob: Blob, source: Source) -> bool:
    return any(reader.answered and not reader.failed and reader.source == source for reader in blob.readers.values())


def _begin(state: State, digest: Digest, source: Source) -> None:
    blob = state.blob(digest)
    if not (blob.complete or blob.wanted or blob.rest_until > state.now):
        blob.progress_at = state.now
        state.note(blob, "begun ahead of the client")
        readers.ask(state, blob, source)
    state.settle(blob)
