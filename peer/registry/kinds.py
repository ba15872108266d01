"""The kinds of origins that are not registries: the key of an `[upstream]` section that chooses each, and its module.

The module has `check(place)`, which raises ValueError if the value of that key cannot be used, and
`open_origin(upstream, on_request)`. It is imported only if an upstream of its kind is configured.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from peer.registry.base import Origin
    from proto.oci.upstreams import UpstreamConfig

_MODULES: Final[dict[str, str]] = {
    "directory": "peer.registry.directory",
}


class OriginKind(Protocol):
    """What the module of a kind has."""

    def check(self, place: str) -> None: ...

    def open_origin(self, upstream: UpstreamConfig, on_request: Callable[[str], None]) -> Origin: ...


def kind_of(key: str) -> OriginKind:
    """The module of a kind."""
    return cast("OriginKind", importlib.import_module(_MODULES[key]))


def _check(key: str, place: str) -> None:
    kind_of(key).check(place)


# For proto.config.upstream_sections: the keys, and the check of each value.
PLACES: Final[dict[str, Callable[[str], None]]] = {key: functools.partial(_check, key) for key in _MODULES}
