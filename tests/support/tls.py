"""A certificate authority for tests: what benchmarks.harness.tls has, under the name that tests use."""

from benchmarks.harness.tls import Authority, KeyPair

__all__ = ["Authority", "KeyPair"]
