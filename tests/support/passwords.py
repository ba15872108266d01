"""A registry that asks for a password: its configuration, and what the one user it knows says."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

USER: Final = "reader"
PASSWORD: Final = "secret"  # of a registry that lives as long as a test
_PASSWORD_BCRYPT: Final = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"


def password_auth(root: Path) -> dict[str, object]:
    """The `auth` section of a registry that lets in USER with PASSWORD alone; its file lies in `root`."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / "htpasswd"
    file.write_text(f"{USER}:{_PASSWORD_BCRYPT}\n")
    return {"htpasswd": {"realm": "test", "path": str(file)}}


def basic_authorization(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """The header by which that user identifies himself."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
