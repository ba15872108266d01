"""The public key of the supernode that this node trusts, over restarts too. Tickets and hashes are checked by it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proto.ids import PeerId, short_peer
from proto.wire.tickets import KEY_BYTES

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


class SupernodeKey:
    """`value` is 32 bytes, or None while no supernode was ever met. Safe to read from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.value = _read(path)

    def get(self) -> bytes | None:
        """For whoever must ask each time."""
        return self.value

    def trust(self, key: bytes) -> None:
        """From now on this one alone."""
        if key == self.value:
            return
        if self.value is not None:
            logger.warning(
                "supernode_changed old=%s new=%s: tickets of the old one are no longer accepted",
                short_peer(PeerId(self.value)), short_peer(PeerId(key)),
            )  # fmt: skip
        self.value = key
        try:
            part = self._path.with_suffix(".part")
            part.write_bytes(key)
            part.replace(self._path)
        except OSError as error:
            logger.error("supernode_key_not_kept %s: %s", self._path, error.strerror)


def _read(path: Path) -> bytes | None:
    """None when there is no file, or none that is whole."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.error("supernode_key_not_read %s: %s", path, error.strerror)
        return None
    return key if len(key) == KEY_BYTES else None
