"""What the commands share: how one ends badly. No command's own work."""

from __future__ import annotations

from proto.errors import LocalError

MISMATCH = 3


class CommandError(LocalError):
    """A command cannot go on; the message is the one line the operator reads."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
