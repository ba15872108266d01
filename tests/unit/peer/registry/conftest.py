"""An origin for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fake_origin import FakeOrigin, fake_origin

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with fake_origin() as running:
        yield running
