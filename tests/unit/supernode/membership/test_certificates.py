"""The certificates hold by real TLS: a node and its supernode believe each other, and nobody else."""

from __future__ import annotations

import ssl
import time

import pytest
from cryptography import x509

from proto.runtime import tls
from proto.wire.join import SUPERNODE_NAME, node_host
from proto.wire.tickets import Identity
from supernode.membership import certificates
from supernode.membership.certificates import (
    Authority,
    RequestInvalid,
    certify_node,
    certify_supernode,
    cross_certify,
    new_authority,
    pem,
    read_request,
)

NOW_S = time.time()
HOUR_S = 3600.0


def server_of(authority: Authority, identity: Identity, now_s: float = NOW_S, chain: str = "") -> ssl.SSLContext:
    certificate = pem([certify_supernode(authority, identity.private_key.public_key(), now_s)]) + chain
    return tls.server_context(certificate.encode(), identity.private_pem(), pem([authority.certificate]))


def node_of(authority: Authority, identity: Identity, now_s: float = NOW_S) -> ssl.SSLContext:
    certificate = pem([certify_node(authority, identity.peer, now_s)]).encode()
    return tls.client_context(pem([authority.certificate]), certificate, identity.private_pem())


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = SUPERNODE_NAME) -> bytes | None:
    """In memory. The certificate that the server saw. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    at_client = client.wrap_bio(to_client, to_server, server_hostname=name)
    at_server = server.wrap_bio(to_server, to_client, server_side=True)
    done = set()
    for _ in range(10):
        for side in (at_client, at_server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            return at_server.getpeercert(binary_form=True)
    raise AssertionError("no end of the handshake")


def test_a_node_and_its_supernode_believe_each_other() -> None:
    authority, node = new_authority(NOW_S), Identity.generate()
    seen = shake_hands(server_of(authority, Identity.generate()), node_of(authority, node))
    assert seen == ssl.PEM_cert_to_DER_cert(pem([x509.load_der_x509_certificate(seen or b"")]))
    key = x509.load_der_x509_certificate(seen or b"").public_key()
    assert key == node.private_key.public_key()


def test_a_client_without_a_certificate_is_let_in_and_named_nobody() -> None:
    authority = new_authority(NOW_S)
    client = tls.client_context(pem([authority.certificate]))
    assert shake_hands(server_of(authority, Identity.generate()), client) is None


def test_a_supernode_of_another_authority_is_not_believed() -> None:
    mine, other = new_authority(NOW_S), new_authority(NOW_S)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server_of(other, Identity.generate()), node_of(mine, Identity.generate()))


def test_a_node_does_not_pass_for_the_supernode() -> None:
    authority, bad = new_authority(NOW_S), Identity.generate()
    certificate = pem([certify_node(authority, bad.peer, NOW_S)]).encode()
    server = tls.server_context(certificate, bad.private_pem(), pem([authority.certificate]))
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        shake_hands(server, node_of(authority, Identity.generate()))
    assert refused.value.verify_code == tls.OTHER_HOST
    # Under its own name it serves other nodes.
    shake_hands(server, node_of(authority, Identity.generate()), node_host(bad.peer))


def test_the_supernode_s_certificate_is_good_for_no_client() -> None:
    authority, supernode = new_authority(NOW_S), Identity.generate()
    certificate = pem([certify_supernode(authority, supernode.private_key.public_key(), NOW_S)]).encode()
    client = tls.client_context(pem([authority.certificate]), certificate, supernode.private_pem())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server_of(authority, supernode), client)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_supernode_whose_clock_is_hours_off_is_believed(hours: int) -> None:
    now_s = NOW_S + hours * HOUR_S
    authority = new_authority(now_s)
    shake_hands(server_of(authority, Identity.generate(), now_s), node_of(authority, Identity.generate(), now_s))


def test_a_certificate_ends_and_says_so() -> None:
    authority = new_authority(NOW_S)
    past_s = NOW_S - certificates.SUPERNODE_LIFE_S - HOUR_S
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        shake_hands(server_of(authority, Identity.generate(), past_s), node_of(authority, Identity.generate()))
    assert refused.value.verify_code == tls.HAS_EXPIRED


def test_who_trusts_the_older_authority_alone_believes_the_newer_by_its_word() -> None:
    older, newer = new_authority(NOW_S), new_authority(NOW_S)
    chain = pem([cross_certify(older, newer, NOW_S)])
    server = server_of(newer, Identity.generate(), chain=chain)
    shake_hands(server, tls.client_context(pem([older.certificate])))
    shake_hands(server, tls.client_context(pem([newer.certificate])))


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(RequestInvalid):
        read_request(b"nonsense")
