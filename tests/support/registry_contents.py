"""What the specification's checks find in a registry: an image and its index, two artifacts about it, tags, odd blobs.

Pushed over the distribution API into any registry that takes pushes.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from benchmarks.cluster.processes import WAIT_S

REPOSITORY: Final = "org/app"
TAGGED: Final = "org/tags"
OTHER: Final = "org/other"
TAGS: Final = ("1.0", "1.1", "2.0", "latest", "nightly")
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
SIGNATURE: Final = "application/vnd.example.signature"
SBOM: Final = "application/vnd.example.sbom"


@dataclass(frozen=True)
class Answer:
    """Status, header lines by lower-case name (several of a name joined by commas), and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def codes(self) -> set[str]:
        """The codes of an error's document, which must be one."""
        errors = json.loads(self.body)["errors"]
        assert errors, "an error has at least one entry"
        assert all(isinstance(error["code"], str) for error in errors)
        return {error["code"] for error in errors}


@dataclass(frozen=True)
class Asker:
    """Asks a registry, or a mirror of it, at HOST:PORT; a connection each time. `own` goes with each request."""

    address: str
    own: tuple[tuple[str, str], ...] = ()

    def __call__(self, method: str, target: str, *lines: tuple[str, str], body: bytes = b"") -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=WAIT_S)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in (*lines, *self.own):
                connection.putheader(name, value)
            if method not in ("GET", "HEAD"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            headers: dict[str, str] = {}
            for name, value in response.getheaders():
                before = headers.get(name.lower())
                headers[name.lower()] = value if before is None else f"{before}, {value}"
            # docker-registry announces more of a body than it sends with a 416.
            return Answer(response.status, headers, b"" if response.status == 416 else response.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Content:
    """Some bytes of a registry and their names."""

    body: bytes
    media_type: str = "application/octet-stream"
    algorithm: str = "sha256"

    @property
    def digest(self) -> str:
        return f"{self.algorithm}:{hashlib.new(self.algorithm, self.body).hexdigest()}"

    @property
    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body)}


def document(media_type: str, **fields: object) -> Content:
    """A manifest or an index, laid out as no program would write it anew."""
    text = json.dumps({"schemaVersion": 2, "mediaType": media_type, **fields}, indent=3)
    return Content(f"{text}\n".encode(), media_type)


@dataclass(frozen=True)
class Contents:
    """All of it, the same in each registry."""

    config: Content = Content(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}', CONFIG)
    layer: Content = Content(random.Random(5).randbytes(700_001), LAYER)
    empty: Content = Content(b"")
    nothing: Content = Content(b"{}", EMPTY)
    long_digest: Content = Content(random.Random(6).randbytes(3_000), algorithm="sha512")
    elsewhere: Content = Content(random.Random(7).randbytes(2_000))
    manifest: Content = field(init=False)
    index: Content = field(init=False)
    signature: Content = field(init=False)
    sbom: Content = field(init=False)
    # What clients keep under a tag where a registry has no referrers.
    fallback: Content = field(init=False)

    def __post_init__(self) -> None:
        def keep(name: str, content: Content) -> None:
            object.__setattr__(self, name, content)

        keep("manifest", document(MANIFEST, config=self.config.descriptor, layers=[self.layer.descriptor]))
        keep("index", document(INDEX, manifests=[self.manifest.descriptor]))
        for name, artifact_type in (("signature", SIGNATURE), ("sbom", SBOM)):
            keep(
                name,
                document(
                    MANIFEST,
                    artifactType=artifact_type,
                    config=self.nothing.descriptor,
                    layers=[self.nothing.descriptor],
                    subject=self.manifest.descriptor,
                ),
            )
        keep("fallback", document(INDEX, manifests=[self.sbom.descriptor]))

    @property
    def fallback_tag(self) -> str:
        """Under which clients look for what refers to the index."""
        return self.index.digest.replace(":", "-")

    def push(self, ask: Asker) -> None:
        """Put all of it into a registry. What one does not take at all it will not give either."""
        for blob in (self.config, self.layer, self.nothing, self.empty, self.long_digest):
            _push_blob(ask, REPOSITORY, blob)
        _push_blob(ask, OTHER, self.elsewhere)
        _push_manifest(ask, REPOSITORY, self.manifest.digest, self.manifest)
        _push_manifest(ask, REPOSITORY, "image", self.manifest)
        _push_manifest(ask, REPOSITORY, "index", self.index)
        for artifact in (self.signature, self.sbom):
            _push_manifest(ask, REPOSITORY, artifact.digest, artifact)
        _push_manifest(ask, REPOSITORY, self.fallback_tag, self.fallback)
        for blob in (self.config, self.layer):
            _push_blob(ask, TAGGED, blob)
        for tag in TAGS:
            _push_manifest(ask, TAGGED, tag, self.manifest)


def _push_blob(ask: Asker, repository: str, blob: Content) -> None:
    begun = ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert begun.status == 202, begun
    location = urlsplit(urljoin(f"http://{ask.address}", begun.headers["location"]))
    query = "&".join(part for part in (location.query, urlencode({"digest": blob.digest})) if part)
    ask("PUT", f"{location.path}?{query}", ("Content-Type", "application/octet-stream"), body=blob.body)


def _push_manifest(ask: Asker, repository: str, reference: str, manifest: Content) -> None:
    target = f"/v2/{repository}/manifests/{reference}"
    done = ask("PUT", target, ("Content-Type", manifest.media_type), body=manifest.body)
    assert done.status == 201, done
