"""A directory as an upstream: the storage of a registry (distribution, docker-registry), or an OCI image layout.

Read-only. Whoever configures a directory says that all in it is public: no credential is asked for. Nothing outside of
it can be reached: names are held to the specification's grammar, and no symbolic link below it is followed. No state is
kept, so a registry may go on writing to its storage, and a share that was away is read again when it is back.

An image layout has tags and no repositories: an `org.opencontainers.image.ref.name` of `TAG` answers in every
repository, one of `REPOSITORY:TAG` in that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import stat
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

from multidict import CIMultiDict

from peer.registry.base import BlobBody, OriginAnswer
from peer.store.base import FileSlice
from proto.errors import DigestInvalid, UpstreamError, UpstreamKind
from proto.ids import Digest
from proto.oci.registry_errors import BODY_CONTENT_TYPE, Refusal
from proto.oci.routes import BlobRoute, ManifestRoute, Ping, TagsRoute, looks_like_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peer.registry.base import Caller, SentBody
    from peer.transport.cancellation import Cancellation
    from proto.oci.routes import RegistryRequest
    from proto.oci.upstreams import UpstreamConfig

logger = logging.getLogger(__name__)

_STORAGE: Final = ("docker", "registry", "v2")
_LAYOUT: Final = "oci-layout"
_EXPECTED: Final = f"expected a registry's rootdirectory (with {'/'.join(_STORAGE)}) or an OCI layout (with {_LAYOUT})"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
# What registries accept at most; an index.json has a few hundred bytes an entry.
_MANIFEST_BYTES_MAX: Final = 4 << 20
_LINK_BYTES_MAX: Final = 256
_TAGS_PAGE: Final = 10_000
# Not there, or not as a file of its own.
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO})


def check(place: str) -> None:
    """Raises ValueError saying what is wrong with a directory that an operator named, and what would be right."""
    try:
        with _Folder(os.path.expanduser(place)) as folder:
            _contents(folder).check()
    except (_Absent, _Damaged, DigestInvalid) as error:
        raise ValueError(f"{error}; {_EXPECTED}") from None
    except OSError as error:
        remedy = f"; give user {os.geteuid()} the right to read it" if isinstance(error, PermissionError) else ""
        raise ValueError(f"{error.strerror}{remedy}; {_EXPECTED}") from None


def open_origin(upstream: UpstreamConfig, on_request: Callable[[str], None]) -> DirectoryOrigin:
    """See peer.registry.origins."""
    return DirectoryOrigin(upstream, on_request)


class DirectoryOrigin:
    """See peer.registry.base.Origin."""

    def __init__(self, upstream: UpstreamConfig, on_request: Callable[[str], None]) -> None:
        self.host = upstream.host
        self._place = os.path.expanduser(upstream.place)
        self._on_request = on_request

    def stat(
        self, repository: str, digest: Digest, caller: Caller, cancel: Cancellation, *, manifest: bool = False
    ) -> int | None:
        self._on_request("HEAD")
        with self._opened(repository, digest, cancel, manifest=manifest) as descriptor:
            return os.fstat(descriptor).st_size

    def open_range(
        self,
        repository: str,
        digest: Digest,
        start: int,
        end: int | None,
        caller: Caller,
        cancel: Cancellation,
        *,
        manifest: bool = False,
    ) -> FileBody:
        self._on_request("GET")
        with self._opened(repository, digest, cancel, manifest=manifest) as descriptor:
            size_bytes = os.fstat(descriptor).st_size
            if start >= size_bytes and (start or size_bytes):
                raise UpstreamError(
                    f"origin {self.host}: no bytes from {start} in a blob of {size_bytes}",
                    UpstreamKind.CONTENT,
                    status=416,
                )
            end = size_bytes if end is None else min(end, size_bytes)
            return FileBody(os.dup(descriptor), start, end, size_bytes, cancel)

    def tagged(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> bytes:
        self._on_request("GET")
        cancel.check()
        with self._reading(f"tag {tag} of {repository}") as contents:
            return contents.manifest(repository, tag)[1]

    def tag_digest(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> Digest:
        self._on_request("HEAD")
        cancel.check()
        with self._reading(f"tag {tag} of {repository}") as contents:
            return contents.manifest(repository, tag)[0]

    def tags(self, repository: str, most: int, caller: Caller, cancel: Cancellation) -> list[str]:
        self._on_request("GET")
        cancel.check()
        with self._reading(f"tags of {repository}") as contents:
            return sorted(contents.tags(repository))[:most]

    def write(
        self,
        method: str,
        request: RegistryRequest,
        headers: CIMultiDict[str],
        body: SentBody | None,
        cancel: Cancellation,
    ) -> OriginAnswer:
        refusal = Refusal(405, "UNSUPPORTED", f"{self.host} is a folder, which is only read")
        return OriginAnswer(405, None, CIMultiDict({"Content-Type": BODY_CONTENT_TYPE}), refusal.body)

    def ask_realm(
        self, method: str, url: str, headers: CIMultiDict[str], body: SentBody | None, cancel: Cancellation
    ) -> OriginAnswer:
        raise UpstreamError(f"origin {self.host}: a directory names no token service", UpstreamKind.DENIED)

    async def manifest(self, method: str, request: RegistryRequest, headers: CIMultiDict[str]) -> OriginAnswer:
        self._on_request(method)
        answer = await asyncio.to_thread(self._answer, request)
        if method == "HEAD":
            answer.body = b""
        return answer

    def _answer(self, request: RegistryRequest) -> OriginAnswer:
        route = request.route
        with self._reading(route.path) as contents:
            if isinstance(route, ManifestRoute):
                return _manifest_answer(*contents.manifest(route.repository, route.reference))
            if isinstance(route, BlobRoute):
                descriptor = contents.blob(route.repository, route.digest)
                size_bytes = os.fstat(descriptor).st_size
                os.close(descriptor)
                return _made("application/octet-stream", b"", size_bytes, route.digest)
            if isinstance(route, TagsRoute):
                return _tags_answer(request, route.repository, contents.tags(route.repository))
            if isinstance(route, Ping):
                return _made("application/json", b"{}")
        # Clients then look for referrers under a tag, as the specification says.
        raise UpstreamError(f"origin {self.host}: a directory has no referrers", UpstreamKind.UNKNOWN, status=404)

    @contextlib.contextmanager
    def _opened(self, repository: str, digest: Digest, cancel: Cancellation, *, manifest: bool) -> Iterator[int]:
        cancel.check()
        with self._reading(f"blob {digest.short} of {repository}") as contents:
            descriptor = (contents.manifest_file if manifest else contents.blob)(repository, digest)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[_Contents]:
        """What the directory has now. What it lacks is UpstreamError (unknown), what cannot be read `unavailable`."""
        # Without its path, which is nobody else's business: these errors reach clients and other nodes.
        where = f"origin {self.host}: its directory"
        with self._open_folder(where) as folder:
            try:
                contents = _contents(folder)
            except _Absent:
                # An empty mount point: that the share is away says nothing of what it has.
                raise self._away(where, _EXPECTED) from None
            try:
                yield contents
            except _Absent as error:
                raise UpstreamError(f"{where}: {what}: {error}", UpstreamKind.UNKNOWN, status=404) from None
            except (_Damaged, DigestInvalid) as error:
                raise UpstreamError(f"{where}: {what}: {error}", UpstreamKind.CONTENT) from None
            except OSError as error:
                raise self._away(f"{where}: {what}", str(error.strerror)) from error

    def _open_folder(self, where: str) -> _Folder:
        try:
            return _Folder(self._place)
        except OSError as error:
            raise self._away(where, str(error.strerror)) from error

    def _away(self, what: str, why: str) -> UpstreamError:
        logger.warning("directory_unavailable upstream=%s path=%s error=%s", self.host, self._place, why)
        return UpstreamError(f"{what}: {why}", UpstreamKind.UNAVAILABLE)


class FileBody(BlobBody):
    """See peer.registry.base.BlobBody. Owns the descriptor."""

    def __init__(self, descriptor: int, start: int, end: int, size_bytes: int, cancel: Cancellation) -> None:
        self.is_range = (start, end) != (0, size_bytes)
        self.start: int = start
        self.end: int | None = end
        self.size_bytes: int | None = size_bytes
        self.position = start
        self._end = end
        self._descriptor = descriptor
        self._cancel = cancel

    def readinto(self, view: memoryview) -> int:
        self._cancel.check()
        view = view[: self._end - self.position]
        try:
            count = os.preadv(self._descriptor, [view], self.position) if len(view) else 0
        except OSError as error:
            raise UpstreamError(f"a blob's file: {error.strerror}", UpstreamKind.UNAVAILABLE) from error
        if len(view) and not count:
            raise UpstreamError(f"a blob's file ended at byte {self.position}", UpstreamKind.UNAVAILABLE)
        self.position += count
        return count

    def take_slice(self, count: int) -> FileSlice:
        self._cancel.check()
        taken = FileSlice(self._descriptor, self.position, min(count, self._end - self.position))
        self.position += len(taken)
        return taken

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _made(media_type: str, content: bytes, size_bytes: int | None = None, digest: Digest | None = None) -> OriginAnswer:
    """`size_bytes`: of a blob whose bytes do not come this way."""
    lines = {
        "Content-Type": media_type,
        "Content-Length": str(len(content) if size_bytes is None else size_bytes),
        "Docker-Distribution-Api-Version": "registry/2.0",
    }
    if digest is not None:
        lines["Docker-Content-Digest"] = str(digest)
    return OriginAnswer(200, "OK", CIMultiDict(lines), content)


def media_type_of(content: bytes) -> str | None:
    """What a manifest says that it is, or what its fields show; None for what is no manifest.

    One that has both layers and manifests can be read in two ways, and is none either (CVE-2021-41190).
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or ("layers" in document and "manifests" in document):
        return None
    named = document.get("mediaType")
    if isinstance(named, str) and named.isascii() and named.isprintable() and "/" in named:
        return named
    if isinstance(document.get("manifests"), list):
        return "application/vnd.oci.image.index.v1+json"
    if isinstance(document.get("layers"), list):
        return "application/vnd.oci.image.manifest.v1+json"
    if isinstance(document.get("fsLayers"), list):
        return "application/vnd.docker.distribution.manifest.v1+prettyjws"
    return None


