"""`layercast drain`: this node sends nothing to others any more, before it is stopped; its own clients go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.cli.operator_command import add_arguments, carry_out

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
    add_arguments(parser, "the peer")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the peer did. Raises CommandError, LocalError."""
    return carry_out(arguments, "undo" if arguments.undo else "", lambda _: None)
