"""Where an upstream's redirects and token service may lead."""

from __future__ import annotations

import dataclasses

import pytest

from peer.registry.addresses import checked_addresses, is_private_literal, is_public_address, named_endpoint
from proto.errors import UpstreamError, UpstreamKind
from proto.oci.upstreams import UpstreamConfig, UpstreamTable

PRIVATE = UpstreamConfig("10.0.0.5:5000", "http://10.0.0.5:5000", configured=True)
SECURE = UpstreamConfig("registry.corp", "https://registry.corp", configured=True)
TABLE = UpstreamTable.build(sections=[PRIVATE, SECURE])
HUB = TABLE.default


def trusted(upstream: UpstreamConfig, scheme: str, authority: str) -> bool:
    return named_endpoint(TABLE, upstream, scheme, authority, anonymous=True).trusted


def test_a_public_https_host_may_be_named_by_anyone_and_its_address_is_checked() -> None:
    assert not trusted(HUB, "https", "cdn.example")


def test_a_configured_upstream_may_be_named_by_another() -> None:
    assert trusted(HUB, "http", "10.0.0.5:5000")
    assert trusted(HUB, "https", "registry.corp")


def test_a_configured_https_upstream_may_name_another_port_of_its_own_host() -> None:
    assert trusted(SECURE, "https", "registry.corp:8443")


@pytest.mark.parametrize(
    ("upstream", "scheme", "authority"),
    [
        (HUB, "http", "cdn.example"),
        (HUB, "https", "cdn.example:8443"),
        (HUB, "http", "10.0.0.5:5001"),
        (HUB, "https", "registry-1.docker.io:8443"),
        (SECURE, "http", "registry.corp"),
        (PRIVATE, "http", "10.0.0.5:5001"),
        (PRIVATE, "https", "10.0.0.5:5001"),
    ],
)
def test_all_else_is_denied_before_any_name_is_resolved(upstream: UpstreamConfig, scheme: str, authority: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        trusted(upstream, scheme, authority)
    assert caught.value.kind is UpstreamKind.DENIED


def test_the_operator_may_name_further_hosts_for_one_upstream() -> None:
    upstream = dataclasses.replace(SECURE, redirect_hosts=("minio.corp:9000", "auth.corp"))
    assert trusted(upstream, "https", "minio.corp:9000")
    assert trusted(upstream, "https", "auth.corp:8443")
    with pytest.raises(UpstreamError):
        trusted(upstream, "https", "minio.corp:9001")
    with pytest.raises(UpstreamError):
        trusted(HUB, "https", "minio.corp:9000")


def test_only_the_public_ones_of_several_addresses_are_connected_to() -> None:
    endpoint = named_endpoint(TABLE, HUB, "https", "cdn.example", anonymous=True)
    assert checked_addresses(endpoint, lambda host, port: ["127.0.0.1", "8.8.8.8", "::1"]) == ["8.8.8.8"]


@pytest.mark.parametrize("address", ["192.0.0.192", "192.88.99.1", "3fff::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "::1", "localhost"])
def test_every_spelling_of_a_private_address_is_seen_where_a_proxy_would_resolve_it(host: str) -> None:
    assert is_private_literal(host)
    assert not is_private_literal("quay.io")
    assert not is_private_literal("8.8.8.8")


def test_a_name_that_is_not_known_is_unavailable() -> None:
    def resolver(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    endpoint = named_endpoint(TABLE, HUB, "https", "cdn.example", anonymous=True)
    with pytest.raises(UpstreamError) as caught:
        checked_addresses(endpoint, resolver)
    assert caught.value.kind is UpstreamKind.UNAVAILABLE
