"""`layercast verify` and `layercast evict`: by the service that has the store open, or here while none runs.

Both work for a peer's data folder and for a supernode's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.cli.contract import CommandError
from peer.store.disk import DiskStore
from peer.store.upkeep import Upkeep
from proto.config.settings import argument_type, default_data_dir
from proto.config.values import parse_path
from proto.errors import DigestInvalid
from proto.ids import Digest
from proto.runtime import operator_socket

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

_VERIFY: Final = """\
Read what a store holds and compare it with its piece hashes: one blob, or all. What has rotted is dropped; a running
peer fetches it again, and it alone. The exit code is 3 when something was rotten.
"""
_EVICT: Final = "Delete one blob from a store. It is refused while somebody reads or fetches the blob."


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, what, text, wanted in (
        ("verify", "check what a store holds, now", _VERIFY, "?"),
        ("evict", "delete a blob from a store", _EVICT, None),
    ):
        parser = commands.add_parser(name, help=what, description=text)
        parser.add_argument(
            "digest", nargs=wanted, type=argument_type(_parse_digest), metavar="DIGEST", help="sha256:..."
        )
        parser.add_argument(
            "--data-dir",
            type=argument_type(parse_path),
            default=default_data_dir() / "peer",
            metavar="DIR",
            help="data folder of the peer or supernode [default: %(default)s]",
        )
        parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was done; the exit code. Raises CommandError, LocalError."""
    data_dir: Path = arguments.data_dir
    if not (data_dir / "store").is_dir():
        raise CommandError(f"{data_dir} has no store: name the data folder of a peer or a supernode with --data-dir")
    argument = "" if arguments.digest is None else str(arguments.digest)
    ended = operator_socket.ask(data_dir, arguments.command, argument, print)
    if ended is None:
        ended = _here(data_dir, arguments.command, argument)
    text, code = ended
    if code == 1:
        raise CommandError(text)
    print(text)
    return code


def _parse_digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid:
        raise ValueError("expected a digest such as sha256:4f53cda1...") from None


def _here(data_dir: Path, command: str, argument: str) -> tuple[str, int]:
    """No service has the store open: its lock is ours meanwhile."""
    store = DiskStore(data_dir / "store", size_limit_bytes=2**63, free_floor_bytes=0)
    try:
        upkeep = Upkeep(store, "to be fetched again with the next pull")
        return (upkeep.verify if command == "verify" else upkeep.evict)(argument, print)
    finally:
        store.close()
