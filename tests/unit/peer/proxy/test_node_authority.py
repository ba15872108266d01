"""The node's authority: its files, whom it may certify, and its leaves in real handshakes."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import WAIT_S
from peer.proxy.leaf_certificates import DAY_S, LEAF_LIFE_S, certify_authority, hosts_of, new_authority_name, new_key
from peer.proxy.node_authority import NodeAuthority
from proto.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = ["10.1.2.3", "registry.example.com"]


def handshake(authority: NodeAuthority, host: str, trusted: Path, *, context_for: str | None = None) -> int:
    """Serial number of the leaf that a client took which trusts this file. Raises ssl.SSLError."""
    ours, theirs = socket.socketpair()
    context = authority.context(context_for or host)

    def serve() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as secured:
                secured.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ours.settimeout(WAIT_S)
        client = ssl.create_default_context(cafile=trusted)
        with client.wrap_socket(ours, server_hostname=host) as secured:
            certificate = secured.getpeercert()
            assert certificate is not None
            return int(str(certificate["serialNumber"]), 16)
    finally:
        ours.close()
        thread.join(WAIT_S)


def test_a_client_that_trusts_the_file_takes_a_leaf_for_each_of_its_hosts(tmp_path: Path) -> None:
    authority = NodeAuthority(tmp_path)
    authority.open(HOSTS)
    for host in HOSTS:
        assert handshake(authority, host, authority.certificate_file) == handshake(
            authority, host, authority.certificate_file
        )


def test_it_cannot_certify_for_any_other_name_or_address(tmp_path: Path) -> None:
    authority = NodeAuthority(tmp_path)
    authority.open(HOSTS)
    for host in ("example.com", "registry.example.com.evil.net", "10.1.2.4", "::1"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"permitted subtree|excluded subtree"):
            handshake(authority, host, authority.certificate_file)


@pytest.mark.parametrize("hosts", [["10.1.2.3"], ["registry.example.com"]])
def test_a_kind_of_name_that_is_not_among_its_hosts_is_excluded(tmp_path: Path, hosts: list[str]) -> None:
    authority = NodeAuthority(tmp_path)
    authority.open(hosts)
    for other in ("10.9.9.9", "example.com"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(authority, other, authority.certificate_file)


def test_its_constraints_are_critical() -> None:
    key = new_key()
    certificate = certify_authority(key, new_authority_name(), HOSTS, time.time())
    critical = {extension.oid._name for extension in certificate.extensions if extension.critical}
    assert critical == {"basicConstraints", "keyUsage", "nameConstraints"}
    assert hosts_of(certificate) == set(HOSTS)


def test_the_key_is_its_owners_alone_and_the_certificate_everybodys(tmp_path: Path) -> None:
    NodeAuthority(tmp_path).open(HOSTS)
    folder = tmp_path / "interception"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "ca.key": 0o600,
        "ca.pem": 0o644,
    }


def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first, second = NodeAuthority(tmp_path), NodeAuthority(tmp_path)
    first.open(HOSTS)
    before = first.certificate_file.read_bytes()
    second.open(HOSTS)
    assert second.certificate_file.read_bytes() == before


def test_further_hosts_change_the_certificate_and_who_trusts_the_old_one_keeps_the_old_hosts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = NodeAuthority(tmp_path)
    authority.open(HOSTS)
    old = tmp_path / "old.pem"
    old.write_bytes(authority.certificate_file.read_bytes())
    with caplog.at_level(logging.WARNING):
        authority.open([*HOSTS, "quay.io"])
    assert "interception_ca_changed" in caplog.text
    handshake(authority, "quay.io", authority.certificate_file)
    handshake(authority, "registry.example.com", old)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, "quay.io", old)


def test_a_leaf_is_made_anew_after_two_thirds_of_its_life(tmp_path: Path) -> None:
    now_unix_s = time.time()
    authority = NodeAuthority(tmp_path, clock=lambda: now_unix_s)
    authority.open(HOSTS)
    first = authority.context(HOSTS[0])
    now_unix_s += LEAF_LIFE_S * 2 / 3 - DAY_S
    assert authority.context(HOSTS[0]) is first
    now_unix_s += 2 * DAY_S
    assert authority.context(HOSTS[0]) is not first


def test_what_was_made_while_the_clock_was_ahead_is_made_anew_once_it_is_right(tmp_path: Path) -> None:
    now_unix_s = time.time() + 365 * DAY_S
    authority = NodeAuthority(tmp_path, clock=lambda: now_unix_s)
    authority.open(HOSTS)
    leaf = authority.context(HOSTS[0])
    now_unix_s -= 365 * DAY_S
    assert authority.context(HOSTS[0]) is not leaf
    authority.open(HOSTS)
    handshake(authority, HOSTS[0], authority.certificate_file)


def test_nobody_else_may_put_a_key_of_theirs_there(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        NodeAuthority(tmp_path).open(HOSTS)
    finally:
        os.umask(before)
    assert not stat.S_IMODE((tmp_path / "interception").stat().st_mode) & 0o022


def test_a_certificate_that_ends_in_some_years_is_made_anew_for_the_same_key(tmp_path: Path) -> None:
    NodeAuthority(tmp_path).open(HOSTS)
    before = (tmp_path / "interception" / "ca.pem").read_bytes()
    NodeAuthority(tmp_path, clock=lambda: time.time() + 8 * 365 * DAY_S).open(HOSTS)
    assert (tmp_path / "interception" / "ca.pem").read_bytes() != before


def test_a_key_that_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    NodeAuthority(tmp_path).open(HOSTS)
    (tmp_path / "interception" / "ca.key").write_text("-----BEGIN nonsense")
    with pytest.raises(ConfigError, match="remove it"):
        NodeAuthority(tmp_path).open(HOSTS)
