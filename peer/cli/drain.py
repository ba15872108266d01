"""`layercast drain`: this node sends nothing to others any more, before it is stopped; its own clients go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.cli.contract import CommandError
from proto.config.settings import argument_type, default_data_dir
from proto.config.values import parse_path
from proto.runtime import operator_socket

if TYPE_CHECKING:
    import argparse

_DESCRIPTION: Final = """\
Take this node out of the swarm, before maintenance: no other node is sent here, and what is being sent to others ends
first, for a minute at most (exit code 1 if some is left). Its own clients are served from its store and from upstream.
It lasts until --undo, SIGHUP or a restart.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("drain", help="have a node serve no other any more", description=_DESCRIPTION)
    parser.add_argument("--undo", action="store_true", help="share again")
    parser.add_argument(
        "--data-dir",
        type=argument_type(parse_path),
        default=default_data_dir() / "peer",
        metavar="DIR",
        help="the peer's data folder [default: %(default)s]",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the peer did. Raises CommandError."""
    ended = operator_socket.ask(arguments.data_dir, "drain", "undo" if arguments.undo else "", print)
    if ended is None:
        raise CommandError(f"{arguments.data_dir}: no peer runs with it; name its --data-dir")
    text, code = ended
    if code:
        raise CommandError(text, exit_code=code)
    print(text)
    return 0
