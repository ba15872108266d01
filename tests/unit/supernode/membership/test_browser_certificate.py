"""What browsers are shown, which know no Ed25519, and what members are."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proto.errors import ConfigError
from proto.runtime import tls
from proto.wire.join import SUPERNODE_NAME
from supernode.membership.browser_certificate import FILE, load_or_create
from tests.unit.supernode.harness import running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_origin import FakeOrigin


def shown(address: str, name: str | None) -> x509.Certificate:
    """To who asks for this name."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port))) as plain,
        tls.unverified_context().wrap_socket(plain, server_hostname=name) as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate)


@pytest.mark.asyncio
async def test_members_are_shown_the_cluster_s_and_all_others_one_that_browsers_know(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    async with running_supernode(tmp_path, origin, "--open", "false") as supernode:
        member = await asyncio.to_thread(shown, supernode.api_address, SUPERNODE_NAME)
        assert isinstance(member.public_key(), Ed25519PublicKey)
        for name in (None, "supernode.example.com"):
            browser = await asyncio.to_thread(shown, supernode.api_address, name)
            assert isinstance(browser.public_key(), EllipticCurvePublicKey)


def test_it_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert load_or_create(tmp_path) == made


def test_a_file_that_is_none_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("nonsense")
    with pytest.raises(ConfigError, match="put a key and its certificate there"):
        load_or_create(tmp_path)