def _manifest_answer(digest: Digest, content: bytes) -> OriginAnswer:
    media_type = media_type_of(content)
    if media_type is None:
        raise _Absent("is no manifest")
    if Digest.of(content, digest.algorithm) != digest:
        raise _Damaged(f"does not match its digest {digest.short}")
    return _made(media_type, content, digest=digest)


def _tags_answer(request: RegistryRequest, repository: str, tags: list[str]) -> OriginAnswer:
    """One page of the list: `n` tags after `last`, with a Link to the next."""
    query = dict(parse_qsl(request.query))
    limit = int(query["n"]) if query.get("n", "").isdecimal() and len(query["n"]) < 6 else _TAGS_PAGE
    left = sorted(tag for tag in tags if tag > query.get("last", ""))
    page = left[:limit]
    answer = _made("application/json", json.dumps({"name": repository, "tags": page}).encode())
    if page and len(page) < len(left):
        following = urlencode({"n": limit, "last": page[-1]})
        answer.headers["Link"] = f'<{request.route.path}?{following}>; rel="next"'
    return answer


class _Absent(Exception):
    """The directory does not have it. The text says why, after the name of what was asked for."""


class _Damaged(Exception):
    """The directory has it, and not as it should be."""


class _Folder:
    """An open directory, and what is below it. Its own path may lead over symbolic links, which are the operator's.

    Closed at the end of a `with`. Raises OSError where it cannot be opened.
    """

    def __init__(self, place: str) -> None:
        self._descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def open(self, *path: str) -> int:
        """A descriptor of a regular file. Raises _Absent and OSError."""
        with self._within(path[:-1]) as folder:
            descriptor = _open_at(folder, path[-1], os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _Absent("is no file")
        return descriptor

    def read(self, limit_bytes: int, *path: str) -> bytes:
        """A small file. Raises _Absent, _Damaged and OSError."""
        with os.fdopen(self.open(*path), "rb") as file:
            content = file.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise _Damaged(f"has more than {limit_bytes} bytes")
        return content

    def names(self, *path: str) -> list[str]:
        """What a folder below has. Raises _Absent and OSError."""
        with self._within(path) as folder:
            return os.listdir(folder)

    def has(self, *path: str) -> bool:
        """Whether there is such a folder or file. Raises OSError."""
        try:
            with self._within(path[:-1]) as folder:
                os.close(_open_at(folder, path[-1], os.O_NONBLOCK))
        except _Absent:
            return False
        return True

    @contextlib.contextmanager
    def _within(self, path: tuple[str, ...]) -> Iterator[int]:
        with contextlib.ExitStack() as opened:
            folder = self._descriptor
            for name in path:
                folder = _open_at(folder, name, os.O_DIRECTORY)
                opened.callback(os.close, folder)
            yield folder


def _open_at(folder: int, name: str, flags: int) -> int:
    """Step by step, so that no step leads out of the directory."""
    assert name not in ("", ".", "..")
    assert "/" not in name
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _Absent(f"{name} is a symbolic link, which is not followed") from None
        if error.errno in _ABSENT:
            raise _Absent(f"{name} is not there") from None
        raise


class _RegistryStorage:
    """`blobs` has the bytes; a link in a repository says that a blob or manifest belongs there, and its digest.

    As of _ImageLayout, each method raises _Absent, _Damaged, DigestInvalid and OSError.
    """

    def __init__(self, folder: _Folder) -> None:
        self._folder = folder

    def check(self) -> None:
        """Look whether it can be read."""
        self._folder.names(*_STORAGE, "repositories")
        self._folder.names(*_STORAGE, "blobs")

    def blob(self, repository: str, digest: Digest) -> int:
        """A descriptor of its file, for the caller to close."""
        return self._folder.open(*self._data(self._link(repository, "_layers", digest.algorithm, digest.hex)))

    def manifest_file(self, repository: str, digest: Digest) -> int:
        """The same of a manifest's."""
        return self._folder.open(*self._revision(repository, digest))

    def manifest(self, repository: str, reference: str | Digest) -> tuple[Digest, bytes]:
        """Of a tag or a digest."""
        if isinstance(reference, str):
            reference = self._link(repository, "_manifests", "tags", reference, "current")
        return reference, self._folder.read(_MANIFEST_BYTES_MAX, *self._revision(repository, reference))

    def tags(self, repository: str) -> list[str]:
        """In any order."""
        return self._folder.names(*self._repository(repository), "_manifests", "tags")

    def _repository(self, repository: str) -> tuple[str, ...]:
        return (*_STORAGE, "repositories", *repository.split("/"))

    def _revision(self, repository: str, digest: Digest) -> tuple[str, ...]:
        return self._data(self._link(repository, "_manifests", "revisions", digest.algorithm, digest.hex))

    def _link(self, repository: str, *path: str) -> Digest:
        """The digest that a link names: that of a sha512 blob may be its sha256 one."""
        content = self._folder.read(_LINK_BYTES_MAX, *self._repository(repository), *path, "link")
        return Digest.parse(content.decode("ascii", errors="replace").strip())

    def _data(self, digest: Digest) -> tuple[str, ...]:
        return (*_STORAGE, "blobs", digest.algorithm, digest.hex[:2], digest.hex, "data")


class _ImageLayout:
    """`blobs` has the bytes, manifests too; `index.json` names some of those."""

    def __init__(self, folder: _Folder) -> None:
        self._folder = folder

    def check(self) -> None:
        self._folder.names("blobs")
        self.tags("")

    def blob(self, repository: str, digest: Digest) -> int:
        return self._folder.open("blobs", digest.algorithm, digest.hex)

    manifest_file = blob

    def manifest(self, repository: str, reference: str | Digest) -> tuple[Digest, bytes]:
        if isinstance(reference, str):
            named = [digest for tag, digest in self._entries(repository) if tag == reference]
            if not named:
                raise _Absent("is not in index.json")
            reference = named[-1]
        return reference, self._folder.read(_MANIFEST_BYTES_MAX, "blobs", reference.algorithm, reference.hex)

    def tags(self, repository: str) -> list[str]:
        return list({tag for tag, _ in self._entries(repository)})

    def _entries(self, repository: str) -> list[tuple[str, Digest]]:
        """The tags of index.json that answer in this repository."""
        try:
            entries = json.loads(self._folder.read(_MANIFEST_BYTES_MAX, "index.json"))["manifests"]
            named = [(str(entry.get("annotations", {}).get(_REF_NAME, "")), str(entry["digest"])) for entry in entries]
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise _Damaged("index.json is no index") from None
        found = []
        for name, digest in named:
            owner, _, tag = name.rpartition(":")
            host, _, rest = owner.partition("/")
            if tag and (rest if looks_like_host(host) else owner) in ("", repository):
                found.append((tag, Digest.parse(digest)))
        return found


_Contents = _RegistryStorage | _ImageLayout


def _contents(folder: _Folder) -> _Contents:
    if folder.has(_LAYOUT):
        return _ImageLayout(folder)
    if folder.has(*_STORAGE):
        return _RegistryStorage(folder)
    raise _Absent("is neither of the two kinds")
