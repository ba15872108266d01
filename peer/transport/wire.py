"""The words of the piece protocol: plain HTTP/1.1 over keep-alive connections. Bytes to values and back, no sockets.

Goals: sendfile on one side and recv_into on the other, with nothing in between; a capture that an operator can
read. Not goals: other methods, request bodies, chunked answers, pipelining, HTTP/1.0 keep-alive.

    GET /v1/nonce                                   204, Layercast-Nonce: base64url of 32 bytes, this connection's own;
                                                    again, with a ticket: whose connection it is
    GET /v1/blobs/{digest}/pieces/{first}-{last}    200, the bytes of these pieces (both inclusive)
    GET /v1/blobs/{digest}/bitfield                 200, size u64, piece size u64, then the mask
    GET /v1/blobs/{digest}/hashes                   200, size u64, piece size u64, then runs of: first u32,
                                                    count u32, count x 32 bytes of hash, 64 bytes of signature

A request for pieces with `Layercast-Ahead: 1` is answered once another transfer of the source has ended: so a node
that has been told so asks before the source is free, and the source's link neither idles nor is shared.

A request for one piece with `Layercast-Hash: wanted` is answered with `Layercast-Hashes` beside the bytes: a run as
above, base64url, in which the supernode signed the piece's hash. So hashes travel with pieces, not over the supernode's
link to each node. Without that header in the answer the source has none to tell.

All numbers are big-endian. All but the nonce need `Layercast-Ticket` (proto.wire.tickets.issue_ticket, base64url) and
`Layercast-Proof` (prove_connection with this connection's nonce, base64url). The server checks signatures once per
connection and ticket, so that a request that shows the ticket again may leave the proof out.

Answers that are no success carry one line of text: 400 nonsense (the connection ends), 403 ticket, 404 not held,
503 busy.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from peer.store.base import HASH_BYTES, SignedHashes
from proto.errors import DigestInvalid, FrameInvalid
from proto.ids import Digest
from proto.pieces import PIECE_COUNT_MAX, PIECE_SIZE_MAX_BYTES, PieceLayout, mask_from_bytes, mask_to_bytes
from proto.wire.tickets import NONCE_BYTES, SIGNATURE_BYTES, TICKET_BYTES_MAX

# A ticket and its proof take under 1 KiB; curl adds a few hundred bytes.
HEAD_BYTES_MAX: Final = 8 * 1024
# Several small pieces may be asked for at once, but no more than one of the largest.
ANSWER_BYTES_MAX: Final = PIECE_SIZE_MAX_BYTES
# Every piece in a run of its own.
HASHES_BYTES_MAX: Final = 16 + PIECE_COUNT_MAX * (8 + 32 + SIGNATURE_BYTES)

# The longest run of hashes that is told with a piece. Those for whole blobs would be a part of a small piece's size.
RUN_WITH_PIECE_MAX: Final = 4

HEAD_END: Final = b"\r\n\r\n"
_NONCE: Final = "Layercast-Nonce"
_TICKET: Final = "Layercast-Ticket"
_PROOF: Final = "Layercast-Proof"
_AHEAD: Final = "Layercast-Ahead"
_HASH: Final = "Layercast-Hash"
_HASH_WANTED: Final = "wanted"
_HASHES: Final = "Layercast-Hashes"
_REASONS: Final = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    503: "Service Unavailable",
}
_LAYOUT: Final = struct.Struct(">QQ")
_RUN: Final = struct.Struct(">II")
_RUN_BYTES_MAX: Final = 8 + RUN_WITH_PIECE_MAX * HASH_BYTES + SIGNATURE_BYTES
_TARGET = re.compile(r"/v1/blobs/([a-z0-9]+:[0-9a-f]+)/(?:(bitfield|hashes)|pieces/([0-9]{1,6})-([0-9]{1,6}))")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Asked(Enum):
    """What a request is for."""

    NONCE = "nonce"
    PIECES = "pieces"
    BITFIELD = "bitfield"
    HASHES = "hashes"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that makes sense; whether it is allowed is another matter. Pieces are 0-0 where none are asked for."""

    asked: Asked
    digest: Digest | None
    first: int
    last: int
    ticket: bytes
    proof: bytes
    keep_alive: bool
    ahead: bool = False
    hash_wanted: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer. The signature of `hashes` is for the caller to check."""

    status: int
    length_bytes: int
    nonce: bytes
    keep_alive: bool
    hashes: SignedHashes | None = None


def nonce_path() -> str:
    return "/v1/nonce"


def pieces_path(digest: Digest, first: int, last: int) -> str:
    return f"/v1/blobs/{digest}/pieces/{first}-{last}"


def bitfield_path(digest: Digest) -> str:
    return f"/v1/blobs/{digest}/bitfield"


def hashes_path(digest: Digest) -> str:
    return f"/v1/blobs/{digest}/hashes"


def format_request(
    path: str, host: str, ticket: bytes = b"", proof: bytes = b"", *, ahead: bool = False, hash_wanted: bool = False
) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    if ticket:
        lines += [f"{_TICKET}: {_to_text(ticket)}", f"{_PROOF}: {_to_text(proof)}"]
    if ahead:
        lines.append(f"{_AHEAD}: 1")
    if hash_wanted:
        lines.append(f"{_HASH}: {_HASH_WANTED}")
    return "\r\n".join(lines).encode("ascii") + HEAD_END


def parse_request(head: bytes) -> Request:
    """A head without its HEAD_END. Raises FrameInvalid."""
    start, headers = _split(head)
    words = start.split(" ")
    if len(words) != 3 or words[0] != "GET" or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise FrameInvalid("expected GET and HTTP/1.1")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise FrameInvalid("a request has no body here")
    keep_alive = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    ticket = _from_text(headers.get(_TICKET.lower(), ""), TICKET_BYTES_MAX)
    proof = _from_text(headers.get(_PROOF.lower(), ""), SIGNATURE_BYTES)
    if words[1] == nonce_path():
        return Request(Asked.NONCE, None, 0, 0, ticket, proof, keep_alive)
    found = _TARGET.fullmatch(words[1])
    if found is None:
        raise FrameInvalid("no such path here")
    try:
        digest = Digest.parse(found[1])
    except DigestInvalid as error:
        raise FrameInvalid(str(error)) from None
    if found[2]:
        return Request(Asked(found[2]), digest, 0, 0, ticket, proof, keep_alive)
    first, last = int(found[3]), int(found[4])
    if not first <= last < PIECE_COUNT_MAX:
        raise FrameInvalid(f"pieces {first}-{last} are no range")
    ahead = headers.get(_AHEAD.lower()) == "1"
    hash_wanted = headers.get(_HASH.lower()) == _HASH_WANTED
    return Request(Asked.PIECES, digest, first, last, ticket, proof, keep_alive, ahead, hash_wanted)


def format_answer(
    status: int,
    length_bytes: int,
    *,
    nonce: bytes = b"",
    hashes: SignedHashes | None = None,
    keep_alive: bool = True,
) -> bytes:
    """The head of an answer, HEAD_END included."""
    kind = "application/octet-stream" if status == 200 else "text/plain; charset=utf-8"
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}"]
    if status != 204:
        lines += [f"Content-Type: {kind}", f"Content-Length: {length_bytes}"]
    if nonce:
        lines.append(f"{_NONCE}: {_to_text(nonce)}")
    if hashes is not None:
        lines.append(f"{_HASHES}: {_to_text(_encode_run(hashes))}")
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("ascii") + HEAD_END


def format_refusal(status: int, message: str, *, keep_alive: bool) -> bytes:
    """A whole answer of one line."""
    body = message.encode() + b"\n"
    return format_answer(status, len(body), keep_alive=keep_alive) + body


def parse_answer(head: bytes) -> Answer:
    """A head without its HEAD_END. Raises FrameInvalid."""
    start, headers = _split(head)
    words = start.split(" ", 2)
    if len(words) < 2 or words[0] != "HTTP/1.1" or not re.fullmatch(r"[1-5][0-9][0-9]", words[1]):
        raise FrameInvalid("the answer is no HTTP/1.1")
    if "transfer-encoding" in headers:
        raise FrameInvalid("the answer has no fixed length")
    status = int(words[1])
    length = headers.get("content-length", "0" if status == 204 else "")
    if not re.fullmatch(r"[0-9]{1,12}", length):
        raise FrameInvalid("the answer has no proper Content-Length")
    nonce = _from_text(headers.get(_NONCE.lower(), ""), NONCE_BYTES)
    run = headers.get(_HASHES.lower())
    hashes = None if run is None else _decode_run(_from_text(run, _RUN_BYTES_MAX), 0)[0]
    return Answer(status, int(length), nonce, headers.get("connection", "").lower() != "close", hashes)


def encode_bitfield(layout: PieceLayout, held: int) -> bytes:
    return _LAYOUT.pack(layout.size_bytes, layout.piece_size_bytes) + mask_to_bytes(held, layout.count)


def decode_bitfield(body: bytes) -> tuple[PieceLayout, int]:
    """Inverse of encode_bitfield. Raises FrameInvalid."""
    layout = _decode_layout(body)
    return layout, mask_from_bytes(body[_LAYOUT.size :], layout.count)


def encode_hashes(layout: PieceLayout, runs: tuple[SignedHashes, ...]) -> bytes:
    return _LAYOUT.pack(layout.size_bytes, layout.piece_size_bytes) + b"".join(map(_encode_run, runs))


def decode_hashes(body: bytes) -> tuple[PieceLayout, tuple[SignedHashes, ...]]:
    """Inverse of encode_hashes; the signatures are for the caller to check. Raises FrameInvalid."""
    layout = _decode_layout(body)
    runs = []
    at = _LAYOUT.size
    while at < len(body):
        run, at = _decode_run(body, at)
        if run.first + run.count > layout.count:
            raise FrameInvalid(f"a run of {run.count} hashes from piece {run.first} does not fit")
        runs.append(run)
    return layout, tuple(runs)


def _encode_run(run: SignedHashes) -> bytes:
    return _RUN.pack(run.first, run.count) + run.hashes + run.signature


def _decode_run(raw: bytes, at: int) -> tuple[SignedHashes, int]:
    """A run that begins at this offset, and where it ends."""
    if len(raw) - at < _RUN.size:
        raise FrameInvalid("a run of hashes is torn")
    first, count = _RUN.unpack_from(raw, at)
    middle = at + _RUN.size + count * HASH_BYTES
    end = middle + SIGNATURE_BYTES
    if not count or end > len(raw):
        raise FrameInvalid(f"a run of {count} hashes from piece {first} does not fit")
    return SignedHashes(first, raw[at + _RUN.size : middle], raw[middle:end]), end


def _decode_layout(body: bytes) -> PieceLayout:
    if len(body) < _LAYOUT.size:
        raise FrameInvalid(f"an answer of {len(body)} bytes is too short")
    return PieceLayout(*_LAYOUT.unpack_from(body))


def _split(head: bytes) -> tuple[str, dict[str, str]]:
    try:
        start, *lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        raise FrameInvalid("a head must be ASCII") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _HEADER_NAME.fullmatch(name) or name.lower() in headers:
            raise FrameInvalid("a header line is malformed or given twice")
        headers[name.lower()] = value.strip(" \t")
    return start, headers


def _to_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii")


def _from_text(text: str, bytes_max: int) -> bytes:
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise FrameInvalid("a header is no base64url") from None
    if len(raw) > bytes_max:
        raise FrameInvalid(f"a header of {len(raw)} bytes: at most {bytes_max}")
    return raw
