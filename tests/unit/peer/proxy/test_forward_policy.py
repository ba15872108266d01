"""Which tunnels end at the mirror, which go on, and which are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peer.proxy.forward_policy import ForwardPolicy, ForwardRefused, Intercepted, Tunnelled, intercepted_hosts
from proto.oci.upstreams import UpstreamConfig, UpstreamTable

REGISTRY = UpstreamConfig("registry.example.com", "https://10.0.0.7:5000", configured=True)
AT_PORT = UpstreamConfig("registry.example.com:5000", "https://registry.example.com:5000", configured=True)
PLAIN = UpstreamConfig("lab.example.com:5000", "http://lab.example.com:5000", configured=True)
TABLE = UpstreamTable.build(sections=[REGISTRY, AT_PORT, PLAIN])
LOCAL = ForwardPolicy()
OPEN = ForwardPolicy(local_only=False, hosts=frozenset({"auth.example.com:443", "[fd00::1]:8443"}))


def refusal(policy: ForwardPolicy, target: str) -> int:
    with pytest.raises(ForwardRefused) as refused:
        policy.connect(target, TABLE)
    return refused.value.status


@pytest.mark.parametrize(
    ("target", "authority"),
    [
        ("registry.example.com:443", "registry.example.com"),
        ("Registry.Example.COM:443", "registry.example.com"),
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("registry-1.docker.io:443", "registry-1.docker.io"),
        ("ghcr.io:443", "ghcr.io"),
    ],
)
def test_a_tunnel_to_a_registry_of_the_allow_list_ends_here(target: str, authority: str) -> None:
    for policy in (LOCAL, OPEN):
        decided = policy.connect(target, TABLE)
        assert isinstance(decided, Intercepted)
        assert decided.authority == authority


@pytest.mark.parametrize("target", ["auth.docker.io:443", "index.docker.io:443", "docker.io:443", "1.1.1.1:443"])
def test_any_other_host_gets_a_tunnel_on_443_from_a_proxy_on_loopback(target: str) -> None:
    host = target.removesuffix(":443")
    assert LOCAL.connect(target, TABLE) == Tunnelled(host, 443, trusted=False)
    assert refusal(OPEN, target) == 403


@pytest.mark.parametrize("port", [22, 25, 80, 5000, 8443, 65001])
def test_other_ports_are_refused(port: int) -> None:
    assert refusal(LOCAL, f"example.com:{port}") == 403


def test_a_host_that_the_operator_named_is_trusted() -> None:
    assert OPEN.connect("auth.example.com:443", TABLE) == Tunnelled("auth.example.com", 443, trusted=True)
    assert OPEN.connect("[fd00:0::1]:8443", TABLE) == Tunnelled("fd00::1", 8443, trusted=True)
    assert refusal(OPEN, "auth.example.com:8443") == 403


def test_without_a_certificate_to_show_registries_are_tunnelled_to_and_no_others() -> None:
    away = replace(OPEN, intercepts=False)
    assert away.connect("registry.example.com:5000", TABLE) == Tunnelled("registry.example.com", 5000, trusted=True)
    # Nobody named it here: it has a public address.
    assert away.connect("ghcr.io:443", TABLE) == Tunnelled("ghcr.io", 443, trusted=False)
    assert refusal(away, "example.com:443") == 403
    assert refusal(away, "lab.example.com:5000") == 502


def test_a_registry_over_plain_http_has_no_tunnel_and_is_asked_by_its_whole_url() -> None:
    assert refusal(LOCAL, "lab.example.com:5000") == 502
    assert LOCAL.absolute("lab.example.com:5000", TABLE) is PLAIN


@pytest.mark.parametrize("authority", ["example.com:80", "127.0.0.1:65001", "169.254.169.254:80"])
def test_a_whole_url_of_anything_else_is_refused(authority: str) -> None:
    with pytest.raises(ForwardRefused) as refused:
        LOCAL.absolute(authority, TABLE)
    assert refused.value.status == 403


@pytest.mark.parametrize("target", ["", "/", "host", "host:", "host:0", "host:99999", "a@b:443", "[::1:443", "a b:443"])
def test_what_is_no_host_and_port_is_refused(target: str) -> None:
    assert refusal(LOCAL, target) == 400


def test_a_proxy_that_is_off_refuses_all() -> None:
    policy = ForwardPolicy(enabled=False)
    assert refusal(policy, "ghcr.io:443") == 403
    with pytest.raises(ForwardRefused):
        policy.absolute("ghcr.io:443", TABLE)


def test_certificates_are_for_the_registries_that_speak_https() -> None:
    hosts = intercepted_hosts(TABLE)
    assert {"registry.example.com", "ghcr.io", "registry-1.docker.io"} <= set(hosts)
    assert not {"lab.example.com", "docker.io", "10.0.0.7"} & set(hosts)
    assert hosts == sorted(set(hosts))
