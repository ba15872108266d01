"""Why a node does not get to its supernode: one line that says what its operator is to do. From what TLS and HTTP said.

It reads errors and decides nothing but how long to wait.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import aiohttp

from proto.errors import LocalError
from proto.runtime import tls
from proto.wire.join import REFUSAL_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

# Beyond it a clock is named: tickets have a leeway of as much.
CLOCK_DIFFERENCE_S: Final = 30.0
_OTHER: Final = (
    "it is not the supernode that this node joined: its authority is another. If that is meant (a new supernode), stop "
    "this peer, delete membership.json in its --data-dir and give it a join token of the new one; else somebody else "
    "answers at this address"
)
NOT_BELIEVED: Final = (
    "it does not accept this node's certificate, which has expired or is by an authority that it dropped: give this "
    "node a new join token (--join-file)"
)
_PLAIN: Final = (
    "it speaks no TLS: it was started with --open, or is an older release; start it without --open, or this peer with "
    "--open too"
)


class NotAdmitted(LocalError):
    """No session now. `terminal`: trying again changes nothing until somebody acts."""

    def __init__(self, message: str, *, terminal: bool = False, certificate_refused: bool = False) -> None:
        super().__init__(message)
        self.terminal = terminal
        # A token may help, if there is one.
        self.certificate_refused = certificate_refused


def refusal_of(error: BaseException) -> NotAdmitted | None:
    """What a failed connection, handshake or upgrade means; None where it is a failure like any other."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        said = error.headers.get(REFUSAL_HEADER, "") if error.headers is not None else ""
        return NotAdmitted(f"refused ({error.status}): {said}", terminal=error.status != 503) if said else None
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _of_certificate(cause)
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause)
    return None


def is_about_time(error: BaseException) -> bool:
    """Whether a certificate was refused for our own clock's sake."""
    return any(
        isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in (tls.NOT_YET_VALID, tls.HAS_EXPIRED)
        for cause in _causes(error)
    )


def clock_text(difference_s: float) -> str:
    """How this machine's clock differs from the supernode's, which is ahead by so much."""
    side = "behind" if difference_s > 0 else "ahead of"
    return f"this machine's clock is {_span(abs(difference_s))} {side} the supernode's: set the one that is wrong (NTP)"


def _of_certificate(error: ssl.SSLCertVerificationError) -> NotAdmitted:
    if error.verify_code in (tls.NOT_YET_VALID, tls.HAS_EXPIRED):
        return NotAdmitted(f"its certificate is not good at this machine's time: {error.verify_message}", terminal=True)
    if error.verify_code == tls.OTHER_HOST:
        return NotAdmitted("what answers there is another node, not the supernode: correct --supernode", terminal=True)
    return NotAdmitted(_OTHER, terminal=True)


def _of_tls(error: ssl.SSLError) -> NotAdmitted | None:
    reason = (error.reason or "").upper()
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return NotAdmitted(_PLAIN, terminal=True)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """It and what it wraps, but for aiohttp's own, which pass for ssl's."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if not isinstance(each, aiohttp.ClientError):
            yield each
        waiting += [each.__cause__, each.__context__]
        inner = getattr(each, "certificate_error", None) or getattr(each, "os_error", None)
        if isinstance(inner, BaseException):
            waiting.append(inner)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86_400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
