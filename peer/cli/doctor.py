"""`layercast doctor`: this node from the client's file to the registry, and the command that mends what is wrong.

Exit codes: 0 all is as it should be, 1 something is not, 2 wrong usage. It changes nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peer.cli.contract import CommandError
from peer.setup.clients import CLIENTS
from proto.config.settings import argument_type
from proto.config.values import HostPort, parse_path, parse_url
from proto.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from peer.config import PeerConfig
    from peer.doctor.examination import Question
    from peer.doctor.facts import Finding

_CONFIG: Final = Path("/etc/layercast/peer.toml")
_DESCRIPTION: Final = """\
Look at this node from the client's file to the registry: each part is ok, or what is wrong with it and what mends it.
Nothing is changed, and no credential is sent. As root, or as the peer's user, it sees more. Exit codes: 0 all is well,
1 something is wrong, 2 wrong usage.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="find what is wrong on this node", description=_DESCRIPTION)
    add_question_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def add_question_arguments(parser: argparse.ArgumentParser) -> None:
    """What is looked at."""
    from peer.cli.setup import parse_registry

    path = argument_type(parse_path)
    parser.add_argument(
        "--client", action="append", default=[], choices=list(CLIENTS), metavar="CLIENT",
        help="this client must be set up; may be repeated [default: one of those that are installed]",
    )  # fmt: skip
    parser.add_argument(
        "--registry", action="append", default=[], type=argument_type(parse_registry), metavar="HOST",
        help="look at this registry too; may be repeated [default: the peer's upstreams]",
    )  # fmt: skip
    parser.add_argument(
        "--peer", type=argument_type(parse_url), metavar="URL", help="the peer's --listen [default: as configured]"
    )
    parser.add_argument(
        "--config", type=path, metavar="FILE", help=f"the peer's settings [default: {_CONFIG}, if it is]"
    )
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="the peer's data folder [default: as configured]")
    parser.add_argument("--root", type=path, default=Path("/"), metavar="DIR", help="where the client's files are")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; the exit code. Raises CommandError for settings that cannot be read."""
    from peer.doctor.examination import examine
    from peer.doctor.judgement import judge

    findings = judge(examine(question_of(arguments)))
    wrong = any(finding.fault for finding in findings)
    if arguments.json:
        parts = [{**asdict(finding), "ok": not finding.fault} for finding in findings]
        print(json.dumps({"ok": not wrong, "parts": parts}, indent=1))
    else:
        print(text_of(findings))
    return 1 if wrong else 0


def question_of(arguments: argparse.Namespace) -> Question:
    """Raises CommandError for settings that cannot be read."""
    from peer.doctor.examination import Question

    settings = _settings(arguments)
    mirror = arguments.peer or f"http://{_reachable(settings.listen)}"
    status = f"http://{_reachable(settings.status_listen)}" if settings.status_listen is not None else mirror
    return Question(settings, mirror, status, arguments.root, tuple(arguments.client), tuple(arguments.registry))


def text_of(findings: Sequence[Finding]) -> str:
    """For people: a line for each part, and below one that is wrong what mends it."""
    lines = []
    for finding in findings:
        if not finding.fault:
            lines.append(f"ok     {finding.part}: {finding.said}")
            continue
        lines += [f"WRONG  {finding.part}: {finding.said} [{finding.fault}]", f"       mend: {finding.mend}"]
    return "\n".join(lines)


def _settings(arguments: argparse.Namespace) -> PeerConfig:
    """As the peer has them, so far as files and the environment say. Raises CommandError."""
    from peer.config import load

    words = []
    if arguments.config is not None:
        words += ["--config", str(arguments.config)]
    elif "LAYERCAST_CONFIG" not in os.environ and _CONFIG.is_file():
        words += ["--config", str(_CONFIG)]
    if arguments.data_dir is not None:
        words += ["--data-dir", str(arguments.data_dir)]
    try:
        return load(words, os.environ)
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None


def _reachable(address: HostPort) -> HostPort:
    """Every interface includes loopback."""
    hosts = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return HostPort(hosts.get(address.host, address.host), address.port)
