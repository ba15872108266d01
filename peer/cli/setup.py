"""`layercast setup CLIENT`: has a container client of this machine pull through its peer, or takes that back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from peer.cli.contract import CommandError
from peer.setup import change, diff
from peer.setup.clients import CLIENTS
from peer.setup.contract import DEFAULT_MIRROR, SetupRefused, Wanted
from proto.config.settings import argument_type
from proto.config.values import parse_path, parse_url
from proto.errors import NameInvalid
from proto.oci.upstreams import normalise_upstream

if TYPE_CHECKING:
    import argparse

    from peer.setup.change import Change
    from peer.setup.contract import Client

# Where a peer of root keeps the certificate by which it intercepts.
_CA: Final = "var/lib/layercast/peer/interception/ca.pem"
_DESCRIPTION = """\
Write what a container client needs in its files to pull through this machine's peer: merged with what is there, shown
as a diff, with a backup. Nothing is restarted. --undo takes it back: the files are as they were, byte by byte, or, if
others changed them since, without our lines. What would break the client is refused, and nothing is changed.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("setup", help="configure a container client of this machine", description=_DESCRIPTION)
    parser.add_argument("client", choices=list(CLIENTS), metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument(
        "--registry",
        action="append",
        default=[],
        type=argument_type(parse_registry),
        metavar="HOST",
        help="this registry too, HOST or HOST:PORT, where the client must be told of it; may be repeated",
    )
    parser.add_argument(
        "--mirror",
        type=argument_type(parse_url),
        default=DEFAULT_MIRROR,
        metavar="URL",
        help="the peer's --listen [default: %(default)s]",
    )
    parser.add_argument(
        "--proxy",
        action="store_true",
        help="docker: all registries, by the peer's forward proxy; docker's pulls fail while the peer is down",
    )
    parser.add_argument(
        "--ca-file",
        type=argument_type(parse_path),
        metavar="FILE",
        help=f"with --proxy: the peer's interception/ca.pem [default: /{_CA}]",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--undo", action="store_true", help="take back what this command did")
    parser.add_argument(
        "--root",
        type=argument_type(parse_path),
        default=Path("/"),
        metavar="DIR",
        help="a folder in place of /, such as a host's mounted in a container",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, also if there is nothing to do. Raises CommandError, SetupRefused."""
    client: Client = CLIENTS[arguments.client]
    root: Path = arguments.root
    if not root.is_dir():
        raise CommandError(f"--root {root}: no such folder")
    if arguments.proxy and client.name != "docker":
        raise CommandError(f"--proxy: {client.name} needs none, its mirrors are for every registry", exit_code=2)
    if arguments.undo:
        todo = change.undo(root, client)
    else:
        ca = _certificate(root, arguments.ca_file) if arguments.proxy else ""
        wanted = Wanted(arguments.mirror, tuple(arguments.registry), arguments.proxy, ca)
        todo = change.set_up(root, client, wanted)
    for each in todo.changes:
        print(diff.unified(str(root / each.path.lstrip("/")), each.before, each.after))
    todo.check()
    if not arguments.dry_run:
        todo.carry_out()
    _report(client, todo, arguments)
    return 0


def _report(client: Client, todo: Change, arguments: argparse.Namespace) -> None:
    notes = [f"note: {note}" for note in todo.notes]
    if arguments.dry_run:
        done = "would change" if todo.changes else "nothing to do"
    elif arguments.undo:
        done = "taken back"
    else:
        done = "set up" if todo.changes else "nothing to do: it is set up"
    lines = [f"{client.name}: {done}", *notes]
    if todo.changes:
        note = f"({client.restart_note})" if client.restart and client.restart_note else client.restart_note
        lines.append("restart: " + " ".join(part for part in (client.restart, note) if part))
    if not arguments.undo:
        lines.append(f"while the peer is down: {client.when_down}")
        if todo.changes and not arguments.dry_run:
            lines.append(
                f"backup: {todo.backups}; take it back with: layercast setup {client.name} --undo{_root(arguments)}"
            )
    print("\n".join(lines))


def _root(arguments: argparse.Namespace) -> str:
    return "" if arguments.root == Path("/") else f" --root {arguments.root}"


def _certificate(root: Path, named: Path | None) -> str:
    """Empty where the peer has not made it yet. Raises SetupRefused."""
    file = named or root / _CA
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SetupRefused(f"{file}: {getattr(error, 'strerror', None) or 'no certificate'}") from None


def parse_registry(text: str) -> str:
    """Normalised. Raises ValueError."""
    try:
        return normalise_upstream(text)
    except NameInvalid:
        raise ValueError("expected HOST or HOST:PORT") from None
