"""Who gets a certificate by which token, and what the others are told."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from peer.membership.requests import join_request, pinned_authority, read_answer, renewal_request
from proto.wire.join import JoinToken, prove_join
from proto.wire.tickets import Identity
from supernode.membership.admission import Admission, Admitted, JoinRefused
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.database import MemberDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR_S = 3600.0


class Desk:
    """An admission with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        authorities = AuthorityFolder(folder)
        self.authorities = authorities.load_or_create()
        self.now_s = self.authorities.current.certificate.not_valid_before_utc.timestamp() + 30 * 86_400
        self.database = MemberDatabase(authorities.path, clock=lambda: self.now_s)
        self.admission = Admission(lambda: self.authorities, self.database, clock=lambda: self.now_s)

    def token(self, *, ttl_s: float = HOUR_S, uses: int | None = None) -> JoinToken:
        token = JoinToken.generate(self.authorities.current.fingerprint)
        self.database.add_token(token, ttl_s, uses)
        return token

    def join(self, token: JoinToken, identity: Identity | None = None) -> Admitted:
        return self.admission.join(join_request(identity or Identity.generate(), token), "10.0.0.1")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.database.close()


def refused(desk: Desk, token: JoinToken, identity: Identity | None = None) -> JoinRefused:
    with pytest.raises(JoinRefused) as refusal:
        desk.join(token, identity)
    return refusal.value


def test_a_token_s_proof_gets_a_certificate_for_the_node_s_own_key(desk: Desk) -> None:
    identity, token = Identity.generate(), desk.token()
    admitted = desk.join(token, identity)
    fields = {"certificate": admitted.certificate, "authorities": admitted.authorities}
    record = read_answer(identity, json.dumps(fields).encode())
    assert record.renew_unix_s < record.expires_unix_s
    assert pinned_authority(record.authorities, token.fingerprint)
    assert [(node.peer, node.token) for node in desk.database.nodes()] == [(identity.peer, token.id)]


def test_a_token_for_two_admits_two(desk: Desk) -> None:
    token = desk.token(uses=2)
    desk.join(token)
    desk.join(token)
    refusal = refused(desk, token)
    assert refusal.code == "used_up"
    assert "layercast-supernode token create" in str(refusal)


def test_a_node_that_asks_again_takes_no_second_use(desk: Desk) -> None:
    token, identity = desk.token(uses=1), Identity.generate()
    desk.join(token, identity)
    desk.join(token, identity)
    assert refused(desk, token).code == "used_up"


def test_an_expired_token_says_since_when(desk: Desk) -> None:
    token = desk.token(ttl_s=HOUR_S)
    desk.now_s += 4 * HOUR_S
    refusal = refused(desk, token)
    assert (refusal.code, "is expired since 3 h: make a new one" in str(refusal)) == ("expired", True)


def test_a_revoked_token_admits_nobody(desk: Desk) -> None:
    token = desk.token()
    assert desk.database.revoke_token(token.id)
    assert refused(desk, token).code == "revoked"


def test_a_wrong_secret_and_an_unknown_token_look_the_same(desk: Desk) -> None:
    token = desk.token()
    guessed = JoinToken(token.id, bytes(32), token.fingerprint)
    assert str(refused(desk, guessed)) == str(refused(desk, JoinToken.generate(token.fingerprint)))


def test_a_proof_is_good_for_its_own_request_alone(desk: Desk) -> None:
    token = desk.token()
    mine, others = (json.loads(join_request(Identity.generate(), token)) for _ in range(2))
    with pytest.raises(JoinRefused) as refusal:
        desk.admission.join(json.dumps({**mine, "request": others["request"]}).encode(), "10.0.0.1")
    assert refusal.value.code == "unknown"


def test_a_revoked_node_does_not_come_back_by_another_token(desk: Desk) -> None:
    identity = Identity.generate()
    desk.join(desk.token(), identity)
    desk.database.revoke_node(identity.peer)
    refusal = refused(desk, desk.token(), identity)
    assert refusal.code == "node_revoked"
    assert "delete identity.key" in str(refusal)


def test_a_member_renews_for_its_own_key_alone(desk: Desk) -> None:
    identity = Identity.generate()
    desk.join(desk.token(), identity)
    before = desk.database.nodes()[0].expires_unix_s
    desk.now_s += 60 * 86_400
    desk.admission.renew(identity.peer, renewal_request(identity))
    assert desk.database.nodes()[0].expires_unix_s - before == pytest.approx(60 * 86_400, abs=2)
    with pytest.raises(JoinRefused):
        desk.admission.renew(identity.peer, renewal_request(Identity.generate()))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"request": 5}', b'{"request": "AA==", "token": {}}', b"[" * 10_000]
)
def test_nonsense_is_refused_by_name(desk: Desk, body: bytes) -> None:
    with pytest.raises(JoinRefused):
        desk.admission.join(body, "10.0.0.1")


@pytest.mark.parametrize("token_id", ["\ud800", "\u00e9", "", "\x00"])
def test_a_token_s_id_that_is_none_is_refused(desk: Desk, token_id: str) -> None:
    fields = json.loads(join_request(Identity.generate(), desk.token()))
    with pytest.raises(JoinRefused) as refusal:
        desk.admission.join(json.dumps({**fields, "token": token_id}).encode(), "10.0.0.1")
    assert refusal.value.code in ("malformed", "unknown")


def of_another_kind(request: bytes) -> Iterator[bytes]:
    """The request with a version that is none, and with a key that nobody knows."""
    yield request.replace(b"\x02\x01\x00", b"\x02\x01\x09", 1)
    yield request.replace(b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x65\x63")
    yield request[:-1]
    yield b""


def test_a_request_that_is_of_another_kind_is_refused(desk: Desk) -> None:
    token = desk.token()
    fields = json.loads(join_request(Identity.generate(), token))
    for request in of_another_kind(base64.b64decode(fields["request"])):
        proof = base64.b64encode(prove_join(token.proof_key, request)).decode()
        asked = {"token": token.id, "request": base64.b64encode(request).decode(), "proof": proof}
        with pytest.raises(JoinRefused) as refusal:
            desk.admission.join(json.dumps(asked).encode(), "10.0.0.1")
        assert refusal.value.code == "malformed"
