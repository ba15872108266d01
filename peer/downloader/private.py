"""Rules for blobs that an origin gives to clients with credentials alone: whose bytes they are, and who may have them.

That the origin allows a client is found out before (peer.permission); here is what follows. Bytes that came to a
client's credential are given to those alone whom the same upstream allows: another origin's word, that it has the
blob too, unlocks none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.downloader.admission import begin, is_announced, refuse, set_layout, want
from proto.wire.messages import LISTED

if TYPE_CHECKING:
    from peer.downloader.blob import Blob, Reader
    from peer.downloader.state import State
    from proto.wire.messages import Source


def is_foreign(blob: Blob, source: Source) -> bool:
    """Whether what is here came privately, and not from this source's upstream."""
    return blob.private and source.upstream not in blob.private_at


def refuse_foreign(state: State, blob: Blob, source: Source) -> None:
    """All clients of such a source have it from there, past the store."""
    for reader in list(blob.readers.values()):
        if reader.source == source:
            refuse(state, blob, reader, "foreign", "what is here of this blob came from another origin")


def wanted(state: State, blob: Blob, reader: Reader) -> None:
    """A client wants a blob that is private, or that is not public at its source, and that is not to be asked for."""
    source = reader.source
    if is_foreign(blob, source):
        refuse_foreign(state, blob, source)
    elif not reader.allowed or ((blob.private or blob.complete) and not reader.proven):
        refuse(state, blob, reader, "private", "the origin is to be asked whether this client may read it")
    elif not blob.private and not blob.complete and (blob.held or blob.swarm or blob.fetches or blob.upstream):
        refuse(state, blob, reader, "foreign", "what is here of this blob is another origin's, and not whole yet")
    elif not set_layout(state, blob, reader.allowed_bytes or 0, None):
        refuse(state, blob, reader, "foreign", "the origin says another size than the blob has here")
    else:
        _admit(state, blob, reader)


def _admit(state: State, blob: Blob, reader: Reader) -> None:
    if not blob.complete:
        blob.alone = not blob.swarm and not blob.unanswered
        blob.upstreams[reader.source.upstream] = None
        state.mark_private(blob, reader.source.upstream)
    reader.admitted = True
    want(state, blob)
    if blob.alone and blob.complete and blob.private and state.connected and not blob.unanswered:
        # It lay here since before: others may have it of this node.
        blob.alone, blob.private_source = False, reader.source
        state.announce(blob, reader.source, reader.allowed)
    elif state.connected and blob.wanted and blob.swarm and not is_announced(blob):
        state.announce(blob, reader.source, reader.allowed)
    begin(state, blob)


def shared(state: State, blob: Blob, source: Source, allowed: int, *, public: bool) -> None:
    """The supernode shares it among members whose clients this source allows. `allowed`: what it was told.

    What it took a manifest's word for, it has found to be there. `public`: the bytes are, at another place.
    """
    if not public:
        blob.upstreams[source.upstream] = None
        state.mark_private(blob, source.upstream)
        blob.private_source = source
    blob.alone = False
    for reader in blob.readers.values():
        if reader.source != source or reader.failed or reader.admitted:
            continue
        if reader.proven or (reader.allowed and allowed == LISTED):
            reader.admitted = True
        else:
            refuse(state, blob, reader, "private", "the origin is to be asked whether this client may read it")
    if any(reader.admitted and not reader.failed for reader in blob.readers.values()):
        want(state, blob)
        begin(state, blob)
    elif not blob.complete:
        blob.wanted = False


def credential_refused(state: State, blob: Blob, number: int) -> None:
    """The origin does not give the blob to this client, or no longer: it goes there itself, and others are tried."""
    reader = blob.readers.get(number)
    if reader is not None and not reader.failed:
        state.fail_reader(blob, reader, "the origin refused this client")
