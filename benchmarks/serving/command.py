"""`layercast-bench serving`: what a hit in a node's store costs to send, plain and through an intercepted tunnel.

Beside it, in the same run and in turn: nginx, which sends the same file by sendfile, and a bare loop of preadv and TLS.
The client is the same, reads and throws away. What counts is the time, and the CPU of the process that sends.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.cluster.helper import Helper
from benchmarks.cluster.image import make_exact_image
from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.processes import ManagedProcess, wait_until
from benchmarks.cluster.programs import clean_environment, program
from benchmarks.cluster.services import LOOPBACK, Peer
from benchmarks.flags import checked, count
from benchmarks.report import Outputs, console, machine, print_table, write_json
from benchmarks.serving.client import is_listening, read_bare_tls, read_intercepted, read_plain
from proto.config.values import parse_size
from proto.errors import LocalError
from proto.pieces import MIB

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

HELP = "a hit in the store, plain and intercepted, beside nginx's sendfile and a bare TLS loop"

_GIB: Final = 1024 * MIB
_HOST: Final = "registry.bench"
_REPOSITORY: Final = "bench/app"
_ROUNDS_MAX: Final = 100
_START_S: Final = 30.0
_NGINX: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{ access_log off; sendfile on; client_body_temp_path {folder}; proxy_temp_path {folder};
fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""
_SENDFILE_SHARE: Final = 0.5
_TLS_CPU_AT_MOST: Final = 1.25


@dataclass
class Way:
    """One kind of sender: its process, and how it is read from. Seconds and CPU-seconds of each round."""

    name: str
    pid: int
    read: Callable[[], None]
    elapsed_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def measure(self) -> None:
        began_s, began_cpu_s = time.monotonic(), _cpu_s(self.pid)
        self.read()
        self.elapsed_s.append(time.monotonic() - began_s)
        self.cpu_s.append(_cpu_s(self.pid) - began_cpu_s)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--size", default="512MiB", metavar="SIZE", help="of the blob [512MiB]")
    parser.add_argument("--rounds", metavar="N", help="of each way, in turn [5]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, keep. Raises ConfigError and LocalError."""
    size_bytes = checked("--size", arguments.size, parse_size, MIB, "at least 1MiB")
    rounds = count("--rounds", arguments.rounds, 5, 1, _ROUNDS_MAX)
    Outputs(json_path=arguments.json).check()
    with tempfile.TemporaryDirectory(prefix="layercast-serving-") as folder, _ways(Path(folder), size_bytes) as ways:
        for way in ways:
            way.read()  # into the page cache, and the store
        for number in range(rounds):
            for way in ways:
                way.measure()
            console.print(f"round {number + 1}/{rounds}")
    _print(size_bytes, ways)
    if arguments.json is not None:
        write_json(arguments.json, _figures(size_bytes, ways))
    return 0


@contextlib.contextmanager
def _ways(folder: Path, size_bytes: int) -> Iterator[list[Way]]:
    """All senders, running."""
    image = make_exact_image(folder / "layout", [size_bytes], seed=1)
    layer = image.layers[0]
    config = folder / "peer.toml"
    config.write_text(f'[upstream."{_HOST}"]\ndirectory = "{image.layout}"\n')
    target = f"/v2/{_REPOSITORY}/blobs/{layer.digest}"
    with contextlib.ExitStack() as running:
        peer = Peer(
            "peer", folder / "peer", [], LOOPBACK, LOOPBACK, ["--config", str(config), "--store-free-floor", "0"]
        )
        running.callback(peer.close)
        peer.start()
        port = int(peer.proxy.rpartition(":")[2])
        nginx, nginx_port = _nginx(running, folder, layer.path)
        loop = running.enter_context(
            Helper("benchmarks.serving.loop", _loop_words(folder, layer.path), folder / "loop.log")
        )
        said = loop.receive(_START_S)
        if said is None:
            raise LocalError("the TLS loop did not start")
        loop_port = int(str(said["port"]))
        size = layer.size_bytes
        yield [
            Way("nginx, sendfile", nginx.pid, lambda: read_plain(nginx_port, f"/{layer.path.name}", size)),
            Way("store hit, plain", peer.process.pid, lambda: read_plain(port, f"{target}?ns={_HOST}", size)),
            Way("bare loop of preadv and TLS", loop.pid, lambda: read_bare_tls(loop_port, size)),
            Way("store hit, intercepted", peer.process.pid, lambda: read_intercepted(port, _HOST, target, size)),
        ]


def _nginx(running: contextlib.ExitStack, folder: Path, file: Path) -> tuple[ManagedProcess, int]:
    port = int(running.enter_context(contextlib.closing(ReservedPort(LOOPBACK))).address.rpartition(":")[2])
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, root=file.parent))
    process = ManagedProcess(
        [program("nginx"), "-c", config, "-e", folder / "log"], env=clean_environment(), name="nginx"
    )
    running.callback(process.close)
    wait_until(lambda: is_listening(port), "nginx listens", _START_S)
    return process, port


def _loop_words(folder: Path, file: Path) -> list[str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "loop.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "loop.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return [str(file), str(folder / "loop.pem"), str(folder / "loop.key")]


def _cpu_s(pid: int) -> float:
    """User and system time of all its threads, see clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)


def _ratios(ways: list[Way]) -> list[tuple[str, float, float, bool]]:
    """What is wanted: its name, the figure, the limit, and whether it is reached."""
    nginx, plain, loop, intercepted = ways
    rate = {way.name: 1 / statistics.median(way.elapsed_s) for way in ways}
    found = [
        (f"rate of {way.name} / nginx, at least", rate[way.name] / rate[nginx.name], _SENDFILE_SHARE)
        for way in (plain, intercepted)
    ]
    lines = [(name, figure, limit, figure >= limit) for name, figure, limit in found]
    for way in (plain, intercepted):
        cpu = statistics.median(way.cpu_s) / statistics.median(loop.cpu_s)
        lines.append((f"CPU of {way.name} / the TLS loop, at most", cpu, _TLS_CPU_AT_MOST, cpu <= _TLS_CPU_AT_MOST))
    return lines


def _figures(size_bytes: int, ways: list[Way]) -> dict[str, object]:
    return {
        "benchmark": "serving",
        "machine": machine(),
        "size_bytes": size_bytes,
        "ways": [{"name": way.name, "cpu_s": way.cpu_s, "elapsed_s": way.elapsed_s} for way in ways],
        "ratios": {name: figure for name, figure, _, _ in _ratios(ways)},
    }


def _print(size_bytes: int, ways: list[Way]) -> None:
    gib = size_bytes / _GIB
    table = [
        (
            way.name,
            f"{statistics.median(way.cpu_s) / gib:.2f}",
            f"{min(way.cpu_s) / gib:.2f}",
            f"{gib / statistics.median(way.elapsed_s):.2f}",
        )
        for way in ways
    ]
    print_table(f"one blob, median of {len(ways[0].cpu_s)}", ("way", "CPU-s/GiB", "lowest", "GiB/s"), table)
    print(json.dumps(machine()))
    for name, figure, limit, reached in _ratios(ways):
        print(f"{name} {limit}: {figure:.3f} {'reached' if reached else 'NOT REACHED'}")
