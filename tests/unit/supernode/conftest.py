"""What many tests of the supernode need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fake_origin import fake_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_origin import FakeOrigin


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    """A registry that answers as it is told."""
    with fake_origin() as running:
        yield running
