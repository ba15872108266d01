"""`/v2/` paths: what is asked for, of which registry, and what is refused by name."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.errors import LayercastError, NameInvalid, PathUnknown
from proto.ids import Digest
from proto.oci.routes import (
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    NamedBy,
    OtherRoute,
    Ping,
    ReferrersRoute,
    TagsRoute,
    parse_path,
    parse_request,
    rewrite_link,
)

if TYPE_CHECKING:
    from proto.oci.routes import Route

DIGEST = Digest.of(b"layer")
SHA512 = Digest.of(b"layer", "sha512")

WORDS = st.one_of(
    st.sampled_from(["blobs", "manifests", "tags", "referrers", "list", "latest", "v2"]),
    st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True),
)
REPOSITORIES = st.lists(WORDS, min_size=1, max_size=5).map("/".join).filter(lambda name: len(name) <= 255)
DIGESTS = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}", fullmatch=True)
ROUTES: st.SearchStrategy[Route] = st.one_of(
    st.just(Ping()),
    st.builds(BlobRoute, REPOSITORIES, DIGESTS),
    st.builds(ManifestRoute, REPOSITORIES, st.one_of(TAGS, DIGESTS)),
    st.builds(TagsRoute, REPOSITORIES),
    st.builds(ReferrersRoute, REPOSITORIES, DIGESTS),
)


@given(ROUTES)
def test_every_printed_path_is_read_back(route: Route) -> None:
    assert parse_path(route.path) == route


@given(ROUTES)
def test_a_percent_encoded_path_means_the_same(route: Route) -> None:
    assert parse_path(quote(route.path)) == route


@given(st.one_of(st.text(max_size=60), st.text(max_size=60).map("/v2/".__add__)), st.text(max_size=30))
def test_any_text_is_a_request_or_a_named_refusal(path: str, query: str) -> None:
    with contextlib.suppress(LayercastError):
        request = parse_request(path, query, "docker.io")
        assert parse_path(request.route.path) == request.route


@given(
    ROUTES.filter(lambda route: not isinstance(route, Ping)), st.sampled_from(["quay.io", "localhost:5000", "[::1]"])
)
def test_a_host_in_front_names_the_upstream(route: Route, host: str) -> None:
    request = parse_request(f"/v2/{host}{route.path.removeprefix('/v2')}", "", "docker.io")
    assert (request.upstream, request.route, request.named_by) == (host, route, NamedBy.PREFIX)


def test_v2_without_the_slash_is_a_ping() -> None:
    assert parse_path("/v2") == Ping()


def test_the_last_marker_routes() -> None:
    route = parse_path(f"/v2/a/blobs/manifests/b/blobs/{SHA512}")
    assert route == BlobRoute("a/blobs/manifests/b", SHA512)


def test_ns_names_the_upstream_and_is_not_passed_on() -> None:
    request = parse_request("/v2/my.org/name/tags/list", "n=5&ns=Quay.IO%3A8443&last=a%20b", "docker.io")
    assert request.upstream == "quay.io:8443"
    assert request.named_by is NamedBy.NS
    assert request.origin_target == "/v2/my.org/name/tags/list?n=5&last=a%20b"


def test_without_a_name_the_default_upstream_is_meant_and_library_is_not_added() -> None:
    request = parse_request("/v2/alpine/manifests/latest", "", "registry-1.docker.io")
    assert (request.upstream, request.route) == ("docker.io", ManifestRoute("alpine", "latest"))


def test_a_single_component_with_a_dot_is_a_repository() -> None:
    request = parse_request("/v2/my.name/manifests/latest", "", "docker.io")
    assert (request.upstream, request.route) == ("docker.io", ManifestRoute("my.name", "latest"))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/search", PathUnknown),
        ("", PathUnknown),
        ("/v2/name/tags/other", PathUnknown),
        ("/v2/blobs/sha256:00", NameInvalid),
        ("/v2/Name/manifests/latest", NameInvalid),
        ("/v2/a//b/manifests/latest", NameInvalid),
        ("/v2/a/../b/manifests/latest", NameInvalid),
        ("/v2/a/%2e%2e/manifests/latest", NameInvalid),
        ("/v2/a%00b/manifests/latest", NameInvalid),
        ("/v2/a%ff/manifests/latest", NameInvalid),
        ("/v2/a%zz/manifests/latest", NameInvalid),
        ("/v2/a\r\nX: y/manifests/latest", NameInvalid),
        ("/v2/" + "a" * 256 + "/manifests/latest", NameInvalid),
        ("/v2/" + "a/" * 2000 + "manifests/latest", NameInvalid),
    ],
)
def test_a_malformed_path_is_refused_by_name(path: str, error: type[LayercastError]) -> None:
    with pytest.raises(error):
        parse_path(path)


@pytest.mark.parametrize("ns", ["user@host", "host/path", "", "a..b", "host:0", "host:99999", "h%0d%0aX", "%C3%A9"])
def test_a_bad_ns_is_refused(ns: str) -> None:
    with pytest.raises(NameInvalid):
        parse_request("/v2/a/manifests/latest", f"ns={ns}", "docker.io")


def test_two_ns_are_refused() -> None:
    with pytest.raises(NameInvalid):
        parse_request("/v2/a/manifests/latest", "ns=quay.io&ns=ghcr.io", "docker.io")


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/v2/org/name/tags/list", "", '</v2/org/name/tags/list?last=b&n=2>; rel="next"'),
        ("/v2/quay.io/org/name/tags/list", "", '</v2/quay.io/org/name/tags/list?last=b&n=2>; rel="next"'),
        ("/v2/org/name/tags/list", "ns=quay.io", '</v2/org/name/tags/list?last=b&n=2&ns=quay.io>; rel="next"'),
    ],
)
@pytest.mark.parametrize("origin", ["", "https://quay.io", "http://10.0.0.1:5000"])
def test_the_link_of_a_tag_list_stays_on_the_proxys_host(path: str, query: str, expected: str, origin: str) -> None:
    request = parse_request(path, query, "docker.io")
    assert rewrite_link(f'<{origin}/v2/org/name/tags/list?last=b&n=2>; rel="next"', request) == expected


@pytest.mark.parametrize("link", ["", "nonsense", "<https://elsewhere/login>; rel=next", "<//host>"])
def test_a_link_out_of_the_api_is_dropped(link: str) -> None:
    assert rewrite_link(link, parse_request("/v2/a/tags/list", "", "docker.io")) is None


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("manifests", "-dash"),
        ("manifests", "t" * 129),
        ("manifests", "sha256:abc"),
        ("blobs", "latest"),
        ("blobs", "a b"),
    ],
)
def test_what_is_no_tag_and_no_digest_is_for_the_registry_to_refuse(kind: str, reference: str) -> None:
    route = parse_path(f"/v2/a/{kind}/{quote(reference)}")
    assert route == OtherRoute("a", kind, reference)
    assert route.path == f"/v2/a/{kind}/{quote(reference, safe=':')}"


def test_a_digest_of_an_algorithm_that_is_not_checked_is_a_digest() -> None:
    route = parse_path("/v2/a/blobs/sha384:00ff")
    assert isinstance(route, BlobRoute)
    assert (str(route.digest), route.digest.checked) == ("sha384:00ff", False)


def test_the_catalog_has_a_route() -> None:
    assert parse_path("/v2/_catalog") == CatalogRoute()


@pytest.mark.parametrize(
    ("path", "query", "header", "upstream", "repository", "named_by"),
    [
        ("/v2/org/app/tags/list", "", "quay.io", "quay.io", "org/app", NamedBy.HEADER),
        ("/v2/quay.io/org/app/tags/list", "", "quay.io", "quay.io", "org/app", NamedBy.PREFIX),
        ("/v2/quay.io/org/app/tags/list", "ns=quay.io", None, "quay.io", "org/app", NamedBy.NS_AND_PREFIX),
        ("/v2/index.docker.io/org/app/tags/list", "ns=docker.io", None, "docker.io", "org/app", NamedBy.NS_AND_PREFIX),
        # A registry that keeps copies of another one has repositories that begin so.
        ("/v2/quay.io/org/app/tags/list", "ns=ghcr.io", None, "ghcr.io", "quay.io/org/app", NamedBy.NS),
        ("/v2/quay.io/org/app/tags/list", "", "ghcr.io", "ghcr.io", "quay.io/org/app", NamedBy.HEADER),
        ("/v2/org/app/tags/list", "ns=quay.io", "ghcr.io", "quay.io", "org/app", NamedBy.NS),
        ("/v2/org/app/tags/list", "", "", "docker.io", "org/app", NamedBy.DEFAULT),
    ],
)
def test_a_registry_is_named_by_header_by_ns_by_path_or_by_two_of_them(
    path: str, query: str, header: str | None, upstream: str, repository: str, named_by: NamedBy
) -> None:
    request = parse_request(path, query, "docker.io", header=header)
    assert (request.upstream, request.route, request.named_by) == (upstream, TagsRoute(repository), named_by)


def test_a_link_names_the_registry_in_both_ways_to_who_named_it_so() -> None:
    request = parse_request("/v2/quay.io/org/app/tags/list", "ns=quay.io", "docker.io")
    link = '</v2/org/app/tags/list?last=b>; rel="next"'
    assert rewrite_link(link, request) == '</v2/quay.io/org/app/tags/list?last=b&ns=quay.io>; rel="next"'
