"""Networks for tests: what benchmarks.harness.netns has, under the name that tests use."""

from benchmarks.harness.netns import (
    NETNS_DIR,
    ClientNamespace,
    Lab,
    Namespace,
    Node,
    ip,
    remove_namespace,
    remove_stale_labs,
)

__all__ = ["NETNS_DIR", "ClientNamespace", "Lab", "Namespace", "Node", "ip", "remove_namespace", "remove_stale_labs"]
