"""What will be different, for people: a unified diff in which no secret is shown. Pure."""

from __future__ import annotations

import difflib
import re
from typing import Final

# What stands behind such a name, and before the @ of a URL, is nobody's business.
_SECRET: Final = re.compile(
    r"""(?i)(["']?[\w-]*(?:password|passwd|token|secret|auth)["']?\s*[:=]\s*)(?![\s\[{]|$)(?:"[^"]*"|'[^']*'|[^\s,}#]+)"""
)
_USER: Final = re.compile(r"(://)[^/@\s\"']+@")


def unified(path: str, before: str | None, after: str | None) -> str:
    """None: no such file. Empty where nothing changes."""
    lines = difflib.unified_diff(
        masked(before or "").splitlines(),
        masked(after or "").splitlines(),
        path if before is not None else "/dev/null",
        path if after is not None else "/dev/null",
        n=2,
        lineterm="",
    )
    return "\n".join(lines)


def masked(text: str) -> str:
    """Line by line the same, without passwords."""
    return _USER.sub(r"\1***@", _SECRET.sub(r"\1***", text))
