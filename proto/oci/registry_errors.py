"""How our errors are told to a registry client: one table of codes and HTTP statuses, and the body's JSON.

The codes are those of the OCI distribution specification, and the older ones that clients know. Nothing here
names a credential, a path of this machine or a redirect's query.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proto import errors
from proto.errors import UpstreamKind
from proto.oci.routes import BlobRoute, ManifestRoute

if TYPE_CHECKING:
    from proto.oci.routes import Route

BODY_CONTENT_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A registry error response: status, code, message, and the headers that belong to it."""

    status: int
    code: str
    message: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The JSON body of the specification."""
        return json.dumps({"errors": [{"code": self.code, "message": self.message, "detail": None}]}).encode()


# What each class of ours is to a client. The most derived class that is listed decides.
_BY_CLASS: dict[type[errors.LayercastError], tuple[int, str]] = {
    errors.DigestInvalid: (400, "DIGEST_INVALID"),
    errors.NameInvalid: (400, "NAME_INVALID"),
    errors.PathUnknown: (404, "UNSUPPORTED"),
    # 404 and not 403: the client then goes on to the registry itself.
    errors.UpstreamNotAllowed: (404, "NAME_UNKNOWN"),
    errors.FrameInvalid: (400, "UNSUPPORTED"),
    errors.TicketInvalid: (403, "DENIED"),
    errors.PieceCorrupt: (502, "UNAVAILABLE"),
    errors.PeerBusy: (503, "UNAVAILABLE"),
    errors.RemoteError: (400, "UNSUPPORTED"),
    errors.ConfigError: (500, "UNKNOWN"),
    errors.LocalError: (503, "UNAVAILABLE"),
    errors.LayercastError: (500, "UNKNOWN"),
}

_BY_KIND: dict[UpstreamKind, tuple[int, str]] = {
    UpstreamKind.UNAVAILABLE: (503, "UNAVAILABLE"),
    UpstreamKind.DENIED: (403, "DENIED"),
    UpstreamKind.UNKNOWN: (404, "NAME_UNKNOWN"),
    UpstreamKind.RATE_LIMITED: (429, "TOOMANYREQUESTS"),
    UpstreamKind.CONTENT: (502, "UNAVAILABLE"),
}


def refusal_for(error: errors.LayercastError, route: Route | None = None) -> Refusal:
    """The response that tells a client of this error; `route` is what it asked for, where that was understood."""
    if isinstance(error, errors.UpstreamError):
        return _upstream_refusal(error, route)
    status, code = next(_BY_CLASS[cls] for cls in type(error).__mro__ if cls in _BY_CLASS)
    return Refusal(status, code, str(error))


def _upstream_refusal(error: errors.UpstreamError, route: Route | None) -> Refusal:
    status, code = _BY_KIND[error.kind]
    headers: dict[str, str] = {}
    if error.kind is UpstreamKind.DENIED and error.status == 401:
        status, code = 401, "UNAUTHORIZED"
    elif error.kind is UpstreamKind.UNKNOWN and isinstance(route, BlobRoute):
        code = "BLOB_UNKNOWN"
    elif error.kind is UpstreamKind.UNKNOWN and isinstance(route, ManifestRoute):
        code = "MANIFEST_UNKNOWN"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return Refusal(status, code, str(error), headers)
