"""`make demo`: one real image, one origin, one supernode, N peers; all nodes pull at once, and the figures are checked.

It exits 0 only if every digest is right, the origin sent each blob exactly once, and nothing went around the peers.
It starts every process itself and leaves none behind. The client is skopeo where it is, else `layercast pull`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import hashlib
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from benchmarks.cluster.image import Image, ImageBuildError, make_file_image
from benchmarks.cluster.origin import CountedOrigin
from benchmarks.cluster.processes import ProcessError, run
from benchmarks.cluster.programs import ProgramMissing, clean_environment, find_program
from benchmarks.cluster.services import Cluster, Peer, script
from benchmarks.flags import checked, count
from benchmarks.report import console, print_table
from proto.config.values import parse_size
from proto.errors import LayercastError
from proto.pieces import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.cluster.ledger import Ledger

_REPOSITORY: Final = "demo/image"
_LAYERS: Final = 5
_NODES_MAX: Final = 50
_SOURCES: Final = ("peer", "seed", "origin", "passthrough")
_PULL_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one node did: seconds, blobs that its client has with the right digest, payload bytes by source."""

    name: str
    elapsed_s: float
    digests_right: int
    bytes_by_source: Mapping[str, int]


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(
        prog="make demo", description="Pull one real image through several Layercast peers at once, and check it."
    )
    parser.add_argument("--nodes", default="5", metavar="N", help="peers, 1 to 50 [5]")
    parser.add_argument("--size", default="150MiB", metavar="SIZE", help="of the image, at least 1MiB [150MiB]")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        nodes = count("NODES", arguments.nodes, 5, 1, _NODES_MAX)
        return _run(nodes, checked("SIZE", arguments.size, parse_size, MIB, "at least 1MiB"))
    except (LayercastError, ProgramMissing, ProcessError, ImageBuildError, OSError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("demo: stopped; every process it started has ended")
        return 130


def _run(nodes: int, size_bytes: int) -> int:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="layercast-demo-")))
        with console.status(f"building an image of {size_bytes >> 20} MiB from files of this machine"):
            image = make_file_image(directory / "image", size_bytes, _LAYERS)
        with console.status("starting the origin registry and giving it the image"):
            origin = stack.enter_context(CountedOrigin(directory / "origin"))
            origin.push(image, _REPOSITORY)
        with console.status(f"starting a supernode and {nodes} peers"):
            cluster = stack.enter_context(Cluster(directory / "cluster", origin.address))
            cluster.add_peers([None] * nodes)
            cluster.wait_for_sessions(nodes)
        print(
            f"image: {len(image.blobs)} blobs, {image.size_bytes / 1e6:.1f} MB; origin: docker-registry; "
            f"client: {'skopeo' if find_program('skopeo') else 'layercast pull'}; {nodes} nodes pull at once"
        )
        deliveries = _pull_everywhere(cluster.peers, image, directory / "nodes")
        ledger = origin.ledger()
    _print_tables(image, deliveries, ledger)
    problems = check(image, deliveries, ledger)
    for problem in problems:
        console.print(f"WRONG: {problem}", style="red", markup=False)
    if not problems:
        console.print("every digest is right; the origin sent every blob exactly once", style="green")
    return 1 if problems else 0


