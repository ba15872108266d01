"""`layercast pull`: an image through the mirror, every digest checked, with live progress. It sends nothing itself."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from peer.cli.layout import OciLayout
from peer.cli.mirror_client import MirrorClient
from peer.cli.names import image_named
from proto.config.settings import argument_type
from proto.config.values import parse_path, parse_url
from proto.ids import Digest
from proto.oci.images import (
    INDEX_TYPES,
    Descriptor,
    blobs_of,
    choose,
    media_type_of,
    parse_platform,
    this_platform,
)

if TYPE_CHECKING:
    import argparse

    from rich.progress import TaskID

    from proto.oci.images import ImageName, Platform

# As docker and containerd's CRI do.
PARALLEL: Final = 3
_DESCRIPTION = """\
Pull IMAGE through a Layercast mirror and check the digest of every blob. With --output the image is kept as an OCI
layout, which skopeo, podman and buildah read (oci:DIR); without it the bytes are checked and dropped, which warms
the mirror's store. Anonymous: an image that wants a login is refused.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("pull", help="pull an image through the mirror", description=_DESCRIPTION)
    parser.add_argument("image", metavar="IMAGE", help="for example alpine:3.20 or quay.io/org/name@sha256:...")
    parser.add_argument(
        "--via",
        default="http://127.0.0.1:65001",
        type=argument_type(parse_url),
        metavar="URL",
        help="the mirror [default: %(default)s]",
    )
    parser.add_argument(
        "--output", type=argument_type(parse_path), metavar="DIR", help="keep the image there as an OCI layout"
    )
    parser.add_argument(
        "--platform",
        type=argument_type(parse_platform),
        default=str(this_platform()),
        metavar="OS/ARCH",
        help="which of a multi-platform image [default: %(default)s]",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Pull; prints one line with the result. Raises CommandError."""
    image = image_named(arguments.image)
    layout = OciLayout(arguments.output) if arguments.output is not None else None
    client = MirrorClient(arguments.via, image, PARALLEL)
    started_s = time.monotonic()
    try:
        manifest, blobs = _manifest(client, image, arguments.platform, layout)
        _fetch_all(client, blobs, layout)
    finally:
        client.close()
    if layout is not None:
        layout.name(manifest, str(image.reference))
    total = sum(blob.size_bytes for blob in blobs)
    elapsed_s = time.monotonic() - started_s
    figures = f"blobs={len(blobs)} bytes={total} seconds={elapsed_s:.2f} digests=right"
    print(f"pulled {image} digest={manifest.digest} {figures}")
    return 0


def _manifest(
    client: MirrorClient, image: ImageName, platform: Platform, layout: OciLayout | None
) -> tuple[Descriptor, list[Descriptor]]:
    """The platform's manifest and the blobs it names."""
    content, content_type = client.manifest(image.reference)
    if media_type_of(content, content_type) in INDEX_TYPES:
        content, content_type = client.manifest(choose(content, platform).digest)
    blobs = [blob for blob in blobs_of(content) if not blob.foreign]
    manifest = Descriptor(media_type_of(content, content_type), Digest.of(content), len(content))
    if layout is not None:
        with layout.writing(manifest.digest) as file:
            file.write(content)
    return manifest, blobs


def _fetch_all(client: MirrorClient, blobs: list[Descriptor], layout: OciLayout | None) -> None:
    """All blobs, PARALLEL at a time; the first failure is the command's."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(PARALLEL, "pull") as threads,
    ):
        work = []
        for blob in blobs:
            task = progress.add_task(blob.digest.short, total=blob.size_bytes)
            work.append(threads.submit(_fetch, client, blob, layout, progress, task))
        done, waiting = wait(work, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in done:
            future.result()


def _fetch(client: MirrorClient, blob: Descriptor, layout: OciLayout | None, progress: Progress, task: TaskID) -> None:
    with layout.writing(blob.digest) if layout is not None else nullcontext() as file:

        def keep(chunk: bytes) -> None:
            if file is not None:
                file.write(chunk)
            progress.advance(task, len(chunk))

        client.blob(blob, keep)
