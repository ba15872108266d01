"""`layercast`, the operator's command: reads the command line and calls the one that was asked for.

Exit codes: 0 done, 1 it failed (one line on standard error says why), 2 wrong usage, 3 a digest did not match.
A command's module is imported only where it is asked for, as some take long to import.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, Final

from peer.cli.contract import CommandError
from proto import VERSION
from proto.errors import LayercastError
from proto.runtime.output import written

if TYPE_CHECKING:
    from collections.abc import Sequence

# Each command, and the module of this folder whose add_parser() knows it.
COMMANDS: Final = {
    "up": "up",
    "pull": "pull",
    "setup": "setup",
    "doctor": "doctor",
    "drain": "drain",
    "status": "status",
    "nodes": "nodes",
    "top": "top",
    "story": "story",
    "preheat": "preheat",
    "jobs": "jobs",
    "events": "events",
    "keeps": "keeps",
    "verify": "upkeep",
    "evict": "upkeep",
    "gc": "upkeep",
    "support-bundle": "support_bundle",
}
# What needs none of them.
_ABOUT_ITSELF: Final = ("version", "--version")
_DESCRIPTION = """\
Peer-to-peer distribution of container image layers: the origin registry sends each blob once.

  layercast up                    supernode and peer on this machine, ready as a mirror
  layercast pull alpine:3.20      pull an image through the mirror and check every digest
  layercast setup containerd      have this machine's containerd pull through its peer; --undo takes it back
  layercast doctor                what is wrong on this node, and the command that mends it
  layercast status                how the peer and the supernode are
  layercast nodes                 the nodes that are connected to a supernode
  layercast top                   what a cluster does, again and again
  layercast story DIGEST PIECE    what happened to one piece of a blob that is being shared
  layercast preheat IMAGE         have an image at the nodes before clients ask for it
  layercast jobs                  what became of preheats; cancel one
  layercast events                what registries told of pushes; try again what failed
  layercast keeps                 the images that nodes do not evict; drop one
  layercast drain                 have this node serve no other any more, before it is stopped
  layercast verify [DIGEST]       read what this node's store holds, and drop what has rotted
  layercast evict DIGEST          delete a blob from this node's store
  layercast gc                    delete from it what was not used for a week
  layercast support-bundle        settings, logs, status and metrics in one file, without secrets
"""
_EPILOG = """\
On a cluster run layercast-supernode once and layercast-peer on every node; both explain themselves with --help.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a digest did not match.
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """With all commands, or with this one alone, if it is one."""
    parser = argparse.ArgumentParser(
        prog="layercast",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"layercast {VERSION}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    modules = COMMANDS.values() if command is None else [COMMANDS[command]] if command in COMMANDS else []
    for module in dict.fromkeys(modules):
        importlib.import_module(f"peer.cli.{module}").add_parser(commands)
    printed = commands.add_parser("version", help="print the version", description="Print the installed version.")
    printed.set_defaults(run=_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit code."""
    return written(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(words: Sequence[str]) -> int:
    first = words[0] if words else ""
    arguments = build_parser(first if first in (*COMMANDS, *_ABOUT_ITSELF) else None).parse_args(words)
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
