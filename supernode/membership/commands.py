"""`layercast-supernode token`, `node` and `ca`: the operator's commands, on a supernode's data folder.

They change the database and the authorities; the running supernode notices within a second.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from typing import TYPE_CHECKING, Final

from proto.config.settings import OneLineParser, argument_type
from proto.config.values import parse_duration, parse_int, within
from proto.errors import ConfigError, LayercastError, LocalError
from proto.wire.join import JoinToken
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.database import MemberDatabase

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from proto.ids import PeerId
    from supernode.membership.database import NodeRow

    Group: TypeAlias = argparse._SubParsersAction[OneLineParser]

_TTL_MAX_S: Final = 3650 * 86_400.0
_PREFIX_MIN: Final = 6


def run(argv: Sequence[str], data_dir: Callable[[Sequence[str]], Path]) -> int:
    """One command; the exit code. `data_dir` is where a supernode with these arguments keeps its data."""
    try:
        arguments = _parser().parse_args(argv)
        folder = AuthorityFolder(data_dir(_supernode_words(arguments)))
        if not folder.exists():
            raise ConfigError(
                f"{folder.path} is not there: start the supernode once, or name its folder with --data-dir"
            )
        arguments.run(folder, arguments)
    except LayercastError as error:
        sys.stderr.write(f"layercast-supernode {argv[0]}: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def create_token(folder: AuthorityFolder, ttl_s: float, uses_max: int | None) -> JoinToken:
    """A new token of the folder's current authority, which is made if there is none. Raises LocalError."""
    token = JoinToken.generate(folder.load_or_create().current.fingerprint)
    database = MemberDatabase(folder.path)
    try:
        database.add_token(token, ttl_s, uses_max)
    finally:
        database.close()
    return token


# --- tokens ----------------------------------------------------------------------------------------------------


def _create_token(folder: AuthorityFolder, arguments: argparse.Namespace) -> None:
    print(create_token(folder, arguments.ttl, arguments.uses).text)


def _list_tokens(folder: AuthorityFolder, _: argparse.Namespace) -> None:
    database, now_s = MemberDatabase(folder.path), time.time()
    rows = [
        (
            token.id,
            token.state(now_s),
            f"{token.uses} of {'any' if token.uses_max is None else token.uses_max}",
            _time(token.created_unix_s),
            _time(token.expires_unix_s),
        )
        for token in database.tokens()
    ]
    database.close()
    _print(("ID", "STATE", "USED", "CREATED", "EXPIRES"), rows)


def _revoke_token(folder: AuthorityFolder, arguments: argparse.Namespace) -> None:
    # A whole token is good for its id too: that is what an operator has at hand.
    words = arguments.id.split(".")
    token_id = words[1] if len(words) == 4 else arguments.id
    database = MemberDatabase(folder.path)
    found = database.revoke_token(token_id)
    database.close()
    if not found:
        raise LocalError(f"there is no token {token_id}; `layercast-supernode token list` has them")
    print(f"revoked token {token_id}: nobody joins by it any more; nodes that joined stay members")


# --- nodes -----------------------------------------------------------------------------------------------------


def _list_nodes(folder: AuthorityFolder, _: argparse.Namespace) -> None:
    database, now_s = MemberDatabase(folder.path), time.time()
    rows = [
        (
            node.peer.hex()[:12],
            _state(node, now_s),
            node.address or "-",
            _time(node.joined_unix_s),
            _time(node.seen_unix_s),
            _time(node.expires_unix_s),
        )
        for node in database.nodes()
    ]
    database.close()
    _print(("ID", "STATE", "ADDRESS", "JOINED", "CONNECTED", "EXPIRES"), rows)


def _revoke_node(folder: AuthorityFolder, arguments: argparse.Namespace) -> None:
    with _one_node(folder, arguments.id) as (database, peer):
        database.revoke_node(peer)
    print(
        f"revoked node {peer.hex()[:12]}: its session ends within a second, its tickets within 10 minutes; "
        "if somebody else may have its join token, revoke that too"
    )


def _lift(folder: AuthorityFolder, arguments: argparse.Namespace) -> None:
    with _one_node(folder, arguments.id) as (database, peer):
        database.lift(peer)
    print(f"node {peer.hex()[:12]} is asked for pieces again within a second; it was put aside if /v1/status says so")


