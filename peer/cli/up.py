"""`layercast up`: a supernode and a peer on this machine, ready as a mirror. Starts and supervises them; no more."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from peer.cli.contract import CommandError
from peer.cli.supervisor import Program, Supervisor
from peer.setup.contract import DEFAULT_MIRROR
from proto.config.settings import argument_type, default_data_dir
from proto.config.values import HostPort, parse_host_port, parse_path, parse_url
from proto.errors import ConfigError
from proto.oci.upstreams import upstream_from_url
from proto.runtime.private_files import write_private

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DESCRIPTION = """\
Start a supernode and a peer on this machine, supervise them (what dies is started again), and end both on Ctrl-C or
SIGTERM. The defaults suit one machine: everything listens on loopback. With --supernode-listen 0.0.0.0:65000 and
--supernode-upload-listen 0.0.0.0:65003 peers of other machines may join, by a token of
`layercast-supernode token create --data-dir DIR/supernode`. The peer here gets its own by itself.
"""
_LISTENERS: Final = (
    ("--listen", "127.0.0.1:65001", "the mirror"),
    ("--upload-listen", "127.0.0.1:65002", "the peer's pieces"),
    ("--supernode-listen", "127.0.0.1:65000", "the supernode"),
    ("--supernode-upload-listen", "127.0.0.1:65003", "the supernode's pieces"),
)
_CLIENTS = """
Layercast is ready. The mirror is http://{proxy}

clients      layercast setup CLIENT{mirror}, as root, has this machine's docker, containerd, podman, crio, buildkit
             or k3s pull through it; --dry-run shows how, --undo takes it back
try          layercast pull alpine:3.20 --via http://{proxy}
look         layercast status --peer http://{status} --supernode http://{supernode}
wrong?       layercast doctor --peer http://{proxy}
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("up", help="run a supernode and a peer on this machine", description=_DESCRIPTION)
    url = argument_type(parse_url)
    for flag, default, purpose in _LISTENERS:
        parser.add_argument(
            flag,
            type=argument_type(parse_host_port),
            default=default,
            metavar="HOST:PORT",
            help=f"{purpose} [default: {default}]",
        )
    parser.add_argument(
        "--registry",
        action="append",
        default=[],
        metavar="URL",
        type=url,
        help="allow this registry too, https://HOST or http://HOST:PORT; may be repeated",
    )
    parser.add_argument(
        "--default-upstream",
        metavar="URL",
        type=url,
        help="where requests go that name no registry [default: docker.io]",
    )
    parser.add_argument(
        "--data-dir",
        type=argument_type(parse_path),
        default=default_data_dir(),
        metavar="DIR",
        help="folder of both stores, keys and state [default: %(default)s]",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns when told to end. Raises CommandError if a program does not come up."""
    try:
        for name in ("supernode", "peer"):
            (arguments.data_dir / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--data-dir {arguments.data_dir}: {error.strerror}") from error
    Supervisor(programs(arguments), _say).run(_print_ready)
    return 0


def programs(arguments: argparse.Namespace) -> list[Program]:
    """The two programs' command lines. Raises CommandError for a registry URL that is none."""
    upstreams = upstream_flags(arguments.registry)
    default = arguments.default_upstream
    default_flags = []
    if default is not None:
        upstreams += upstream_flags([default])
        default_flags = ["--default-upstream", default]

    def words(name: str, addresses: Mapping[str, str], listening: str, listen: HostPort, upload: HostPort) -> list[str]:
        """The addresses are those it had before, so that a restart keeps a port that was chosen for it."""
        flags = ["--listen", addresses.get(f"{name}.{listening}", str(listen))]
        flags += ["--upload-listen", addresses.get(f"{name}.upload", str(upload))]
        return [name, *flags, "--data-dir", str(arguments.data_dir / name), *upstreams]

    def supernode(addresses: Mapping[str, str]) -> list[str]:
        return words("supernode", addresses, "api", arguments.supernode_listen, arguments.supernode_upload_listen)

    def peer(addresses: Mapping[str, str]) -> list[str]:
        flags = ["--supernode", f"https://{reachable(addresses['supernode.api'])}", *default_flags]
        flags += ["--join-file", str(join_file(arguments.data_dir))]
        return [*words("peer", addresses, "proxy", arguments.listen, arguments.upload_listen), *flags]

    return [Program("supernode", supernode), Program("peer", peer)]


def join_file(data_dir: Path) -> Path:
    """The file with the peer's join token, made if the peer is no member yet. Raises CommandError."""
    file = data_dir / "peer" / "join.token"
    if (data_dir / "peer" / "membership.json").exists():
        return file
    words = [sys.executable, "-m", "supernode", "token", "create", "--ttl", "1h", "--uses", "1"]
    made = subprocess.run(
        [*words, "--data-dir", str(data_dir / "supernode")], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise CommandError(made.stderr.strip() or "no join token could be made")
    try:
        write_private(file, made.stdout.encode())
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    return file


def upstream_flags(urls: Sequence[str]) -> list[str]:
    """`--allow-upstream` or `--insecure-upstream` for each registry URL. Raises CommandError."""
    flags: list[str] = []
    for url in urls:
        try:
            upstream_from_url(url)
        except ConfigError as error:
            raise CommandError(f"--registry {error}") from error
        parts = urlsplit(url)
        flags += ["--insecure-upstream" if parts.scheme == "http" else "--allow-upstream", parts.netloc]
    return flags


def reachable(address: str) -> str:
    """An address to connect to, from one that is listened on: every interface includes loopback."""
    parsed = parse_host_port(address)
    wildcard: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return str(HostPort(wildcard.get(parsed.host, parsed.host), parsed.port))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_ready(addresses: Mapping[str, str]) -> None:
    proxy, supernode = reachable(addresses["peer.proxy"]), reachable(addresses["supernode.api"])
    status = reachable(addresses.get("peer.status", addresses["peer.proxy"]))
    mirror = "" if f"http://{proxy}" == DEFAULT_MIRROR else f" --mirror http://{proxy}"
    print(_CLIENTS.format(proxy=proxy, status=status, supernode=supernode, mirror=mirror))
    print(f"ready up proxy={proxy} supernode={supernode}", flush=True)
