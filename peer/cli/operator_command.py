"""What commands share that a running service carries out by its operator's socket: the answer, for people or programs.

With --json it is one object: `said`, the lines on the way; `ended`, the last one; `code`, the exit code.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from peer.cli.contract import CommandError
from proto.config.settings import argument_type, default_data_dir
from proto.config.values import parse_path
from proto.errors import LayercastError
from proto.runtime import operator_socket

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    # As proto.runtime.operator_socket.OperatorCommand, without its argument; None: no service runs, and nobody can.
    Otherwise = Callable[[Callable[[str], None]], tuple[str, int] | None]


def add_arguments(parser: argparse.ArgumentParser, whose: str) -> None:
    """Which service, and how it is answered."""
    parser.add_argument(
        "--data-dir",
        type=argument_type(parse_path),
        default=default_data_dir() / "peer",
        metavar="DIR",
        help=f"data folder of {whose} [default: %(default)s]",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def carry_out(arguments: argparse.Namespace, argument: str, otherwise: Otherwise) -> int:
    """By the service of the data folder, or else. Returns the exit code. Raises LayercastError, but for programs."""
    lines: list[str] = []
    try:
        text, code = _ended(arguments, argument, otherwise, lines.append if arguments.json else print)
    except LayercastError as error:
        if not arguments.json:
            raise
        text, code = str(error), 1
    if arguments.json:
        print(json.dumps({"said": lines, "ended": text, "code": code}))
    else:
        print(text)
    return code


def _ended(
    arguments: argparse.Namespace, argument: str, otherwise: Otherwise, say: Callable[[str], None]
) -> tuple[str, int]:
    ended = operator_socket.ask(arguments.data_dir, arguments.command, argument, say)
    if ended is None:
        ended = otherwise(say)
    if ended is None:
        raise CommandError(f"{arguments.data_dir}: no peer runs with it; name its --data-dir")
    if ended[1] == 1:
        raise CommandError(ended[0])
    return ended
