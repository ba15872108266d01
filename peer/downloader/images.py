"""The manifests that clients of this node read lately: which layers an image has, and which come next.

Plain state and questions about it; the rule that begins a layer is in prefetch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from proto.ids import Digest  # noqa: TC001  # compiled, a dataclass looks its fields' types up
from proto.wire.messages import Source  # noqa: TC001  # the same


@dataclass(slots=True, eq=False)
class Image:
    """Its layers in the manifest's order, and how many of them, from the first, were asked for or begun."""

    source: Source
    layers: tuple[Digest, ...]
    begun: int = 0
    # Layers that brought their next one.
    spent: dict[Digest, None] = field(default_factory=dict)


class Images:
    """The latest `count_max`; of two that name the same layer the later one counts."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._images: deque[Image] = deque()
        self._of: dict[Digest, Image] = {}
        # Layers that others brought, since the start.
        self.brought_count = 0

    def __len__(self) -> int:
        return len(self._images)

    def name(self, source: Source, layers: tuple[Digest, ...]) -> None:
        """A client read this image's manifest."""
        image = Image(source, layers)
        self._images.append(image)
        for layer in layers:
            self._of[layer] = image
        if len(self._images) > self._count_max:
            oldest = self._images.popleft()
            for layer in oldest.layers:
                if self._of.get(layer) is oldest:
                    del self._of[layer]

    def asked(self, layer: Digest, source: Source) -> None:
        """A client asks for a layer: it and those before it need not be begun."""
        image = self._of.get(layer)
        if image is not None and image.source == source:
            image.begun = max(image.begun, image.layers.index(layer) + 1)

    def source_of(self, layer: Digest) -> Source | None:
        """Where the image stands whose next layer this one may still bring."""
        image = self._of.get(layer)
        return image.source if image is not None and layer not in image.spent else None

    def take_next(self, layer: Digest) -> Digest | None:
        """The layer that this one brings, which it does once: the first that was neither asked for nor begun."""
        image = self._of[layer]
        image.spent[layer] = None
        if image.begun == len(image.layers):
            return None
        image.begun += 1
        self.brought_count += 1
        return image.layers[image.begun - 1]
