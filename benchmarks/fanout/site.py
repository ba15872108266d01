"""The origin of a run: docker-registry behind the counting proxy, in the origin's place, with the images in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.fanout.content import REPOSITORY, make_image
from benchmarks.fanout.namespaces import inside
from benchmarks.harness.counting_proxy import CountingProxyProcess
from benchmarks.harness.programs import ProgramMissing
from benchmarks.harness.registry import Registry
from proto.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.fanout.world import World
    from benchmarks.origin.image import Image
    from benchmarks.origin.ledger import Ledger


class Origin:
    """A context manager. `rate_bytes_s` limits its answers where no link does."""

    def __init__(self, world: World, folder: Path, rate_bytes_s: float | None) -> None:
        self._place = world.origin
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._images = 0
        try:
            self._registry = self._stack.enter_context(
                Registry(folder / "registry", listen="127.0.0.1:0", netns=self._place.netns)
            )
            self._proxy = self._stack.enter_context(
                CountingProxyProcess(self._registry.host_port, f"{self._place.host}:0", netns=self._place.netns)
            )
        except ProgramMissing as error:
            self.close()
            raise LocalError(str(error)) from None
        except BaseException:
            self.close()
            raise
        self._proxy.set_rate(rate_bytes_s)

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop both programs."""
        self._stack.close()

    @property
    def address(self) -> str:
        """HOST:PORT of the counting proxy."""
        return self._proxy.address

    def give(self, sizes_bytes: Sequence[int], seed: int) -> Image:
        """Make an image of layers of these sizes and push it; the files are removed."""
        self._images += 1
        image = make_image(self._folder / f"image-{self._images}", sizes_bytes, seed)
        inside(self._place.netns, lambda: self._registry.push(image, REPOSITORY, f"run-{self._images}"))
        for layer in image.layers:
            layer.path.unlink(missing_ok=True)
        return image

    def forget(self) -> None:
        """Begin to count afresh."""
        self._proxy.reset()

    def ledger(self) -> Ledger:
        """What it sent since `forget`."""
        return self._proxy.ledger()


def blob_bytes(ledger: Ledger, image: Image) -> int:
    """Body bytes of the image's layers that left the origin."""
    return sum(ledger.blob_bytes(layer.digest) for layer in image.layers)


def blob_gets(ledger: Ledger, image: Image) -> int:
    """GETs of the image's layers that the origin answered with some of them."""
    return sum(ledger.gets(layer.digest) for layer in image.layers)


def repeated_bytes(ledger: Ledger, image: Image) -> int:
    """Body bytes of the image's layers that left the origin although they had left it before."""
    return sum(ledger.repeated_bytes(layer.digest) for layer in image.layers)


def first_byte_s(ledger: Ledger, image: Image) -> float | None:
    """When the first byte of any of the image's layers left the origin, monotonic; None if none did."""
    times = (ledger.first_byte_s(layer.digest) for layer in image.layers)
    return min((at_s for at_s in times if at_s is not None), default=None)


def origin_problems(ledger: Ledger, image: Image) -> list[str]:
    """A line for each layer that did not leave the origin exactly once."""
    problems = []
    for number, layer in enumerate(image.layers):
        sent, repeated = ledger.blob_bytes(layer.digest), ledger.repeated_bytes(layer.digest)
        if sent != layer.size_bytes or repeated:
            problems.append(
                f"layer {number}: the origin sent {sent} bytes of {layer.size_bytes}, {repeated} of them again"
            )
    return problems
