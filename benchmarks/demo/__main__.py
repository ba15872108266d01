"""`make demo`: one real image, one origin, one supernode, N peers; all nodes pull at once, and the figures are checked.

It exits 0 only if every digest is right, the origin sent each blob exactly once, and nothing went around the peers.
It starts every process itself and leaves none behind.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from benchmarks.demo.origin import DemoOrigin
from benchmarks.demo.pullers import Pulled, client_name, pull
from benchmarks.demo.tables import Delivery, check, print_tables
from benchmarks.harness.cluster import Cluster, Peer
from benchmarks.harness.processes import ProcessError
from benchmarks.origin.image import Image, ImageBuildError, make_file_image
from proto.config.values import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = "demo/image"
LAYERS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    nodes: int
    size_bytes: int


def _parse(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="make demo", description="Pull one real image through several Layercast peers at once, and check it."
    )
    parser.add_argument("--nodes", default="5", metavar="N", help="peers, 1 to 50 [5]")
    parser.add_argument("--size", default="150MiB", metavar="SIZE", help="of the image, at least 1MiB [150MiB]")
    arguments = parser.parse_args(argv)
    if not arguments.nodes.isdigit() or not 1 <= int(arguments.nodes) <= 50:
        parser.error(f"NODES={arguments.nodes}: expected a whole number from 1 to 50")
    try:
        size_bytes = parse_size(arguments.size)
    except ValueError as error:
        parser.error(f"SIZE={arguments.size}: {error}")
    if size_bytes < 1 << 20:
        parser.error(f"SIZE={arguments.size}: expected at least 1MiB")
    return Options(int(arguments.nodes), size_bytes)


def main() -> int:
    """Run the demo; the exit status."""
    options = _parse(sys.argv[1:])
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options, console)
    except (ProcessError, ImageBuildError, OSError) as error:
        console.print(f"demo: {error}", style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("demo: stopped; every process it started has ended")
        return 130


def _run(options: Options, console: Console) -> int:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="layercast-demo-")))
        with console.status(f"building an image of {options.size_bytes >> 20} MiB from files of this machine"):
            image = make_file_image(directory / "image", options.size_bytes, LAYERS)
        with console.status("starting the origin registry and giving it the image"):
            origin = stack.enter_context(DemoOrigin(directory / "origin", image, REPOSITORY))
        with console.status(f"starting a supernode and {options.nodes} peers"):
            cluster = stack.enter_context(Cluster(directory / "cluster", origin.address))
            cluster.add_peers([None] * options.nodes)
            cluster.wait_for_sessions(options.nodes)
        console.print(
            f"image: {len(image.blobs)} blobs, {image.size_bytes / 1e6:.1f} MB; origin: {origin.kind}; "
            f"client: {client_name()}; {options.nodes} nodes pull at once",
            highlight=False,
        )
        pulled = _pull_everywhere(cluster.peers, image, directory / "nodes", console)
        deliveries = [
            Delivery(peer.name, result.elapsed_s, result.digests_right, {s: peer.received_bytes(s) for s in SOURCES})
            for peer, result in zip(cluster.peers, pulled, strict=True)
        ]
        ledger = origin.ledger()
    print_tables(console, image, deliveries, ledger)
    problems = check(image, deliveries, ledger)
    for problem in problems:
        console.print(f"WRONG: {problem}", style="red", highlight=False, markup=False)
    if not problems:
        console.print("every digest is right; the origin sent every blob exactly once", style="green")
    return 1 if problems else 0


SOURCES = ("peer", "seed", "origin", "passthrough")


def _pull_everywhere(peers: Sequence[Peer], image: Image, directory: Path, console: Console) -> list[Pulled]:
    """All clients at once, one thread each that waits for its program, and a bar a node while they run."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    # Threads that start a program must outlive it (it dies with them), which an executor's do.
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
        concurrent.futures.ThreadPoolExecutor(len(peers)) as pool,
    ):
        bars = [progress.add_task(peer.name, total=image.size_bytes) for peer in peers]
        finished = threading.Event()
        watcher = threading.Thread(target=_watch, args=(peers, bars, progress, finished))
        watcher.start()
        try:
            started = [pool.submit(pull, peer.proxy, REPOSITORY, directory / peer.name, image.blobs) for peer in peers]
            return [future.result() for future in started]
        finally:
            finished.set()
            watcher.join()


def _watch(peers: Sequence[Peer], bars: Sequence[int], progress: Progress, finished: threading.Event) -> None:
    last = False
    while not last:
        last = finished.wait(0.25)
        for peer, bar in zip(peers, bars, strict=True):
            with contextlib.suppress(OSError, ValueError):  # a scrape that fails shows nothing new
                progress.update(bar, completed=peer.metrics().value("layercast_client_bytes_total"))  # type: ignore[arg-type]  # rich's TaskID is an int


if __name__ == "__main__":
    raise SystemExit(main())
