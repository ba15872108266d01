"""Where an upload's Location leads, and whose repository a mount is from, as the request named its registry."""

from __future__ import annotations

import pytest

from proto.oci.routes import UploadRoute, parse_named, parse_path, parse_request
from proto.oci.uploads import origin_query, rewrite_location

ORIGIN = "https://registry.example.com:8443"
HOST = "registry.example.com:8443"
BY_DEFAULT = parse_request("/v2/org/app/blobs/uploads/", "", HOST)
BY_PREFIX = parse_request(f"/v2/{HOST}/org/app/blobs/uploads/", "", "docker.io")
BY_NS = parse_request("/v2/org/app/blobs/uploads/", f"ns={HOST}", "docker.io")
BY_CONNECTION = parse_named("/v2/org/app/blobs/uploads/", "", HOST)


@pytest.mark.parametrize("start", ["", ORIGIN, f"http://{HOST}", f"//{HOST}"])
def test_a_location_at_the_origin_leads_back_to_the_mirror_as_the_client_named_the_registry(start: str) -> None:
    location = f"{start}/v2/org/app/blobs/uploads/1-2?_state=a%2Bb"
    assert rewrite_location(location, BY_DEFAULT, ORIGIN) == "/v2/org/app/blobs/uploads/1-2?_state=a%2Bb"
    assert rewrite_location(location, BY_PREFIX, ORIGIN) == f"/v2/{HOST}/org/app/blobs/uploads/1-2?_state=a%2Bb"
    assert rewrite_location(location, BY_CONNECTION, ORIGIN) == "/v2/org/app/blobs/uploads/1-2?_state=a%2Bb"
    by_ns = f"/v2/org/app/blobs/uploads/1-2?_state=a%2Bb&ns={HOST.replace(':', '%3A')}"
    assert rewrite_location(location, BY_NS, ORIGIN) == by_ns


def test_a_default_port_is_no_other_server() -> None:
    request = parse_request("/v2/org/app/blobs/uploads/", "", "registry.example.com")
    location = "http://registry.example.com:80/v2/a/blobs/uploads/1"
    assert rewrite_location(location, request, "https://registry.example.com") == "/v2/a/blobs/uploads/1"


@pytest.mark.parametrize("location", ["https://storage.example.com/signed?x=1", "1-2-3", "?digest=x", ""])
def test_a_location_elsewhere_is_left_alone(location: str) -> None:
    for request in (BY_DEFAULT, BY_PREFIX, BY_NS, BY_CONNECTION):
        assert rewrite_location(location, request, ORIGIN) == location


def test_a_location_out_of_the_api_leads_to_the_origin_itself_but_in_a_tunnel() -> None:
    location = "/artifacts-uploads/namespaces/p/uploads/1"
    assert rewrite_location(location, BY_PREFIX, ORIGIN) == f"{ORIGIN}{location}"
    assert rewrite_location(f"{ORIGIN}{location}", BY_DEFAULT, ORIGIN) == f"{ORIGIN}{location}"
    assert rewrite_location(f"{ORIGIN}{location}", BY_CONNECTION, ORIGIN) == location


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("mount=sha256:ab&from=org/base", "mount=sha256:ab&from=org/base"),
        (f"mount=sha256:ab&from={HOST}/org/base", "mount=sha256:ab&from=org/base"),
        (f"from={HOST.replace(':', '%3A')}%2Forg%2Fbase&mount=sha256%3Aab", "from=org/base&mount=sha256%3Aab"),
        ("mount=sha256:ab&from=quay.io/org/base&x=1", "x=1"),
        ("mount=sha256:ab&from=a:b:c/org", ""),
        ("digest=sha256:ab", "digest=sha256:ab"),
        ("", ""),
    ],
)
def test_a_mount_is_from_the_repository_as_its_registry_knows_it(given: str, asked: str) -> None:
    request = parse_request(f"/v2/{HOST}/org/app/blobs/uploads/", given, "docker.io")
    assert origin_query(request) == asked


def test_in_a_tunnel_a_query_is_the_clients_own() -> None:
    query = "mount=sha256:ab&from=quay.io/org/base"
    assert origin_query(parse_named("/v2/org/app/blobs/uploads/", query, HOST)) == query


@pytest.mark.parametrize(
    ("path", "session"),
    [
        ("/v2/org/app/blobs/uploads", ""),
        ("/v2/org/app/blobs/uploads/", ""),
        ("/v2/org/app/blobs/uploads/1-2_3", "1-2_3"),
        ("/v2/org/app/blobs/uploads/a/b=", "a/b="),
    ],
)
def test_an_upload_is_named_by_what_follows_its_repository(path: str, session: str) -> None:
    route = parse_path(path)
    assert route == UploadRoute("org/app", session)
    assert route.path == f"/v2/org/app/blobs/uploads/{session}"


def test_a_repository_of_one_part_that_looks_like_a_host_is_a_repository_for_uploads_too() -> None:
    assert parse_request("/v2/my.app/blobs/uploads/1", "", HOST).route == UploadRoute("my.app", "1")
