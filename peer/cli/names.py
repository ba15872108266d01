"""Image names on the command line: one that makes no sense is wrong usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.cli.contract import CommandError
from proto.errors import ImageInvalid
from proto.oci.images import parse_image

if TYPE_CHECKING:
    from proto.oci.images import ImageName


def image_named(text: str) -> ImageName:
    """Raises CommandError."""
    try:
        return parse_image(text)
    except ImageInvalid as error:
        raise CommandError(str(error), 2) from error
