"""`layercast status`: the health and metrics of a peer and a supernode, for people or as JSON. Reads only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from peer.cli import metrics_text
from peer.cli.contract import CommandError
from peer.cli.screen import console
from peer.cli.service_reader import DEFAULT_SUPERNODE, add_supernode_arguments, pool, token_of
from proto.config.settings import argument_type
from proto.config.values import parse_url
from proto.wire.join import REFUSAL_HEADER

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

DEFAULT_PEER: Final = "http://127.0.0.1:65001"
_DESCRIPTION = """\
Ask a peer and a supernode how they are, by their /healthz, /metrics and /v1/status. Without an
option both are looked for at this machine's usual addresses. The exit code is 1 when one that was asked for, or
every one, is not ready.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """One service's answer. `error` is empty if there is one."""

    url: str
    ready: bool = False
    words: str = ""
    samples: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)
    error: str = ""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("status", help="how the peer and the supernode are", description=_DESCRIPTION)
    url = argument_type(parse_url)
    parser.add_argument("--peer", type=url, metavar="URL", help=f"a peer's status address [default: {DEFAULT_PEER}]")
    add_supernode_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a table for each; the exit code says whether they are ready. Raises CommandError."""
    asked = {"peer": arguments.peer, "supernode": arguments.supernode}
    named = {name: url for name, url in asked.items() if url is not None}
    urls = named or {"peer": DEFAULT_PEER, "supernode": DEFAULT_SUPERNODE}
    token = token_of(arguments.token_file)
    reports = [(name, read(url, arguments.ca_file, token if name == "supernode" else "")) for name, url in urls.items()]
    if arguments.json:
        print(json.dumps({name: asdict(report) for name, report in reports}, indent=1))
    elif all(report.error for _, report in reports):
        raise CommandError("; ".join(f"{name} {report.url}: {report.error}" for name, report in reports))
    else:
        _print(reports)
    wanting = [report for _, report in reports if not report.ready and (named or not report.error)]
    return 1 if wanting or all(report.error for _, report in reports) else 0


def read(url: str, ca_file: str | None = None, token: str = "") -> Report:
    """Ask one service; what it does not answer is in the report. The token goes by checked TLS alone."""
    import urllib3

    with pool(url, ca_file, token) as connections:
        try:
            health = connections.request("GET", f"{url}/healthz")
            metrics = connections.request("GET", f"{url}/metrics")
            details = connections.request("GET", f"{url}/v1/status")
            samples = metrics_text.samples(metrics.data.decode()) if metrics.status == 200 else {}
            said = json.loads(details.data) if details.status == 200 else {}
        except urllib3.exceptions.HTTPError as error:
            return Report(url, error=f"does not answer ({type(error).__name__})")
        except (ValueError, RecursionError):
            return Report(url, error="answers what no Layercast service would")
    words = f"{health.data.decode(errors='replace')}\n{metrics.headers.get(REFUSAL_HEADER, '')}".strip()[:400]
    return Report(url, health.status == 200, words, samples, said if isinstance(said, dict) else {})


def _print(reports: list[tuple[str, Report]]) -> None:
    screen = console()
    for name, report in reports:
        screen.print(_table(name, report))


def _table(name: str, report: Report) -> Table:
    from rich.table import Table

    state = report.error or ("ready" if report.ready else "not ready")
    table = Table(title=f"{name} {report.url}: {state}", title_justify="left", show_header=False)
    if report.words:
        table.add_row("health", report.words)
    for key, said in report.details.items():
        if isinstance(said, str | int | float):
            table.add_row(key, str(said))
    for key, number in report.samples.items():
        table.add_row(key.removeprefix("layercast_"), metrics_text.shown(key, number))
    return table
