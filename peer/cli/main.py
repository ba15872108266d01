"""`layercast`, the operator's command: reads the command line and calls the one that was asked for.

Exit codes: 0 done, 1 it failed (one line on standard error says why), 2 wrong usage, 3 a digest did not match.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from peer.cli import pull, status, up, upkeep
from peer.cli.contract import CommandError
from proto import VERSION
from proto.errors import LayercastError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTION = """\
Peer-to-peer distribution of container image layers: the origin registry sends each blob once.

  layercast up                    supernode and peer on this machine, ready as a mirror
  layercast pull alpine:3.20      pull an image through the mirror and check every digest
  layercast status                how the peer and the supernode are
  layercast verify [DIGEST]       read what this node's store holds, and drop what has rotted
  layercast evict DIGEST          delete a blob from this node's store
"""
_EPILOG = """\
On a cluster run layercast-supernode once and layercast-peer on every node; both explain themselves with --help.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a digest did not match.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="layercast",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"layercast {VERSION}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    up.add_parser(commands)
    pull.add_parser(commands)
    status.add_parser(commands)
    upkeep.add_parser(commands)
    printed = commands.add_parser("version", help="print the version", description="Print the installed version.")
    printed.set_defaults(run=_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code = arguments.run(arguments)
    except LayercastError as error:
        print(f"layercast {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, CommandError) else 1
    except KeyboardInterrupt:
        print(f"layercast {arguments.command}: interrupted", file=sys.stderr)
        return 130
    assert isinstance(code, int)
    return code


def _version(_: argparse.Namespace) -> int:
    print(f"layercast {VERSION}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
