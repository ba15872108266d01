"""What an image is: its tag, index, platforms, manifests and blobs, as its registry says; with the operator's login.

Blocking work runs in the registry's own threads. It keeps nothing, and chooses no node.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peer.registry.base import NODE, OPERATOR
from peer.registry.queues import Work
from peer.transport.cancellation import Cancellation
from proto.errors import ImageInvalid, LayercastError, LocalError, RemoteError, UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.images import blobs_of, choose, parse_image, parse_platform, platforms_of
from proto.pieces import PIECE_COUNT_MAX, PIECE_SIZE_MAX_BYTES
from supernode.jobs.job import JobBlob

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import Origin
    from peer.registry.origins import Origins
    from proto.oci.images import Descriptor, ImageName
    from supernode.jobs.job import JobSpec

MANIFEST_BYTES_MAX: Final = 4 << 20
PLATFORMS_MAX: Final = 64
BLOBS_MAX: Final = 2000
# What a manifest says is anybody's who may push: nodes are told it in messages, which have their limits.
BLOB_BYTES_MAX: Final = PIECE_SIZE_MAX_BYTES * PIECE_COUNT_MAX
# What asking again does not change.
_LASTING: Final = (UpstreamKind.UNKNOWN, UpstreamKind.DENIED)


class Unresolved(LayercastError):
    """The image cannot be found out. `lasting`: nor later. The registry wants no questions for `retry_after_s`.

    `is_absent`: it has no such image.
    """

    def __init__(self, message: str, *, lasting: bool, retry_after_s: float = 0.0, is_absent: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        self.is_absent = is_absent
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Image:
    """The digest that its name stands for, all blobs and manifests of the platforms, and whether a login was used."""

    digest: str
    blobs: tuple[JobBlob, ...]
    private: bool


def check_image(text: str) -> str:
    """The name as it is understood. Raises ImageInvalid."""
    return str(parse_image(text))


class Resolver:
    """`has_login`: whether the operator gave one for this upstream."""

    def __init__(self, origins: Origins, has_login: Callable[[str], bool]) -> None:
        self._origins = origins
        self._has_login = has_login

    async def resolve(self, spec: JobSpec) -> Image:
        """Raises Unresolved."""
        cancel = Cancellation()
        try:
            name = parse_image(spec.image)
            host = name.registry or self._origins.upstreams().default.host
            question = self._origins.queues.submit(Work.CHECK, host, self._resolve, spec, name, host, cancel)
            return await asyncio.wrap_future(question)
        except asyncio.CancelledError:
            cancel.cancel()
            raise
        except UpstreamError as error:
            lasting = error.kind in _LASTING
            is_absent = error.kind is UpstreamKind.UNKNOWN
            retry_after_s = error.retry_after_s or 0.0
            raise Unresolved(str(error), lasting=lasting, retry_after_s=retry_after_s, is_absent=is_absent) from error
        except (RemoteError, RecursionError) as error:
            raise Unresolved(str(error), lasting=True) from error
        except LocalError as error:
            raise Unresolved(str(error), lasting=False) from error

    def _resolve(self, spec: JobSpec, name: ImageName, host: str, cancel: Cancellation) -> Image:
        """In a thread. Raises UpstreamError, RemoteError, LocalError."""
        walk = _Walk(self._origins.at(host), host, name.repository, cancel, operator=self._has_login(host))
        content = walk.named(name.reference)
        digest = Digest.of(content) if isinstance(name.reference, str) else name.reference
        walk.add(digest, len(content), manifest=True)
        if "manifests" in json_of(content):
            for child in _children(content, spec.platforms):
                walk.manifest(walk.by_digest(child.digest), child.digest)
        else:
            walk.manifest(content, digest)
        return Image(str(digest), tuple(walk.blobs.values()), walk.operator)


class _Walk:
    """Through one image; `blobs` by digest, each once."""

    def __init__(self, origin: Origin, host: str, repository: str, cancel: Cancellation, *, operator: bool) -> None:
        self._origin = origin
        self._host = host
        self._repository = repository
        self._cancel = cancel
        self.operator = operator
        self._caller = OPERATOR if operator else NODE
        self.blobs: dict[str, JobBlob] = {}

    def named(self, reference: str | Digest) -> bytes:
        """The manifest of a tag or a digest."""
        if isinstance(reference, str):
            return self._origin.tagged(self._repository, reference, self._caller, self._cancel)
        return self.by_digest(reference)

    def by_digest(self, digest: Digest) -> bytes:
        """Checked."""
        content, view = bytearray(), memoryview(bytearray(1 << 16))
        opened = self._origin.open_range(self._repository, digest, 0, None, self._caller, self._cancel, manifest=True)
        with opened as body:
            while count := body.readinto(view):
                content += view[:count]
                if len(content) > MANIFEST_BYTES_MAX:
                    raise UpstreamError(f"manifest {digest.short} is longer than registries take", UpstreamKind.CONTENT)
        if Digest.of(bytes(content), digest.algorithm) != digest:
            raise UpstreamError(f"manifest {digest.short}: the registry sends something else", UpstreamKind.CONTENT)
        return bytes(content)

    def manifest(self, content: bytes, digest: Digest) -> None:
        """One platform's: it and all that it lists, but for what registries do not have."""
        self.add(digest, len(content), manifest=True)
        for blob in blobs_of(content):
            if blob.size_bytes > BLOB_BYTES_MAX:
                raise ImageInvalid(f"a blob of {blob.size_bytes:.3g} bytes: swarms take up to {BLOB_BYTES_MAX}")
            if not blob.foreign:
                self.add(blob.digest, blob.size_bytes)

    def add(self, digest: Digest, size_bytes: int, *, manifest: bool = False) -> None:
        name = str(digest)
        if name not in self.blobs:
            self.blobs[name] = JobBlob(name, size_bytes, self._host, self._repository, manifest)
            if len(self.blobs) > BLOBS_MAX:
                raise UpstreamError(f"{self._repository}: more than {BLOBS_MAX} blobs", UpstreamKind.CONTENT)


def json_of(content: bytes) -> dict[str, object]:
    """Raises UpstreamError (content) for what is no JSON object."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UpstreamError("the registry sends a manifest that is no JSON object", UpstreamKind.CONTENT)
    return document


def _children(index: bytes, wanted: tuple[str, ...]) -> list[Descriptor]:
    """The manifests of these platforms; of all where none is named. Raises ImageInvalid."""
    if wanted:
        found = [choose(index, parse_platform(text)) for text in wanted]
    else:
        # Attestations and the like are for no platform.
        found = [child for platform, child in platforms_of(index) if platform.os not in ("", "unknown")]
    if len(found) > PLATFORMS_MAX:
        raise UpstreamError(f"an index of more than {PLATFORMS_MAX} platforms", UpstreamKind.CONTENT)
    return found