@contextlib.contextmanager
def _one_node(folder: AuthorityFolder, text: str) -> Iterator[tuple[MemberDatabase, PeerId]]:
    """The node whose id begins so. Raises LocalError unless it is one."""
    prefix = text.lower()
    if len(prefix) < _PREFIX_MIN:
        raise LocalError(f"{prefix}: expected at least {_PREFIX_MIN} characters of the node's id")
    database = MemberDatabase(folder.path)
    try:
        found = [node.peer for node in database.nodes() if node.peer.hex().startswith(prefix)]
        if len(found) != 1:
            raise LocalError(f"{len(found)} nodes begin with {prefix}; `layercast-supernode node list` has them")
        yield database, found[0]
    finally:
        database.close()


def _state(node: NodeRow, now_s: float) -> str:
    if node.revoked_unix_s is not None:
        return "revoked"
    return "expired" if now_s >= node.expires_unix_s else "member"


# --- the authority ---------------------------------------------------------------------------------------------


def _rotate(folder: AuthorityFolder, arguments: argparse.Namespace) -> None:
    authorities = folder.rotate(arguments.overlap)
    print(f"new authority {authorities.current.fingerprint}")
    if authorities.older is not None:
        until = _time(authorities.older_until_unix_s)
        print(f"the one before is trusted until {until}; running nodes renew by themselves")
    else:
        print("the one before is not trusted any more: every node needs a new join token")


def _show(folder: AuthorityFolder, _: argparse.Namespace) -> None:
    authorities = folder.load_or_create()
    print(f"current {authorities.current.fingerprint}")
    if authorities.older is not None:
        print(f"the one before is trusted until {_time(authorities.older_until_unix_s)}")


# --- -----------------------------------------------------------------------------------------------------------


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="layercast-supernode", allow_abbrev=False)
    groups = parser.add_subparsers(required=True, metavar="COMMAND")
    tokens = _group(groups, "token", "join tokens, by which nodes become members")
    create = _command(tokens, "create", "print a new join token", _create_token)
    create.add_argument(
        "--ttl", type=argument_type(within(parse_duration, 1, _TTL_MAX_S, "1s to 3650d")), default="24h",
        metavar="TIME", help="how long nodes may join by it [default: 24h]",
    )  # fmt: skip
    create.add_argument(
        "--uses", type=argument_type(within(parse_int, 1, 1_000_000, "1 to 1000000")), metavar="N",
        help="how many nodes may [default: any number]",
    )  # fmt: skip
    _command(tokens, "list", "tokens and what became of them; never their secrets", _list_tokens)
    _command(tokens, "revoke", "nobody joins by it any more", _revoke_token).add_argument("id", metavar="ID")
    nodes = _group(groups, "node", "members")
    _command(nodes, "list", "every node that joined", _list_nodes)
    _command(nodes, "revoke", "end a node's membership", _revoke_node).add_argument("id", metavar="ID")
    _command(nodes, "lift", "end a node's quarantine", _lift).add_argument("id", metavar="ID")
    authority = _group(groups, "ca", "the certificate authority")
    _command(authority, "show", "fingerprints", _show)
    rotate = _command(authority, "rotate", "certify by a new authority from now on", _rotate)
    rotate.add_argument(
        "--overlap", type=argument_type(within(parse_duration, 0, 365 * 86_400.0, "0 to 365d")), default="30d",
        metavar="TIME", help="how long the one before is trusted; 0 if its key was stolen [default: 30d]",
    )  # fmt: skip
    return parser


def _group(groups: Group, name: str, help: str) -> Group:
    group = groups.add_parser(name, help=help, description=help, allow_abbrev=False)
    return group.add_subparsers(required=True, metavar="COMMAND")


def _command(
    group: Group,
    name: str,
    help: str,
    run: Callable[[AuthorityFolder, argparse.Namespace], None],
) -> argparse.ArgumentParser:
    command = group.add_parser(name, help=help, description=help, allow_abbrev=False)
    command.add_argument("--data-dir", metavar="DIR", help="the supernode's folder")
    command.add_argument("--config", metavar="FILE", help="the supernode's settings, for its data_dir")
    command.set_defaults(run=run)
    return command


def _supernode_words(arguments: argparse.Namespace) -> list[str]:
    named = (("--data-dir", arguments.data_dir), ("--config", arguments.config))
    return [f"{flag}={value}" for flag, value in named if value is not None]


def _print(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _time(unix_s: float | None) -> str:
    if unix_s is None:
        return "-"
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(sep=" ", timespec="seconds")[:19] + "Z"
