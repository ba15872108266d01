"""The origin contract: what this node asks of an upstream, of whatever kind it is.

`stat` and `open_range` are for blobs, and for manifests that are fetched as blobs are. They block and are called from
threads, because payload bytes do not pass the event loop. `manifest` is for what is small, and is awaited on the loop.
One call is one attempt: an origin does not retry (peer.registry.range_reader does), stores nothing and checks no digest
(the store and the proxy do). What it raises says who must act: UpstreamError with its kind, ConfigError for the
operator, FetchCancelled.

A new kind of origin
--------------------
1. One file here: a class with the three operations of `Origin`, and a function `check` that says at start-up what is
   wrong with the place that the operator configured. peer.registry.directory is an example.
2. One line in peer.registry.origins: the key of the `[upstream."HOST"]` section that chooses it.
3. Its test: a subclass of tests.conformance.origin_suite.OriginSuite, and tests of what is special about it.

Nobody else knows which kinds there are: the supernode, the node and the proxy ask `Origins.of(upstream)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from proto.errors import UpstreamError, UpstreamKind

if TYPE_CHECKING:
    from typing import Self

    from multidict import CIMultiDict

    from peer.store.base import FileSlice
    from peer.transport.cancellation import Cancellation
    from proto.ids import Digest
    from proto.oci.routes import RegistryRequest

# Why a blob is not shared, in the words of the protocol (BlobRefused.reason) and of the downloader.
REFUSAL_REASONS: Final = {
    UpstreamKind.DENIED: "private",
    UpstreamKind.UNKNOWN: "unknown",
    UpstreamKind.RATE_LIMITED: "rate_limited",
    UpstreamKind.UNAVAILABLE: "unavailable",
    UpstreamKind.CONTENT: "unavailable",
}


# The user name by which credential helpers and config.json mean an identity token.
IDENTITY_TOKEN: Final = "<token>"


@dataclass(frozen=True, slots=True)
class Login:
    """A user's at a registry. Of the user IDENTITY_TOKEN the password is an identity token."""

    user: str
    password: str = field(repr=False)

    @property
    def is_identity_token(self) -> bool:
        """The token service gives tokens for it, by POST, and nobody else wants it."""
        return self.user == IDENTITY_TOKEN


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf an origin is asked.

    `authorization` is a client's own Authorization header, which is shown to its upstream alone; None: an anonymous
    token is used where one is asked for. `anonymous` also leaves out the node's client certificate: what such a caller
    may read, anyone may. `lines` are a client's other header lines, which some registries want to see; without any,
    this node's own are sent. `operator`: with the login that the operator gave this process for the upstream.
    """

    authorization: str | None = field(default=None, repr=False)
    anonymous: bool = False
    lines: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    operator: bool = False


# This node, with the certificate that its operator gave it for the upstream.
NODE: Final = Caller()
ANYONE: Final = Caller(anonymous=True)
# This process, with its certificate and its operator's login.
OPERATOR: Final = Caller(operator=True)


class BlobBody(Protocol):
    """Bytes [start, end) of a blob of `size_bytes`; `end` and `size_bytes` are None where the origin told none.

    `is_range`: they are what was asked for; else they are the whole blob, from its first byte. Read by one thread.
    """

    is_range: bool
    start: int
    end: int | None
    size_bytes: int | None
    # Where the next byte that readinto() gives belongs.
    position: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def readinto(self, view: memoryview) -> int:
        """Receive the next bytes, as many as are there; 0 at the end.

        Raises UpstreamError: unavailable for silence or a body cut short, content for one longer than announced.
        Raises FetchCancelled. What was returned before is good.
        """
        ...

    def take_slice(self, count: int) -> FileSlice | None:
        """The next bytes, at most so many, as a slice of the local file that they lie in; None where they do not."""
        ...

    def close(self) -> None:
        """End reading. Idempotent."""
        ...


class SentBody(Protocol):
    """What a client sends to an origin; read by one thread. `length` is None where its chunks alone tell its end.

    `expects_continue`: the client sends nothing before the origin wants it.
    """

    length: int | None
    expects_continue: bool

    def proceed(self) -> None:
        """The body is wanted now."""
        ...

    def read(self) -> bytes:
        """The next bytes, as soon as there are some; empty at the end. Raises FetchCancelled if the client is gone."""
        ...


@dataclass(slots=True)
class OriginAnswer:
    """An answer in the origin's own words: status, header lines in their order, and all of its body."""

    status: int
    reason: str | None
    headers: CIMultiDict[str]
    body: bytes = b""


