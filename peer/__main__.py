"""`layercast-peer`: names the program, its settings and its service. Everything else is peer.app."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from peer.config import load
from proto.runtime import program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peer.app import Peer
    from peer.config import PeerConfig

_JOIN_FLAG: Final = "--join"
_JOIN_VARIABLE: Final = "LAYERCAST_JOIN"


def main() -> None:
    """The console script."""
    _hide_token()
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    return program.run("layercast-peer", argv, load, _make)


def _hide_token() -> None:
    """Every user of a machine sees the arguments of its processes: begin again with the token in the environment."""
    words, token = without_token(sys.orig_argv)
    if token:
        os.execve(sys.executable, words, {**os.environ, _JOIN_VARIABLE: token})


def without_token(argv: Sequence[str]) -> tuple[list[str], str]:
    """The arguments without `--join TOKEN` or `--join=TOKEN`, and the token; empty for none."""
    left: list[str] = []
    token = ""
    words = iter(argv)
    for word in words:
        if word == _JOIN_FLAG:
            token = next(words, "")
        elif word.startswith(f"{_JOIN_FLAG}="):
            token = word.partition("=")[2]
        else:
            left.append(word)
    return left, token


def _make(config: PeerConfig) -> Peer:
    # Here, so that --version and --help do not import the service.
    from peer.app import Peer

    return Peer(config)


if __name__ == "__main__":
    main()
