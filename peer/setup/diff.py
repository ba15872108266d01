"""What will be different, for people: a unified diff in which no secret is shown. Pure."""

from __future__ import annotations

import difflib

from proto.redaction import redacted


def unified(path: str, before: str | None, after: str | None) -> str:
    """None: no such file. Empty where nothing changes."""
    lines = difflib.unified_diff(
        redacted(before or "").splitlines(),
        redacted(after or "").splitlines(),
        path if before is not None else "/dev/null",
        path if after is not None else "/dev/null",
        n=2,
        lineterm="",
    )
    return "\n".join(lines)
