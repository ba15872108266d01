"""Names of registries and the allow-list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import ConfigError, NameInvalid, UpstreamNotAllowed
from proto.oci.upstreams import UpstreamConfig, UpstreamTable, normalise_upstream, split_authority, upstream_from_url


@given(st.text(max_size=40))
def test_normalising_is_idempotent_or_refuses(name: str) -> None:
    try:
        normalised = normalise_upstream(name)
    except NameInvalid:
        return
    assert normalise_upstream(normalised) == normalised
    host, port = split_authority(normalised, 443)
    assert host
    assert 1 <= port <= 65535


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Docker.IO", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io:443", "docker.io"),
        ("docker.io:5000", "docker.io:5000"),
        ("QUAY.io:0443", "quay.io:443"),
        ("localhost:5000", "localhost:5000"),
        ("[0:0::1]:5000", "[::1]:5000"),
        ("[FE80::A]", "[fe80::a]"),
        ("10.0.0.1:5000", "10.0.0.1:5000"),
    ],
)
def test_one_spelling_for_each_registry(name: str, expected: str) -> None:
    assert normalise_upstream(name) == expected


@pytest.mark.parametrize(
    "name",
    ["", "a b", "u@h", "u:p@h", "h/p", "h?q", "h#f", "h\n", "h\x00", "h:", "h:x", "h:1:2", "::1", "[::1", "[::g]",
     "[fe80::1%25eth0]", "-a.io", "a-.io", "a..io", "h.", "é.io", "a" * 300],
)  # fmt: skip
def test_what_is_no_authority_is_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        normalise_upstream(name)


def test_the_public_registries_are_allowed_over_https() -> None:
    table = UpstreamTable.build()
    assert table.default.url == "https://registry-1.docker.io"
    assert table.lookup("index.docker.io") is table.default
    assert table.lookup("ghcr.io:443").url == "https://ghcr.io"


def test_another_host_is_refused() -> None:
    with pytest.raises(UpstreamNotAllowed):
        UpstreamTable.build().lookup("registry.example:5000")


def test_flags_add_upstreams() -> None:
    table = UpstreamTable.build(allow=["Registry.example"], insecure=["127.0.0.1:5000"])
    assert table.lookup("registry.example:443").url == "https://registry.example"
    assert table.lookup("127.0.0.1:5000").insecure
    assert table.lookup("127.0.0.1:5000").configured


def test_a_plain_http_upstream_without_a_port_is_not_found_on_443() -> None:
    with pytest.raises(UpstreamNotAllowed):
        UpstreamTable.build(insecure=["registry.example"]).lookup("registry.example:443")


def test_a_section_replaces_what_was_known_of_its_host() -> None:
    mirror = UpstreamConfig("docker.io", "http://10.1.1.1:5000", configured=True)
    assert UpstreamTable.build(sections=[mirror]).default is mirror


def test_the_default_upstream_may_be_a_local_one() -> None:
    table = UpstreamTable.build(default_url="http://127.0.0.1:5100")
    assert table.default.host == "127.0.0.1:5100"
    assert table.default.insecure


@pytest.mark.parametrize(
    "url", ["docker.io", "ftp://h", "https://u@h", "https://h/path", "https://h?q", "http://[::", ""]
)
def test_a_wrong_default_url_names_itself(url: str) -> None:
    with pytest.raises(ConfigError, match="upstream url"):
        upstream_from_url(url)


def test_a_wrong_flag_names_itself() -> None:
    with pytest.raises(ConfigError, match="--allow-upstream 'a/b'"):
        UpstreamTable.build(allow=["a/b"])
