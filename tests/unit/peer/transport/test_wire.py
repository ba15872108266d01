"""The words of the piece protocol: what is written is read back, and nonsense is refused."""

from __future__ import annotations

from random import Random  # noqa: TC003  # hypothesis looks at it

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.store.base import SignedHashes
from peer.transport.wire import (
    HEAD_END,
    RUN_WITH_PIECE_MAX,
    Asked,
    bitfield_path,
    decode_bitfield,
    decode_hashes,
    encode_bitfield,
    encode_hashes,
    format_answer,
    format_refusal,
    format_request,
    hashes_path,
    nonce_path,
    parse_answer,
    parse_request,
    pieces_path,
)
from proto.errors import FrameInvalid
from proto.ids import Digest
from proto.pieces import PieceLayout

DIGEST = Digest.of(b"some blob")


def head(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


@given(st.binary(min_size=1, max_size=512), st.binary(max_size=64), st.integers(0, 65535), st.integers(0, 65535))
def test_a_request_for_pieces_is_read_back(ticket: bytes, proof: bytes, one: int, other: int) -> None:
    first, last = sorted((one, other))
    raw = format_request(pieces_path(DIGEST, first, last), "host:1", ticket, proof)
    assert raw.endswith(HEAD_END)
    request = parse_request(raw.removesuffix(HEAD_END))
    assert (request.asked, request.digest, request.first, request.last) == (Asked.PIECES, DIGEST, first, last)
    assert (request.ticket, request.proof, request.keep_alive) == (ticket, proof, True)


@given(st.booleans(), st.booleans())
def test_what_is_wanted_beside_the_piece_is_read_back(ahead: bool, hash_wanted: bool) -> None:
    raw = format_request(pieces_path(DIGEST, 3, 3), "host:1", b"t", b"p", ahead=ahead, hash_wanted=hash_wanted)
    request = parse_request(raw.removesuffix(HEAD_END))
    assert (request.ahead, request.hash_wanted) == (ahead, hash_wanted)


@given(st.integers(0, 65535), st.integers(1, RUN_WITH_PIECE_MAX), st.randoms())
def test_hashes_that_come_with_a_piece_are_read_back(first: int, count: int, rng: Random) -> None:
    run = SignedHashes(first, rng.randbytes(32 * count), rng.randbytes(64))
    answer = parse_answer(format_answer(200, 5, hashes=run).removesuffix(HEAD_END))
    assert (answer.status, answer.length_bytes, answer.hashes) == (200, 5, run)


@pytest.mark.parametrize("told", ["AAAA", "!", "A" * 600, ""])
def test_hashes_that_come_torn_or_are_too_many_are_refused(told: str) -> None:
    with pytest.raises(FrameInvalid):
        parse_answer(head(f"HTTP/1.1 200 OK\nContent-Length: 5\nLayercast-Hashes: {told}"))


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (nonce_path(), Asked.NONCE),
        (bitfield_path(DIGEST), Asked.BITFIELD),
        (hashes_path(DIGEST), Asked.HASHES),
    ],
)
def test_the_other_paths_are_read_back(path: str, asked: Asked) -> None:
    request = parse_request(format_request(path, "host:1").removesuffix(HEAD_END))
    assert (request.asked, request.ticket) == (asked, b"")


