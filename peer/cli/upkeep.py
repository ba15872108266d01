"""`layercast verify`, `evict` and `gc`: by the service that has the store open, or here while none runs.

All work for a peer's data folder and for a supernode's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.cli.contract import CommandError
from peer.cli.operator_command import add_arguments, carry_out
from peer.store.disk import DiskStore
from peer.store.upkeep import Upkeep
from proto.config.settings import argument_type
from proto.config.values import parse_duration
from proto.errors import DigestInvalid
from proto.ids import Digest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

_VERIFY: Final = """\
Read what a store holds and compare it with its piece hashes: one blob, or all. What has rotted is dropped; a running
peer fetches it again, and it alone. The exit code is 3 when something was rotten.
"""
_EVICT: Final = """\
Delete one blob from a store. It is refused while somebody reads or fetches the blob, and while it is kept.
"""
_GC: Final = """\
Delete from a store what nobody has used for a time, whole or not: no client, no other node. What is in use, and what is
kept (layercast keeps), stays. A store makes room by itself when it needs some; this is for the disk's other users.
"""
_UNUSED_S: Final = 7 * 86_400.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, what, text, wanted in (
        ("verify", "check what a store holds, now", _VERIFY, "?"),
        ("evict", "delete a blob from a store", _EVICT, None),
    ):
        parser = commands.add_parser(name, help=what, description=text)
        parser.add_argument(
            "digest", nargs=wanted, type=argument_type(_parse_digest), metavar="DIGEST", help="sha256:..."
        )
        add_arguments(parser, "the peer or supernode")
        parser.set_defaults(run=run)
    parser = commands.add_parser("gc", help="delete what was not used for long", description=_GC)
    parser.add_argument(
        "--unused-for",
        type=argument_type(parse_duration),
        default=_UNUSED_S,
        metavar="TIME",
        help="30d, 12h; 0s: all that nobody uses now [default: 7d]",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and delete nothing")
    add_arguments(parser, "the peer or supernode")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was done; the exit code. Raises CommandError, LocalError."""
    data_dir: Path = arguments.data_dir
    if not (data_dir / "store").is_dir():
        raise CommandError(f"{data_dir} has no store: name the data folder of a peer or a supernode with --data-dir")
    if arguments.command == "gc":
        argument = f"{arguments.unused_for}{' dry-run' if arguments.dry_run else ''}"
    else:
        argument = "" if arguments.digest is None else str(arguments.digest)
    return carry_out(arguments, argument, lambda say: _here(data_dir, arguments.command, argument, say))


def _parse_digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid:
        raise ValueError("expected a digest such as sha256:4f53cda1...") from None


def _here(data_dir: Path, command: str, argument: str, say: Callable[[str], None]) -> tuple[str, int]:
    """No service has the store open: its lock is ours meanwhile."""
    store = DiskStore(data_dir / "store", size_limit_bytes=2**63, free_floor_bytes=0)
    try:
        upkeep = Upkeep(store, "to be fetched again with the next pull")
        return upkeep.commands[command](argument, say)
    finally:
        store.close()
