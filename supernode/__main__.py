"""`layercast-supernode`: names the program, its settings and its service. Everything else is supernode.app.

`layercast-supernode token|node|ca ...` are the operator's commands about members (supernode.membership.commands).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from proto.runtime import program
from proto.runtime.output import written
from supernode.config import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernode.app import Supernode
    from supernode.config import SupernodeConfig

COMMANDS: Final = ("token", "node", "ca")


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """One command, or serve until SIGTERM or SIGINT; returns the exit code."""
    if argv and argv[0] in COMMANDS:
        from supernode.membership import commands

        return written(lambda: commands.run(argv, lambda words: load(words, os.environ).data_dir))
    return program.run("layercast-supernode", argv, load, _make)


def _make(config: SupernodeConfig) -> Supernode:
    # Here, so that --version and --help do not import the service.
    from supernode.app import Supernode

    return Supernode(config)


if __name__ == "__main__":
    main()
