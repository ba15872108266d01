"""Tickets and identities: only the holder of a key can use what was signed for it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import ConfigError, TicketInvalid
from proto.ids import Digest, peer_name
from proto.pieces import PieceLayout
from proto.wire.tickets import (
    TICKET_LEEWAY_S,
    Identity,
    check_connection,
    check_hashes,
    check_hello,
    issue_ticket,
    prove_connection,
    read_ticket,
    sign_hashes,
    sign_hello,
)

if TYPE_CHECKING:
    from pathlib import Path

SUPERNODE = Identity.generate()
ALICE = Identity.generate()
MALLORY = Identity.generate()
BOB = peer_name(Identity.generate().peer)
BLOB = Digest.of(b"a layer")
NONCE = b"n" * 32


def test_a_ticket_says_who_may_download_what_until_when() -> None:
    ticket = read_ticket(issue_ticket(SUPERNODE, BLOB, ALICE.peer, 1000), SUPERNODE.peer)
    assert (ticket.digest, ticket.peer, ticket.expires_unix_s) == (BLOB, ALICE.peer, 1000)


def test_a_ticket_signed_by_somebody_else_is_refused() -> None:
    with pytest.raises(TicketInvalid, match="signature"):
        read_ticket(issue_ticket(MALLORY, BLOB, ALICE.peer, 1000), SUPERNODE.peer)


@given(st.integers(0, 8 + 32 + 71 + 64 - 1), st.integers(1, 255))
def test_a_ticket_changed_in_any_byte_is_refused(position: int, change: int) -> None:
    raw = bytearray(issue_ticket(SUPERNODE, BLOB, ALICE.peer, 1000))
    raw[position] ^= change
    with pytest.raises(TicketInvalid):
        read_ticket(bytes(raw), SUPERNODE.peer)


def test_a_ticket_is_good_for_its_blob_alone() -> None:
    ticket = read_ticket(issue_ticket(SUPERNODE, BLOB, ALICE.peer, 1000), SUPERNODE.peer)
    with pytest.raises(TicketInvalid, match="is for blob"):
        ticket.check(Digest.of(b"another"), 0)


def test_a_ticket_expires_with_some_leeway() -> None:
    ticket = read_ticket(issue_ticket(SUPERNODE, BLOB, ALICE.peer, 1000), SUPERNODE.peer)
    ticket.check(BLOB, 1000 + TICKET_LEEWAY_S)
    with pytest.raises(TicketInvalid, match="expired"):
        ticket.check(BLOB, 1001 + TICKET_LEEWAY_S)


@pytest.mark.parametrize("raw", [b"", b"x" * 50, b"x" * 5000])
def test_a_ticket_of_the_wrong_size_is_refused(raw: bytes) -> None:
    with pytest.raises(TicketInvalid, match="malformed"):
        read_ticket(raw, SUPERNODE.peer)


def test_a_ticket_seen_on_the_wire_is_useless_on_another_connection() -> None:
    ticket = issue_ticket(SUPERNODE, BLOB, ALICE.peer, 1000)
    proof = prove_connection(ALICE, BOB, NONCE, ticket)
    check_connection(ALICE.peer, BOB, NONCE, ticket, proof)
    with pytest.raises(TicketInvalid):
        check_connection(ALICE.peer, BOB, b"m" * 32, ticket, proof)
    with pytest.raises(TicketInvalid):
        check_connection(ALICE.peer, BOB, NONCE, ticket, prove_connection(MALLORY, BOB, NONCE, ticket))


def test_a_proof_is_good_for_the_server_that_it_names_alone() -> None:
    ticket = issue_ticket(SUPERNODE, BLOB, ALICE.peer, 1000)
    proof = prove_connection(ALICE, BOB, NONCE, ticket)
    with pytest.raises(TicketInvalid):
        check_connection(ALICE.peer, peer_name(MALLORY.peer), NONCE, ticket, proof)


def test_a_hello_proves_the_identity_to_this_supernode_alone() -> None:
    proof = sign_hello(ALICE, NONCE, SUPERNODE.peer)
    check_hello(ALICE.peer, NONCE, SUPERNODE.peer, proof)
    with pytest.raises(TicketInvalid):
        check_hello(ALICE.peer, NONCE, MALLORY.peer, proof)
    with pytest.raises(TicketInvalid):
        check_hello(MALLORY.peer, NONCE, SUPERNODE.peer, proof)


def test_signed_hashes_hold_for_their_place_in_their_blob_alone() -> None:
    layout = PieceLayout(1000, 100)
    hashes = b"h" * 64
    signature = sign_hashes(SUPERNODE, BLOB, layout, 2, hashes)
    check_hashes(SUPERNODE.peer, BLOB, layout, 2, hashes, signature)
    for blob, first, claimed in ((Digest.of(b"x"), 2, hashes), (BLOB, 3, hashes), (BLOB, 2, b"g" * 64)):
        with pytest.raises(TicketInvalid):
            check_hashes(SUPERNODE.peer, blob, layout, first, claimed, signature)


def test_the_key_survives_a_restart_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    first = Identity.load_or_create(path)
    assert Identity.load_or_create(path).peer == first.peer
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_key_file_is_reported_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"identity\.key has 5 bytes"):
        Identity.load_or_create(path)


def test_an_identity_never_shows_its_private_key(tmp_path: Path) -> None:
    identity = Identity.load_or_create(tmp_path / "key")
    assert (tmp_path / "key").read_bytes().hex() not in repr(identity) + str(identity)


def test_who_was_killed_while_it_made_its_key_makes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "identity.key"

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            Identity.load_or_create(path)
    made = Identity.load_or_create(path)
    assert Identity.load_or_create(path).peer == made.peer
