"""`layercast-peer`: names the program, its settings and its service. Everything else is peer.app."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from peer.config import load
from proto.runtime import program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peer.app import Peer
    from peer.config import PeerConfig


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    return program.run("layercast-peer", argv, load, _make)


def _make(config: PeerConfig) -> Peer:
    # Here, so that --version and --help do not import the service.
    from peer.app import Peer

    return Peer(config)


if __name__ == "__main__":
    main()
