"""Clusters of real processes: what benchmarks.harness.cluster has, under the name that tests use."""

from benchmarks.harness.cluster import LOOPBACK, READY_TIMEOUT_S, Cluster, Peer, Service, Supernode, script

__all__ = ["LOOPBACK", "READY_TIMEOUT_S", "Cluster", "Peer", "Service", "Supernode", "script"]
