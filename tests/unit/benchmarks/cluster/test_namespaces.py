"""Work in a namespace."""

from __future__ import annotations

from benchmarks.cluster.namespaces import inside


def test_work_inside_no_namespace_is_done_right_here() -> None:
    assert inside(None, lambda: 7) == 7
