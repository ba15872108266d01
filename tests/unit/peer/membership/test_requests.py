"""What whoever answers at the supernode's address may show: none of it is more than a refusal."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from peer.membership.refusals import NotAdmitted
from peer.membership.requests import pinned_authority, read_answer
from proto.wire.tickets import Identity
from supernode.membership.certificates import new_authority

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW_S = 1_790_000_000.0


def strange_certificates() -> Iterator[str]:
    """With a version that is none, with a key of a kind that nobody knows, torn, and none at all."""
    der = new_authority(NOW_S).certificate.public_bytes(serialization.Encoding.DER)
    key = b"\x06\x03\x2b\x65\x70\x03\x21"
    for content in (
        der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09"),
        der.replace(key, b"\x06\x03\x2b\x65\x63\x03\x21"),
        der[:100],
    ):
        yield f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(content).decode()}-----END CERTIFICATE-----\n"
    yield ""
    yield "\ufffd" * 100


@pytest.mark.parametrize("shown", list(strange_certificates()))
def test_certificates_that_cannot_be_read_are_a_refusal(shown: str) -> None:
    with pytest.raises(NotAdmitted):
        pinned_authority(shown, "fingerprint")
    with pytest.raises(NotAdmitted):
        read_answer(Identity.generate(), json.dumps({"certificate": shown, "authorities": shown}).encode())
