"""What the OCI distribution specification 1.1 asks of a registry that is pulled from, as checks of ours.

Each takes somebody to ask and what is there, and raises AssertionError. They are about the workflows "pull" and
"content discovery", and what HTTP (RFC 9110) says of ranges and conditions, which clients rely on.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from tests.support.registry_contents import (
    INDEX,
    MANIFEST,
    OTHER,
    REPOSITORY,
    SBOM,
    TAGGED,
    TAGS,
    Answer,
    Asker,
    Content,
    Contents,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Requirement = Callable[[Asker, Contents], None]

REQUIREMENTS: Final[dict[str, Requirement]] = {}
ACCEPT: Final = (("Accept", MANIFEST), ("Accept", INDEX))
UNKNOWN: Final = "org/unknown"
NO_HEX: Final = "0" * 64
_KINDS: Final = itertools.count(1)


def requirement(check: Requirement) -> Requirement:
    """Name it by its function."""
    REQUIREMENTS[check.__name__] = check
    return check


def blob_at(digest: str, repository: str = REPOSITORY) -> str:
    return f"/v2/{repository}/blobs/{digest}"


def manifest_at(reference: str, repository: str = REPOSITORY) -> str:
    return f"/v2/{repository}/manifests/{reference}"


def assert_refused(answer: Answer, status: int, *codes: str) -> None:
    """With one of these codes, where the body is a document: as the specification has it then."""
    assert answer.status == status, answer
    if answer.body.startswith(b"{"):
        assert answer.codes & set(codes), answer


# --- the API as such -------------------------------------------------------------------------------------------------


@requirement
def the_api_says_that_it_is_there(ask: Asker, _: Contents) -> None:
    assert ask("GET", "/v2/").status == 200


# --- manifests -------------------------------------------------------------------------------------------------------


def assert_manifest(answer: Answer, manifest: Content, *, head: bool = False) -> None:
    assert answer.status == 200, answer
    assert answer.body == (b"" if head else manifest.body)
    assert answer.headers["content-type"].partition(";")[0] == manifest.media_type
    assert answer.headers["docker-content-digest"] == manifest.digest
    assert answer.headers["content-length"] == str(len(manifest.body))


@requirement
def a_manifest_is_given_by_its_tag_byte_for_byte(ask: Asker, there: Contents) -> None:
    assert_manifest(ask("GET", manifest_at("image"), *ACCEPT), there.manifest)


@requirement
def a_manifest_is_given_by_its_digest_byte_for_byte(ask: Asker, there: Contents) -> None:
    assert_manifest(ask("GET", manifest_at(there.manifest.digest), *ACCEPT), there.manifest)


@requirement
def an_index_is_given_as_an_index(ask: Asker, there: Contents) -> None:
    assert_manifest(ask("GET", manifest_at("index"), *ACCEPT), there.index)


@requirement
def a_manifest_with_a_subject_is_given_byte_for_byte(ask: Asker, there: Contents) -> None:
    assert_manifest(ask("GET", manifest_at(there.sbom.digest), *ACCEPT), there.sbom)


@requirement
def the_head_of_a_manifest_tells_its_length_and_digest(ask: Asker, there: Contents) -> None:
    for reference in ("image", there.manifest.digest):
        assert_manifest(ask("HEAD", manifest_at(reference), *ACCEPT), there.manifest, head=True)


@requirement
def an_unknown_tag_is_not_found(ask: Asker, _: Contents) -> None:
    assert_refused(ask("GET", manifest_at("unknown"), *ACCEPT), 404, "MANIFEST_UNKNOWN")


@requirement
def an_unknown_manifest_is_not_found(ask: Asker, _: Contents) -> None:
    assert_refused(ask("GET", manifest_at(f"sha256:{NO_HEX}"), *ACCEPT), 404, "MANIFEST_UNKNOWN")


@requirement
def a_manifest_of_an_unknown_repository_is_not_found(ask: Asker, _: Contents) -> None:
    answer = ask("GET", manifest_at("image", UNKNOWN), *ACCEPT)
    assert_refused(answer, 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")


@requirement
def the_head_of_an_unknown_manifest_is_not_found(ask: Asker, _: Contents) -> None:
    answer = ask("HEAD", manifest_at("unknown"), *ACCEPT)
    assert (answer.status, answer.body) == (404, b"")


@requirement
def a_tag_outside_the_grammar_is_no_tag(ask: Asker, _: Contents) -> None:
    assert ask("GET", manifest_at(".starts-with-a-dot"), *ACCEPT).status in (400, 404)


# --- blobs -----------------------------------------------------------------------------------------------------------


def assert_blob(answer: Answer, blob: Content, *, head: bool = False) -> None:
    assert answer.status == 200, answer.status
    assert answer.body == (b"" if head else blob.body)
    assert answer.headers["content-length"] == str(len(blob.body))


@requirement
def a_blob_is_given_by_its_digest(ask: Asker, there: Contents) -> None:
    for blob in (there.layer, there.config):
        answer = ask("GET", blob_at(blob.digest))
        assert_blob(answer, blob)
        assert answer.headers["docker-content-digest"] == blob.digest


@requirement
def the_head_of_a_blob_tells_its_length_and_digest(ask: Asker, there: Contents) -> None:
    answer = ask("HEAD", blob_at(there.layer.digest))
    assert_blob(answer, there.layer, head=True)
    assert answer.headers["docker-content-digest"] == there.layer.digest


@requirement
def a_blob_of_no_bytes_is_a_blob(ask: Asker, there: Contents) -> None:
    assert_blob(ask("GET", blob_at(there.empty.digest)), there.empty)
    assert_blob(ask("HEAD", blob_at(there.empty.digest)), there.empty, head=True)


@requirement
def a_blob_may_be_named_by_another_algorithm(ask: Asker, there: Contents) -> None:
    assert_blob(ask("GET", blob_at(there.long_digest.digest)), there.long_digest)


@requirement
def an_unknown_blob_is_not_found(ask: Asker, _: Contents) -> None:
    assert_refused(ask("GET", blob_at(f"sha256:{NO_HEX}")), 404, "BLOB_UNKNOWN")


@requirement
def the_head_of_an_unknown_blob_is_not_found(ask: Asker, _: Contents) -> None:
    answer = ask("HEAD", blob_at(f"sha256:{NO_HEX}"))
    assert (answer.status, answer.body) == (404, b"")


@requirement
def a_blob_is_of_its_repository_alone(ask: Asker, there: Contents) -> None:
    assert ask("GET", blob_at(there.elsewhere.digest, OTHER)).status == 200
    assert_refused(ask("GET", blob_at(there.elsewhere.digest)), 404, "BLOB_UNKNOWN")


@requirement
def a_blob_of_an_unknown_repository_is_not_found(ask: Asker, there: Contents) -> None:
    answer = ask("GET", blob_at(there.layer.digest, UNKNOWN))
    assert_refused(answer, 404, "BLOB_UNKNOWN", "NAME_UNKNOWN")


@requirement
def a_digest_outside_the_grammar_is_refused(ask: Asker, _: Contents) -> None:
    assert ask("GET", blob_at("sha256:short")).status in (400, 404)


# --- parts of blobs --------------------------------------------------------------------------------------------------


def assert_part(ask: Asker, there: Contents, asked: str, first: int, last: int) -> None:
    answer = ask("GET", blob_at(there.layer.digest), ("Range", asked))
    size_bytes = len(there.layer.body)
    assert answer.status == 206, answer.status
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{size_bytes}"
    assert answer.headers["content-length"] == str(last - first + 1)
    assert answer.body == there.layer.body[first : last + 1]


@requirement
def a_part_of_a_blob_is_given(ask: Asker, there: Contents) -> None:
    assert_part(ask, there, "bytes=0-0", 0, 0)
    assert_part(ask, there, "bytes=1000-300000", 1000, 300_000)


@requirement
def a_blob_is_resumed_where_it_was_cut(ask: Asker, there: Contents) -> None:
    assert_part(ask, there, "bytes=650000-", 650_000, 700_000)


@requirement
def the_end_of_a_blob_is_given(ask: Asker, there: Contents) -> None:
    assert_part(ask, there, "bytes=-500", 699_501, 700_000)


@requirement
def a_part_ends_with_the_blob(ask: Asker, there: Contents) -> None:
    assert_part(ask, there, "bytes=700000-800000", 700_000, 700_000)


@requirement
def a_part_beyond_the_blob_is_refused(ask: Asker, there: Contents) -> None:
    answer = ask("GET", blob_at(there.layer.digest), ("Range", "bytes=700001-"))
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */700001"


@requirement
def several_parts_are_given_as_such_or_the_whole(ask: Asker, there: Contents) -> None:
    answer = ask("GET", blob_at(there.layer.digest), ("Range", "bytes=0-9,100-109"))
    if answer.status == 200:
        assert_blob(answer, there.layer)
    else:
        assert answer.status == 206
        assert answer.headers["content-type"].startswith("multipart/byteranges")


@requirement
def who_has_a_blob_already_is_told_so(ask: Asker, there: Contents) -> None:
    tag = ask("HEAD", blob_at(there.layer.digest)).headers["etag"]
    answer = ask("GET", blob_at(there.layer.digest), ("If-None-Match", tag))
    assert (answer.status, answer.body) == (304, b"")


@requirement
def who_has_another_blob_is_given_this_one(ask: Asker, there: Contents) -> None:
    assert_blob(ask("GET", blob_at(there.layer.digest), ("If-None-Match", '"another"')), there.layer)


@requirement
def a_part_is_given_if_the_blob_is_the_same_still(ask: Asker, there: Contents) -> None:
    tag = ask("HEAD", blob_at(there.layer.digest)).headers["etag"]
    answer = ask("GET", blob_at(there.layer.digest), ("Range", "bytes=5-9"), ("If-Range", tag))
    assert (answer.status, answer.body) == (206, there.layer.body[5:10])
    assert_blob(ask("GET", blob_at(there.layer.digest), ("Range", "bytes=5-9"), ("If-Range", '"another"')), there.layer)


# --- tags ------------------------------------------------------------------------------------------------------------


def tags(ask: Asker, query: str = "") -> tuple[list[str], str]:
    """The tags of a page, and what follows it."""
    answer = ask("GET", f"/v2/{TAGGED}/tags/list{query}")
    assert answer.status == 200, answer
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    page = json.loads(answer.body)
    assert page["name"] == TAGGED
    link = re.fullmatch(r'<([^>]+)>; *rel="?next"?', answer.headers.get("link", ""))
    assert link is not None or "link" not in answer.headers
    return page["tags"] or [], link[1] if link is not None else ""


@requirement
def tags_are_listed_in_their_order(ask: Asker, _: Contents) -> None:
    assert tags(ask) == (list(TAGS), "")


@requirement
def as_many_tags_are_listed_as_are_asked_for(ask: Asker, _: Contents) -> None:
    assert tags(ask, "?n=2")[0] == list(TAGS[:2])


@requirement
def no_tags_are_listed_where_none_are_asked_for(ask: Asker, _: Contents) -> None:
    assert tags(ask, "?n=0")[0] == []


@requirement
def tags_are_listed_after_the_last_one(ask: Asker, _: Contents) -> None:
    assert tags(ask, f"?n=2&last={TAGS[1]}")[0] == list(TAGS[2:4])


@requirement
def the_link_of_a_page_of_tags_leads_to_the_next_at_the_same_place(ask: Asker, _: Contents) -> None:
    found, query = [], "?n=2"
    for _page in TAGS:
        page, link = tags(ask, query)
        found += page
        if not link:
            break
        target = urlsplit(urljoin(f"http://{ask.address}/v2/{TAGGED}/tags/list", link))
        assert target.netloc == ask.address
        assert target.path == f"/v2/{TAGGED}/tags/list"
        query = f"?{target.query}"
    assert found == list(TAGS)


@requirement
def tags_of_an_unknown_repository_are_not_found(ask: Asker, _: Contents) -> None:
    assert_refused(ask("GET", f"/v2/{UNKNOWN}/tags/list"), 404, "NAME_UNKNOWN")


# --- referrers -------------------------------------------------------------------------------------------------------


def referrers(ask: Asker, digest: str, query: str = "") -> tuple[set[str], Answer]:
    """Digests of what refers to a manifest, and the answer that said so."""
    answer = ask("GET", f"/v2/{REPOSITORY}/referrers/{digest}{query}")
    assert answer.status == 200, answer
    assert answer.headers["content-type"].partition(";")[0] == INDEX
    index = json.loads(answer.body)
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    return {entry["digest"] for entry in index["manifests"] or []}, answer


@requirement
def what_refers_to_a_manifest_is_listed(ask: Asker, there: Contents) -> None:
    found, _ = referrers(ask, there.manifest.digest)
    assert found == {there.signature.digest, there.sbom.digest}


@requirement
def what_nothing_refers_to_has_an_empty_list(ask: Asker, there: Contents) -> None:
    assert referrers(ask, there.signature.digest)[0] == set()


@requirement
def referrers_of_one_kind_are_listed(ask: Asker, there: Contents) -> None:
    assert referrers(ask, there.manifest.digest, f"?artifactType={SBOM}")[0] == {there.sbom.digest}


@requirement
def that_referrers_are_of_one_kind_is_said(ask: Asker, there: Contents) -> None:
    # olareg says so the first time that somebody asks for a kind.
    kind = f"application/vnd.example.kind-{next(_KINDS)}"
    found, answer = referrers(ask, there.manifest.digest, f"?artifactType={kind}")
    assert found == set()
    assert answer.headers["oci-filters-applied"] == "artifactType"


@requirement
def without_referrers_they_are_found_by_a_tag(ask: Asker, there: Contents) -> None:
    """By a client that is answered 404."""
    assert ask("GET", f"/v2/{REPOSITORY}/referrers/{there.index.digest}").status in (200, 404)
    answer = ask("GET", manifest_at(there.fallback_tag), *ACCEPT)
    assert_manifest(answer, there.fallback)
    assert {entry["digest"] for entry in json.loads(answer.body)["manifests"]} == {there.sbom.digest}
