"""`layercast status`: the health and metrics of a peer and a supernode, for people. Reads only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import urllib3
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from peer.cli.contract import CommandError
from proto.config.settings import argument_type
from proto.config.values import parse_url
from proto.wire.join import REFUSAL_HEADER, SUPERNODE_NAME

if TYPE_CHECKING:
    import argparse

DEFAULT_PEER: Final = "http://127.0.0.1:65001"
DEFAULT_SUPERNODE: Final = "http://127.0.0.1:65000"
_TIMEOUT: Final = urllib3.Timeout(connect=2.0, read=5.0)
_DESCRIPTION = """\
Ask a peer and a supernode how they are, by their /healthz and /metrics (and the supernode's /v1/status). Without an
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
    parser.add_argument("--supernode", type=url, metavar="URL", help=f"a supernode [default: {DEFAULT_SUPERNODE}]")
    parser.add_argument("--ca-file", metavar="FILE", help="to read a supernode's metrics by https: its ca/ca.pem")
    parser.add_argument("--token-file", metavar="FILE", help="and its ca/operator.token")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a table for each; the exit code says whether they are ready. Raises CommandError."""
    asked = {"peer": arguments.peer, "supernode": arguments.supernode}
    named = {name: url for name, url in asked.items() if url is not None}
    urls = named or {"peer": DEFAULT_PEER, "supernode": DEFAULT_SUPERNODE}
    token = _token(arguments.token_file)
    reports = [(name, read(url, arguments.ca_file, token if name == "supernode" else "")) for name, url in urls.items()]
    if all(report.error for _, report in reports):
        raise CommandError("; ".join(f"{name} {report.url}: {report.error}" for name, report in reports))
    console = Console()
    for name, report in reports:
        console.print(_table(name, report))
    wanting = [report for _, report in reports if not report.ready and (named or not report.error)]
    return 1 if wanting else 0


def _token(file: str | None) -> str:
    try:
        return Path(file).read_text().strip() if file else ""
    except OSError as error:
        raise CommandError(f"--token-file {file}: {error.strerror}") from None


def read(url: str, ca_file: str | None = None, token: str = "") -> Report:
    """Ask one service; what it does not answer is in the report. The token goes by checked TLS alone."""
    name = SUPERNODE_NAME if ca_file else None
    headers = {"Authorization": f"Bearer {token}"} if token and ca_file and url.startswith("https:") else {}
    pools = urllib3.PoolManager(
        timeout=_TIMEOUT, retries=False, headers=headers, ca_certs=ca_file, server_hostname=name, assert_hostname=name
    )
    with pools as pool:
        try:
            health = pool.request("GET", f"{url}/healthz")
            metrics = pool.request("GET", f"{url}/metrics")
            details = pool.request("GET", f"{url}/v1/status")
            samples = _samples(metrics.data.decode()) if metrics.status == 200 else {}
            said = json.loads(details.data) if details.status == 200 else {}
        except urllib3.exceptions.HTTPError as error:
            return Report(url, error=f"does not answer ({type(error).__name__})")
        except ValueError:
            return Report(url, error="answers what no Layercast service would")
    words = f"{health.data.decode(errors='replace')}\n{metrics.headers.get(REFUSAL_HEADER, '')}".strip()[:400]
    return Report(url, health.status == 200, words, samples, said if isinstance(said, dict) else {})


def _samples(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("layercast_") and not sample.name.endswith(("_created", "_bucket")):
                labels = ",".join(f"{name}={label}" for name, label in sorted(sample.labels.items()))
                found[f"{sample.name} {labels}".strip()] = sample.value
    return found


def _table(name: str, report: Report) -> Table:
    state = report.error or ("ready" if report.ready else "not ready")
    table = Table(title=f"{name} {report.url}: {state}", title_justify="left", show_header=False)
    if report.words:
        table.add_row("health", report.words)
    for key, said in report.details.items():
        if isinstance(said, str | int | float):
            table.add_row(key, str(said))
    for key, number in report.samples.items():
        table.add_row(key.removeprefix("layercast_"), _shown(key, number))
    return table


def _shown(key: str, number: float) -> str:
    """A number as people read it: bytes with their unit."""
    if "bytes" not in key.partition(" ")[0] or number < 1024:
        return f"{number:g}"
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"
