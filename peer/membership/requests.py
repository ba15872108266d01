"""What a node asks its supernode for, and how it checks the answer. Blocking for milliseconds; no I/O.

Kept apart from what every start needs, since reading certificates takes a large module.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from peer.membership.record import Record
from peer.membership.refusals import NotAdmitted
from proto.wire.join import fingerprint_of, prove_join

if TYPE_CHECKING:
    from proto.wire.join import JoinToken
    from proto.wire.tickets import Identity

# Of a certificate's life, before it is renewed.
_RENEW_PART: Final = 2 / 3
# What reading a certificate that is none of ours may raise.
_UNREADABLE: Final = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)


def pinned_authority(bundle: str, fingerprint: str) -> str:
    """The authority that a token names, PEM, from those that a supernode showed. Raises NotAdmitted."""
    try:
        for certificate in x509.load_pem_x509_certificates(bundle.encode()):
            der = certificate.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            if fingerprint_of(der) == fingerprint:
                return certificate.public_bytes(serialization.Encoding.PEM).decode()
    except _UNREADABLE:
        raise NotAdmitted("it did not show certificates of a Layercast supernode") from None
    raise NotAdmitted(
        "its authority is not the one that the join token names: the token is another supernode's, or somebody else "
        "answers at this address",
        terminal=True,
    )


def join_request(identity: Identity, token: JoinToken) -> bytes:
    """The body of POST /v1/join."""
    request = _signed_request(identity)
    proof = base64.b64encode(prove_join(token.proof_key, request)).decode()
    return json.dumps({"token": token.id, "request": base64.b64encode(request).decode(), "proof": proof}).encode()


def renewal_request(identity: Identity) -> bytes:
    """The body of POST /v1/renew."""
    return json.dumps({"request": base64.b64encode(_signed_request(identity)).decode()}).encode()


def read_answer(identity: Identity, body: bytes) -> Record:
    """What a supernode that was checked gave. Raises NotAdmitted."""
    try:
        fields = json.loads(body)
        certificate = x509.load_pem_x509_certificate(fields["certificate"].encode())
        key = certificate.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        x509.load_pem_x509_certificates(fields["authorities"].encode())
    except (*_UNREADABLE, RecursionError, KeyError, TypeError, AttributeError):
        raise NotAdmitted("its answer is no certificate: install the same release on both") from None
    if key != identity.peer:
        raise NotAdmitted("it certified another key than ours: install the same release on both")
    begins_s = certificate.not_valid_before_utc.timestamp()
    expires_s = certificate.not_valid_after_utc.timestamp()
    return Record(
        fields["certificate"], fields["authorities"], begins_s + (expires_s - begins_s) * _RENEW_PART, expires_s
    )


def _signed_request(identity: Identity) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.peer.hex())])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(identity.private_key, None)
    return request.public_bytes(serialization.Encoding.DER)
