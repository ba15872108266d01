"""What the commands share: how one ends badly, and readers of option values. No command's own work."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeVar

from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable

MISMATCH = 3

T = TypeVar("T")


class CommandError(LocalError):
    """A command cannot go on; the message is the one line the operator reads."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def value(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A settings parser as argparse wants it: with its own message for what would be right."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return parse_argument
