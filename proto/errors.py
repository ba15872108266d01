"""Errors, by who must act. Both services and both machines' shells raise these and no others for foreseen trouble.

A failed assertion is our own bug and is not represented here: it crashes loudly.
"""

from __future__ import annotations

from enum import Enum


class LayercastError(Exception):
    """Base of every foreseen error. `str(error)` is one line that says what happened and who must act."""


class RemoteError(LayercastError):
    """A peer or a client sent nonsense: refuse it, and count it against the sender."""


class DigestInvalid(RemoteError):
    """A digest string that is malformed or names an algorithm we do not check."""


class NameInvalid(RemoteError):
    """A repository, reference or upstream name outside its grammar."""


class PathUnknown(RemoteError):
    """A request path that is no part of the distribution API."""


class UpstreamNotAllowed(RemoteError):
    """The client asked for a registry that is not on the allow-list."""


class ImageInvalid(RemoteError):
    """An image's name, or what a registry calls a manifest, makes no sense."""


class FrameInvalid(RemoteError):
    """A control frame that cannot be decoded: too large, truncated, wrong types, wrong version."""


class TicketInvalid(RemoteError):
    """A ticket that is forged, expired, for another blob, or shown by somebody else."""


class PieceCorrupt(RemoteError):
    """A peer's piece did not match its hash."""


class PeerBusy(RemoteError):
    """The uploader has no slot free. No fault: the piece is asked for elsewhere."""


class UpstreamKind(Enum):
    """Why an origin did not give what was asked for; decides between retry, election and relay."""

    UNAVAILABLE = "unavailable"
    DENIED = "denied"
    UNKNOWN = "unknown"
    RATE_LIMITED = "rate_limited"
    CONTENT = "content"


class UpstreamError(LayercastError):
    """The origin is unreachable, denies, does not know, limits us, or sent wrong content."""

    def __init__(
        self,
        message: str,
        kind: UpstreamKind,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s


class LocalError(LayercastError):
    """This machine is in the way: the operator must act."""


class StoreFull(LocalError):
    """No room for the next piece, and nothing left that may be evicted."""


class BlobInUse(LocalError):
    """The blob is used in another cut: it can be opened in this one when that is over."""


class ConfigError(LocalError):
    """A configuration value that cannot be used; the message names key, value and what would be right."""