def test_a_client_may_ask_for_the_connection_to_end() -> None:
    assert not parse_request(head("GET /v1/nonce HTTP/1.1\nConnection: close")).keep_alive
    assert not parse_request(head("GET /v1/nonce HTTP/1.0")).keep_alive


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET",
        "GET /v1/nonce",
        "GET  /v1/nonce HTTP/1.1",
        "POST /v1/nonce HTTP/1.1",
        "GET /v1/nonce HTTP/2",
        "GET /v2/ HTTP/1.1",
        "GET /v1/nonce? HTTP/1.1",
        "GET /v1/nonce HTTP/1.1\nContent-Length: 5",
        "GET /v1/nonce HTTP/1.1\nTransfer-Encoding: chunked",
        "GET /v1/nonce HTTP/1.1\nno colon",
        "GET /v1/nonce HTTP/1.1\nA: 1\na: 2",
        "GET /v1/nonce HTTP/1.1\nA b: 1",
        "GET /v1/nonce HTTP/1.1\nLayercast-Ticket: %%%",
        f"GET /v1/nonce HTTP/1.1\nLayercast-Ticket: {'A' * 688}",
        f"GET /v1/blobs/{DIGEST}/pieces/ HTTP/1.1",
        f"GET /v1/blobs/{DIGEST}/pieces/2-1 HTTP/1.1",
        f"GET /v1/blobs/{DIGEST}/pieces/-1-1 HTTP/1.1",
        f"GET /v1/blobs/{DIGEST}/pieces/0-65536 HTTP/1.1",
        f"GET /v1/blobs/{DIGEST}/pieces/0-9999999 HTTP/1.1",
        f"GET /v1/blobs/{DIGEST}/pieces/0-0/ HTTP/1.1",
        f"GET /v1/blobs/{DIGEST}/../../etc/passwd HTTP/1.1",
        "GET /v1/blobs/sha256:abc/bitfield HTTP/1.1",
        "GET /v1/blobs/md5:d41d8cd98f00b204e9800998ecf8427e/bitfield HTTP/1.1",
    ],
)
def test_a_request_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(FrameInvalid):
        parse_request(head(text))


@given(st.binary(max_size=200))
def test_no_request_does_worse_than_being_refused(raw: bytes) -> None:
    with pytest.raises(FrameInvalid):
        parse_request(raw)


def test_an_answer_is_read_back() -> None:
    answer = parse_answer(format_answer(200, 12345).removesuffix(HEAD_END))
    assert (answer.status, answer.length_bytes, answer.keep_alive) == (200, 12345, True)
    nonce = parse_answer(format_answer(204, 0, nonce=bytes(32)).removesuffix(HEAD_END))
    assert (nonce.status, nonce.length_bytes, nonce.nonce) == (204, 0, bytes(32))


def test_a_refusal_is_one_line_of_text() -> None:
    start, body = format_refusal(503, "every slot is taken", keep_alive=False).split(HEAD_END)
    answer = parse_answer(start)
    assert (answer.status, answer.length_bytes, answer.keep_alive) == (503, len(body), False)
    assert body == b"every slot is taken\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HTTP/1.0 200 OK\nContent-Length: 1",
        "HTTP/1.1 999 OK\nContent-Length: 1",
        "HTTP/1.1 20 OK\nContent-Length: 1",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\nContent-Length: -1",
        "HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2",
        "HTTP/1.1 200 OK\nContent-Length: 9999999999999",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
        "HTTP/1.1 204 OK\nLayercast-Nonce: !",
        "SSH-2.0-OpenSSH_9.2",
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(FrameInvalid):
        parse_answer(head(text))


@given(st.integers(1, 300), st.data())
def test_a_bitfield_is_read_back(count: int, data: st.DataObject) -> None:
    held = data.draw(st.integers(0, (1 << count) - 1))
    layout = PieceLayout(count * 1000, 1000)
    assert decode_bitfield(encode_bitfield(layout, held)) == (layout, held)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=5))
def test_runs_of_hashes_are_read_back(runs: list[tuple[int, int]]) -> None:
    layout = PieceLayout(100_000, 1000)
    signed = tuple(SignedHashes(first, bytes(32 * count), bytes([first] * 64)) for first, count in runs)
    assert decode_hashes(encode_hashes(layout, signed)) == (layout, signed)


@pytest.mark.parametrize("cut", [1, 63, 64, 90, 130])
def test_a_torn_run_of_hashes_is_refused(cut: int) -> None:
    body = encode_hashes(PieceLayout(1000, 1000), (SignedHashes(0, bytes(32), bytes(64)),))
    with pytest.raises(FrameInvalid):
        decode_hashes(body[: len(body) - cut] if cut < 104 else body[:10])


def test_a_run_of_hashes_beyond_the_blob_is_refused() -> None:
    body = encode_hashes(PieceLayout(1000, 1000), (SignedHashes(1, bytes(32), bytes(64)),))
    with pytest.raises(FrameInvalid):
        decode_hashes(body)


@pytest.mark.parametrize("body", [b"", bytes(15), bytes(16), bytes(8) + (1).to_bytes(8, "big") + b"\1"])
def test_a_bitfield_that_makes_no_sense_is_refused(body: bytes) -> None:
    with pytest.raises(FrameInvalid):
        decode_bitfield(body)
