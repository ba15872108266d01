"""`layercast support-bundle`: what a helper from outside needs to see of a node, in one file, and no secret.

Settings, logs, metrics, status, what `layercast doctor` says, and the end of the event log. Every text goes through
proto.redaction, with the secrets that lie on this machine handed over. What is not there, or does not answer, is a line
in the bundle. It changes nothing, and sends nothing anywhere.
"""

from __future__ import annotations

import functools
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peer.cli.contract import CommandError
from peer.cli.known_secrets import known_secrets
from peer.cli.service_reader import DEFAULT_SUPERNODE, add_supernode_arguments, pool, token_of
from proto import VERSION
from proto.config.settings import argument_type, default_data_dir
from proto.config.values import parse_path
from proto.errors import LayercastError
from proto.redaction import redacted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

_CONFIGS: Final = {"peer": Path("/etc/layercast/peer.toml"), "supernode": Path("/etc/layercast/supernode.toml")}
_PATHS: Final = ("/healthz", "/metrics", "/v1/status", "/v1/nodes")
_LOG_LINES: Final = 5000
# The end of each log, and of the event log; what a service says is less.
_TEXT_BYTES_MAX: Final = 4 << 20
_EVENTS_BYTES_MAX: Final = 16 << 20
_JOURNAL_S: Final = 20.0
_DESCRIPTION: Final = f"""\
Write one file for whoever helps you from outside: the settings of the peer and the supernode of this machine, their
status and metrics, the last {_LOG_LINES} lines of their logs, what `layercast doctor` says, and the end of the event
log. Passwords, tokens, keys, and queries of URLs are masked; look into it before you send it (tar -xzf). Names of
registries, images, nodes and their addresses stay. Run it as root, or as the services' user. Exit codes: 0 written,
1 the file cannot be written, 2 wrong usage.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from peer.cli.doctor import add_question_arguments

    parser = commands.add_parser(
        "support-bundle", help="settings, logs, metrics of this machine in one file", description=_DESCRIPTION
    )
    path = argument_type(parse_path)
    parser.add_argument(
        "--output", type=path, metavar="FILE", help="where to write [default: layercast-support-HOST-TIME.tar.gz here]"
    )
    add_question_arguments(parser)
    add_supernode_arguments(parser)
    parser.add_argument(
        "--supernode-config", type=path, metavar="FILE", help=f"[default: {_CONFIGS['supernode']}, if it is]"
    )
    parser.add_argument(
        "--supernode-data-dir", type=path, default=default_data_dir() / "supernode", metavar="DIR",
        help="the supernode's data folder [default: %(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--log", action="append", default=[], type=path, metavar="FILE",
        help="a log file; may be repeated [default: the journals of layercast-peer and layercast-supernode]",
    )  # fmt: skip
    parser.add_argument(
        "--event-log", type=path, metavar="FILE", help="the supernode's event log [default: as configured]"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print where it is; 0. Raises CommandError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"layercast-support-{socket.gethostname()}-{stamp}"
    file: Path = arguments.output or Path.cwd() / f"{name}.tar.gz"
    settings = dict(_settings_files(arguments))
    token_files = [Path(arguments.token_file)] if arguments.token_file else []
    data_dirs = [arguments.data_dir or default_data_dir() / "peer", arguments.supernode_data_dir]
    tables = [table for table, _ in settings.values()]
    known = known_secrets(tables, data_dirs, token_files, os.environ)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandError(f"--output {file}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as bundle:
            for part, text in _texts(arguments, settings):
                _add(bundle, f"{name}/{part}", redacted(text, known).encode())
            for part, content in _event_log(arguments, tables):
                # It knows numbers and sizes; who has a secret of ours in it knows more than we do.
                if not any(secret.encode() in content for secret in known):
                    _add(bundle, f"{name}/{part}", content)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise CommandError(f"--output {file}: {error.strerror}") from None
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB; look into it before you send it: tar -tzf {file}")
    return 0


def _add(bundle: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
    bundle.addfile(member, io.BytesIO(content))


def _texts(
    arguments: argparse.Namespace, settings: Mapping[str, tuple[Mapping[str, object], str]]
) -> Iterator[tuple[str, str]]:
    """Each part by its name. None of it is masked yet."""
    yield "about.json", _about(arguments)
    for name, (table, problem) in settings.items():
        yield f"{name}/settings.json", problem or _json(table)
    urls = {"peer": _peer_url(arguments), "supernode": arguments.supernode or DEFAULT_SUPERNODE}
    token = token_of(arguments.token_file)
    for name, url in urls.items():
        for path in _PATHS:
            said = _asked(url + path, arguments.ca_file, token if name == "supernode" else "")
            yield f"{name}/{path.strip('/').replace('/', '-')}.txt", said
    yield "doctor.txt", _text_of(lambda: _doctor(arguments))
    yield from _logs(arguments)


def _about(arguments: argparse.Namespace) -> str:
    folders = {str(folder) for folder in (arguments.data_dir or default_data_dir(), arguments.supernode_data_dir)}
    return _json(
        {
            "layercast": VERSION,
            "python": sys.version,
            "system": platform.platform(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "cpus": os.cpu_count(),
            "load": os.getloadavg(),
            "disks": {folder: shutil.disk_usage(folder)._asdict() for folder in folders if Path(folder).is_dir()},
            # Whose values may be secrets.
            "environment": sorted(name for name in os.environ if name.startswith("LAYERCAST_")),
        }
    )


def _settings_files(arguments: argparse.Namespace) -> Iterator[tuple[str, tuple[dict[str, object], str]]]:
    """What each file says, without its comments; or why it cannot be told."""
    named = {"peer": arguments.config, "supernode": arguments.supernode_config}
    for name, default in _CONFIGS.items():
        path = named[name] or default
        try:
            yield name, (tomllib.loads(path.read_text()), "")
        except OSError as error:
            yield name, ({}, f"{path}: {error.strerror}")
        except ValueError:
            # Its words may be a secret's.
            yield name, ({}, f"{path}: not TOML")


def _peer_url(arguments: argparse.Namespace) -> str:
    from peer.cli.doctor import question_of

    try:
        return str(question_of(arguments).status)
    except LayercastError:
        return "http://127.0.0.1:65001"


def _doctor(arguments: argparse.Namespace) -> str:
    from peer.cli.doctor import question_of, text_of
    from peer.doctor.examination import examine
    from peer.doctor.judgement import judge

    return text_of(judge(examine(question_of(arguments))))


def _asked(url: str, ca_file: str | None, token: str) -> str:
    import urllib3

    def ask() -> str:
        with pool(url, ca_file, token) as connections:
            try:
                answer = connections.request("GET", url, preload_content=False)
                try:
                    body = answer.read(_TEXT_BYTES_MAX).decode(errors="replace")
                finally:
                    answer.release_conn()
            except urllib3.exceptions.HTTPError as error:
                return f"{url}: does not answer ({type(error).__name__})"
        return body if answer.status == 200 else f"{url}: answers {answer.status}\n{body}"

    return _text_of(ask)


def _logs(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for number, path in enumerate(arguments.log):
        yield f"logs/{number}-{path.name}", _text_of(functools.partial(_text_end, path))
    if not arguments.log:
        for unit in ("layercast-peer", "layercast-supernode"):
            yield f"logs/{unit}.log", _text_of(functools.partial(_journal, unit))


def _journal(unit: str) -> str:
    argv = ["journalctl", "--unit", unit, "--lines", str(_LOG_LINES), "--no-pager", "--output", "short-iso-precise"]
    try:
        found = subprocess.run(argv, capture_output=True, timeout=_JOURNAL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no journal of {unit} ({type(error).__name__}): name a log file with --log"
    return (found.stdout[-_TEXT_BYTES_MAX:] or found.stderr[-_TEXT_BYTES_MAX:]).decode(errors="replace")


def _event_log(arguments: argparse.Namespace, tables: Iterable[Mapping[str, object]]) -> Iterator[tuple[str, bytes]]:
    """All of it where that is little, so that it can be replayed; else its end."""
    named = [str(table["event_log"]) for table in tables if table.get("event_log")]
    path = arguments.event_log or (Path(named[0]) if named else None)
    if path is None:
        return
    try:
        content = _end_of(path, _EVENTS_BYTES_MAX)
        yield f"supernode/{'event-log' if len(content) == path.stat().st_size else 'event-log.end'}", content
    except OSError as error:
        yield "supernode/event-log.txt", f"{path}: {error.strerror}\n".encode()


def _text_end(path: Path) -> str:
    return _end_of(path).decode(errors="replace")


def _end_of(path: Path, size_bytes: int = _TEXT_BYTES_MAX) -> bytes:
    """Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - size_bytes))
        return file.read(size_bytes)


def _text_of(work: Callable[[], str]) -> str:
    """What it gives, or why it gives nothing: a part that fails is no reason to have none."""
    try:
        return work()
    except (LayercastError, OSError, ValueError, KeyError, TypeError) as error:
        return f"not to be had: {type(error).__name__}: {error}"


def _json(found: Any) -> str:
    return json.dumps(found, indent=1, default=str, ensure_ascii=False) + "\n"
