"""What makes this node a member, kept in one file of its data folder: its certificate, and whom it trusts."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from proto.errors import ConfigError
from proto.runtime.private_files import write_private

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

FILE: Final = "membership.json"


@dataclass(frozen=True, slots=True)
class Record:
    """Certificates are PEM. By the certificate's own clock: to renew it, and its end."""

    certificate: str
    authorities: str
    renew_unix_s: float
    expires_unix_s: float


def read_record(path: Path) -> Record | None:
    """None when this node never joined, or what was kept is damaged. Raises ConfigError."""
    try:
        fields = json.loads(path.read_text())
        record = Record(
            str(fields["certificate"]),
            str(fields["authorities"]),
            float(fields["renew_unix_s"]),
            float(fields["expires_unix_s"]),
        )
        if math.isnan(record.renew_unix_s):
            raise ValueError
        return record
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; make it readable for this user alone") from None
    except (ValueError, KeyError, TypeError):
        tell_damaged(path)
        return None


def tell_damaged(path: Path) -> None:
    """And no more: clients are served meanwhile, and a join token makes a new one."""
    logger.error("membership_damaged %s: not of this node's key, or changed by a disk; a join token is needed", path)


def write_record(path: Path, record: Record) -> None:
    """Keep it for the next start. If the disk refuses, the node has to join again then; that is logged, not raised."""
    try:
        write_private(path, json.dumps(asdict(record), indent=1).encode() + b"\n")
    except OSError as error:
        logger.error("membership_not_kept %s: %s; the next start needs a join token again", path, error.strerror)
