"""Where redirects lead, byte for byte, and what may be shown there. Both HTTP clients go by this."""

from __future__ import annotations

import pytest

from peer.registry.addresses import Endpoint, upstream_endpoint
from peer.registry.redirects import lines_for, redirect_target
from proto.errors import UpstreamError
from proto.oci.upstreams import UpstreamConfig, UpstreamTable

PRIVATE = UpstreamConfig("10.0.0.5:5000", "http://10.0.0.5:5000", configured=True)
TABLE = UpstreamTable.build(sections=[PRIVATE])
HUB = TABLE.default
HERE = upstream_endpoint(HUB, anonymous=False)
LINES = [("Accept", "a"), ("Authorization", "Bearer x"), ("accept", "b"), ("COOKIE", "c")]


def target(location: str, *, path: str = "/v2/a/blobs/b?c=d") -> tuple[str, str]:
    endpoint, found = redirect_target(TABLE, HUB, HERE, path, location, anonymous=False)
    return f"{endpoint.scheme}://{endpoint.authority}", found


@pytest.mark.parametrize(
    ("location", "server", "found"),
    [
        ("/other?x=%2F", "https://registry-1.docker.io", "/other?x=%2F"),
        ("/other#part", "https://registry-1.docker.io", "/other"),
        ("https://cdn.example/a%2Fb?sig=+~%3D", "https://cdn.example", "/a%2Fb?sig=+~%3D"),
        ("HTTPS://CDN.example:443?sig=1", "https://cdn.example", "/?sig=1"),
        ("//cdn.example/x", "https://cdn.example", "/x"),
        ("next", "https://registry-1.docker.io", "/v2/a/blobs/next"),
        ("http://10.0.0.5:5000/x", "http://10.0.0.5:5000", "/x"),
    ],
)
def test_a_location_keeps_its_path_and_query(location: str, server: str, found: str) -> None:
    assert target(location) == (server, found)


@pytest.mark.parametrize("location", ["ftp://a/b", "http://cdn.example/", "https://a b/", "https://u@h/", "//[bad"])
def test_what_may_not_be_followed_raises_and_does_not_repeat_the_query(location: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        target(f"{location}?sig=secret")
    assert "secret" not in str(caught.value)


def test_credentials_go_on_to_the_same_server_alone() -> None:
    assert lines_for(HERE, HERE, LINES) == LINES
    elsewhere = Endpoint("https", "cdn.example", 443, trusted=False)
    assert lines_for(elsewhere, HERE, LINES) == [("Accept", "a"), ("accept", "b")]
    assert lines_for(HERE, elsewhere, lines_for(elsewhere, HERE, LINES)) == [("Accept", "a"), ("accept", "b")]
