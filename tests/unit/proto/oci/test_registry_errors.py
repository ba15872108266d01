"""Our errors in the registry's words."""

from __future__ import annotations

import json

import pytest

from proto import errors
from proto.errors import UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.registry_errors import refusal_for
from proto.oci.routes import BlobRoute, ManifestRoute

BLOB = BlobRoute("a", Digest.of(b""))


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.DigestInvalid("x"), 400, "DIGEST_INVALID"),
        (errors.NameInvalid("x"), 400, "NAME_INVALID"),
        (errors.UpstreamNotAllowed("x"), 404, "NAME_UNKNOWN"),
        (errors.StoreFull("x"), 503, "UNAVAILABLE"),
        (UpstreamError("x", UpstreamKind.UNAVAILABLE), 503, "UNAVAILABLE"),
        (UpstreamError("x", UpstreamKind.DENIED), 403, "DENIED"),
        (UpstreamError("x", UpstreamKind.DENIED, status=401), 401, "UNAUTHORIZED"),
        (UpstreamError("x", UpstreamKind.UNKNOWN), 404, "BLOB_UNKNOWN"),
    ],
)
def test_each_error_has_its_status_and_code(error: errors.LayercastError, status: int, code: str) -> None:
    refusal = refusal_for(error, BLOB)
    assert (refusal.status, refusal.code) == (status, code)


def test_an_unknown_manifest_is_named_so() -> None:
    error = UpstreamError("x", UpstreamKind.UNKNOWN)
    assert refusal_for(error, ManifestRoute("a", "latest")).code == "MANIFEST_UNKNOWN"


def test_a_rate_limit_is_relayed_with_its_time() -> None:
    refusal = refusal_for(UpstreamError("x", UpstreamKind.RATE_LIMITED, retry_after_s=1.2))
    assert (refusal.status, refusal.headers) == (429, {"Retry-After": "2"})


def test_the_body_is_the_specifications() -> None:
    body = json.loads(refusal_for(errors.NameInvalid('bad "name"')).body)
    assert body == {"errors": [{"code": "NAME_INVALID", "message": 'bad "name"', "detail": None}]}


def _classes(base: type[errors.LayercastError]) -> list[type[errors.LayercastError]]:
    return [base, *(found for child in base.__subclasses__() for found in _classes(child))]


@pytest.mark.parametrize(
    "cls", [c for c in _classes(errors.LayercastError) if c.__module__ == errors.__name__ and c is not UpstreamError]
)
def test_no_class_of_ours_is_without_an_answer(cls: type[errors.LayercastError]) -> None:
    assert 400 <= refusal_for(cls("x")).status < 600