def _pull_everywhere(peers: Sequence[Peer], image: Image, directory: Path) -> list[Delivery]:
    """All clients at once, one thread each that waits for its program, and a bar a node while they run."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    # Threads that start a program must outlive it (it dies with them), which an executor's do.
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
        concurrent.futures.ThreadPoolExecutor(len(peers)) as pool,
    ):
        finished = threading.Event()
        watcher = threading.Thread(target=_watch, args=(peers, image.size_bytes, progress, finished))
        watcher.start()
        try:
            started = [pool.submit(_pull, peer, directory / peer.name, image) for peer in peers]
            return [future.result() for future in started]
        finally:
            finished.set()
            watcher.join()


def _watch(peers: Sequence[Peer], size_bytes: int, progress: Progress, finished: threading.Event) -> None:
    bars = {peer.name: progress.add_task(peer.name, total=size_bytes) for peer in peers}
    last = False
    while not last:
        last = finished.wait(0.25)
        for peer in peers:
            with contextlib.suppress(OSError, ValueError):  # a scrape that fails shows nothing new
                received = peer.metrics().value("layercast_client_bytes_total")
                progress.update(bars[peer.name], completed=received)


def _pull(peer: Peer, directory: Path, image: Image) -> Delivery:
    """Pull the image through one peer's mirror, and look what the client has on disk. Raises ProcessError."""
    directory.mkdir(parents=True)
    target = directory / "image"
    skopeo = find_program("skopeo")
    words: list[str | Path]
    if skopeo is None:
        words = [script("layercast"), "pull", f"{_REPOSITORY}:latest", "--via", peer.proxy_url, "--output", target]
        blobs = target / "blobs" / "sha256"
    else:
        policy = directory / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        # `dir:` keeps every blob as it came, compressed, under its digest's hex.
        words = [skopeo, "--policy", policy, "--tmpdir", directory, "copy", "--quiet", "--src-tls-verify=false"]
        words += [f"docker://{peer.proxy}/{_REPOSITORY}:latest", f"dir:{target}"]
        blobs = target
    started_s = time.monotonic()
    run(words, env=clean_environment(HOME=str(directory)), timeout_s=_PULL_TIMEOUT_S)
    elapsed_s = time.monotonic() - started_s
    right = sum(_sha256(blobs / blob.digest.partition(":")[2]) == blob.digest for blob in image.blobs)
    return Delivery(peer.name, elapsed_s, right, {source: peer.received_bytes(source) for source in _SOURCES})


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _print_tables(image: Image, deliveries: Sequence[Delivery], ledger: Ledger) -> None:
    """A row a node and a row a blob."""
    columns = ("node", "seconds", "MB from seed", "MB from peers", "MB around the swarm", "digests checked")
    rows = []
    for node in deliveries:
        received = node.bytes_by_source
        around = received["origin"] + received["passthrough"]
        megabytes = (f"{size_bytes / 1e6:.1f}" for size_bytes in (received["seed"], received["peer"], around))
        rows.append((node.name, f"{node.elapsed_s:.2f}", *megabytes, f"{node.digests_right}/{len(image.blobs)}"))
    print_table("nodes", columns, rows)
    rows = [
        (
            blob.digest[:19],
            f"{blob.size_bytes:,}",
            str(ledger.gets(blob.digest)),
            str(len(ledger.intervals(blob.digest))),
            f"{ledger.blob_bytes(blob.digest) / blob.size_bytes:.3f}",
        )
        for blob in image.blobs
    ]
    left = sum(ledger.blob_bytes(blob.digest) for blob in image.blobs)
    rows.append(("all blobs", f"{image.size_bytes:,}", "", "", f"{left / image.size_bytes:.3f}"))
    print_table("origin", ("blob", "bytes", "GETs", "ranges", "bytes sent / size"), rows)
    reached = len(deliveries) * image.size_bytes
    print(
        f"{reached / 1e6:.1f} MB reached the nodes, {left / 1e6:.1f} MB left the origin "
        f"({100 * (1 - left / reached):.1f} % less than without Layercast)"
    )


def check(image: Image, deliveries: Sequence[Delivery], ledger: Ledger) -> list[str]:
    """What is wrong, one line each; empty when all is as promised."""
    problems = []
    for node in deliveries:
        if node.digests_right != len(image.blobs):
            problems.append(f"{node.name}: {node.digests_right} of {len(image.blobs)} digests are right")
        received = sum(node.bytes_by_source.values())
        if received != image.pulled_bytes:
            problems.append(f"{node.name}: received {received} bytes for an image of {image.pulled_bytes}")
    for blob in image.blobs:
        if ledger.repeated_bytes(blob.digest):
            problems.append(f"{blob.digest[:19]}: the origin sent {ledger.repeated_bytes(blob.digest)} bytes twice")
        if ledger.distinct_bytes(blob.digest) != blob.size_bytes:
            problems.append(f"{blob.digest[:19]}: the origin sent {ledger.distinct_bytes(blob.digest)} bytes of it")
    return problems


if __name__ == "__main__":
    sys.exit(main())