class OriginRefused(UpstreamError):
    """The origin answered, and not with what was asked for: `answer` is what a client gets, in the origin's words."""

    def __init__(
        self,
        message: str,
        kind: UpstreamKind,
        answer: OriginAnswer,
        *,
        status: int | None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, kind, status=status, retry_after_s=retry_after_s)
        self.answer = answer


class OtherSize(UpstreamError):
    """The origin sends a blob of another size than it had said before, by a HEAD say: `size_bytes` is what it sends."""

    def __init__(self, message: str, size_bytes: int) -> None:
        super().__init__(message, UpstreamKind.CONTENT)
        self.size_bytes = size_bytes


class CutOff(UpstreamError):
    """In the middle of an answer the network was down, and is back: the origin did nothing wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message, UpstreamKind.UNAVAILABLE)


class Origin(Protocol):
    """One upstream. Safe to use from many threads; `manifest` on the event loop only.

    `host` is the upstream's name, as sources and log lines have it.
    """

    host: str

    def stat(
        self, repository: str, digest: Digest, caller: Caller, cancel: Cancellation, *, manifest: bool = False
    ) -> int | None:
        """The size of a blob that this caller may read; None where the origin gives it and tells no size.

        With `manifest` it is a manifest of that repository, as for open_range.

        Raises UpstreamError: denied or unknown (with the origin's status) where the caller may not read it, else why
        that cannot be known now. Raises FetchCancelled. Reads no body.
        """
        ...

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
    ) -> BlobBody:
        """Ask for bytes [start, end) of a blob (end None: to its end). (0, None) asks for the whole blob, unranged.

        The caller closes what it gets. Raises UpstreamError of every kind and FetchCancelled. Where the blob has no
        byte at `start`: `content` with status 416, or an empty body if the blob is empty.
        """
        ...

    def tagged(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> bytes:
        """The manifest that the tag names now. Raises UpstreamError of every kind, LocalError and FetchCancelled."""
        ...

    def tag_digest(self, repository: str, tag: str, caller: Caller, cancel: Cancellation) -> Digest:
        """The digest of what the tag names now, without reading it where that can be avoided. Raises the same."""
        ...

    def tags(self, repository: str, most: int, caller: Caller, cancel: Cancellation) -> list[str]:
        """The tags of the repository, `most` of them. Raises the same."""
        ...

    def write(
        self,
        method: str,
        request: RegistryRequest,
        headers: CIMultiDict[str],
        body: SentBody | None,
        cancel: Cancellation,
    ) -> OriginAnswer:
        """Pass on a request that changes something at the origin, once; any answer is returned, a redirect as well.

        The node's own client certificate is not shown. Raises UpstreamError if there is no whole answer, and
        FetchCancelled. An origin that is only read answers 405.
        """
        ...

    def ask_realm(
        self, method: str, url: str, headers: CIMultiDict[str], body: SentBody | None, cancel: Cancellation
    ) -> OriginAnswer:
        """Ask the token service at this URL, which a challenge of this origin named, with a client's own login.

        Any answer is returned, a redirect as well. Raises UpstreamError, denied where such a URL is not followed, and
        FetchCancelled.
        """
        ...

    async def manifest(self, method: str, request: RegistryRequest, headers: CIMultiDict[str]) -> OriginAnswer:
        """A manifest, or what else of the API is small: `/v2/`, tag lists, referrers, the HEAD of a blob.

        `headers` are the client's own lines. A GET of a blob is sent here only to get the words of a refusal; its
        bytes are left out. Raises UpstreamError if there is no whole answer.
        """
        ...
