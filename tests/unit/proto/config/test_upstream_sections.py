"""The `[upstream."HOST"]` sections: what they mean, and errors that name section, key and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proto.config.upstream_sections import upstreams_of
from proto.errors import ConfigError

if TYPE_CHECKING:
    from proto.oci.upstreams import UpstreamConfig


def check_shelf(place: str) -> None:
    if not place.startswith("/"):
        raise ValueError("a path from / on expected")


def sections(tables: dict[str, dict[str, object]]) -> list[UpstreamConfig]:
    return upstreams_of(tables, {"shelf": check_shelf})


def test_a_section_says_how_a_registry_is_asked() -> None:
    (upstream,) = sections(
        {
            "R.example:5000": {
                "url": "http://10.0.0.1:5000/",
                "ca_file": "/etc/ca.pem",
                "client_cert": "/etc/c.pem",
                "client_key": "/etc/k.pem",
                "egress_proxy": "http://proxy:3128",
                "redirect_hosts": ["CDN.example", "s3.example:9000"],
            }
        }
    )
    assert (upstream.host, upstream.url, upstream.configured) == ("r.example:5000", "http://10.0.0.1:5000", True)
    assert (upstream.ca_file, upstream.client_key) == (Path("/etc/ca.pem"), Path("/etc/k.pem"))
    assert upstream.egress_proxy == "http://proxy:3128"
    assert upstream.redirect_hosts == ("cdn.example", "s3.example:9000")


def test_without_a_url_it_is_https_at_its_name() -> None:
    registry, hub = sections({"r.example": {}, "docker.io": {}})
    assert registry.url == "https://r.example"
    assert (hub.host, hub.url) == ("docker.io", "https://registry-1.docker.io")


def test_an_upstream_that_is_no_registry_has_the_kind_and_place_of_its_section() -> None:
    (upstream,) = sections({"r.example": {"shelf": "/srv/x"}})
    assert (upstream.host, upstream.configured) == ("r.example", True)
    assert (upstream.url, upstream.kind, upstream.place) == ("", "shelf", "/srv/x")


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"bad host": {}}, "HOST"),
        ({"r.example": {"uri": "https://x"}}, "unknown key 'uri'"),
        ({"r.example": {"url": "ftp://x"}}, "url"),
        ({"r.example": {"url": 7}}, "url = 7"),
        ({"r.example": {"client_cert": "/c.pem"}}, "go together"),
        ({"r.example": {"redirect_hosts": "cdn"}}, "redirect_hosts"),
        ({"r.example": {"redirect_hosts": ["a b"]}}, "redirect_hosts"),
        ({"r.example": {"uri": "https://x"}}, "known keys: .*, shelf"),
        ({"r.example": {"shelf": 7}}, "shelf = 7"),
        ({"r.example": {"shelf": "srv"}}, "shelf = 'srv': a path from / on expected"),
        ({"r.example": {"shelf": "/srv", "url": "https://x"}}, "shelf goes with no other key"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, dict[str, object]], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sections(table)
