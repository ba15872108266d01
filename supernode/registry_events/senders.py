"""Who may send events, and speak as Harbor does: by a secret, or from a network that the operator named. Pure.

It is no operator's token: whoever has it can have images fetched that rules or Harbor's policies may name, and no more.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proto.config.values import plain_address
from proto.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from proto.config.values import Network

TOKEN_LENGTH_MIN: Final = 16
TOKEN_LENGTH_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Senders:
    """`token` is empty where there is none."""

    token: str = field(default="", repr=False)
    networks: tuple[Network, ...] = ()

    @property
    def exist(self) -> bool:
        """Whether anybody may send."""
        return bool(self.token or self.networks)

    def has_address(self, address: str) -> bool:
        """Whether it is in a named network."""
        try:
            host = plain_address(address)
        except ValueError:
            return False
        return any(host in network for network in self.networks)

    def has_token(self, authorization: str) -> bool:
        """Whether the line shows the secret: as it is, as a bearer's or as the password of any user."""
        # What is no UTF-8 comes as surrogates, and is no token.
        shown = _shown(authorization).encode("utf-8", "surrogateescape")
        return bool(self.token) and hmac.compare_digest(shown, self.token.encode())


def _shown(authorization: str) -> str:
    """The secret of an Authorization line."""
    kind, space, rest = authorization.strip().partition(" ")
    if not space:
        return kind
    if kind.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return rest.strip() if kind.lower() == "bearer" else ""


def read_senders(token_file: Path | None, networks: tuple[Network, ...]) -> Senders:
    """Raises ConfigError, which never shows what is in the file."""
    if token_file is None:
        return Senders("", networks)
    where = f"--event-token-file {token_file}"
    try:
        with token_file.open("rb") as file:
            token = file.read(TOKEN_LENGTH_MAX + 2).decode().strip()
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not TOKEN_LENGTH_MIN <= len(token) <= TOKEN_LENGTH_MAX or not token.isascii() or " " in token:
        raise ConfigError(
            f"{where}: expected one line of {TOKEN_LENGTH_MIN} characters or more, as `openssl rand -hex 32` prints it"
        )
    return Senders(token, networks)
