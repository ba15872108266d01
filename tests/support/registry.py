"""Debian's docker-registry as an origin: what benchmarks.harness.registry has, under the name that tests use."""

from benchmarks.harness.registry import PASSWORD, USER, Registry, basic_authorization, password_auth

__all__ = ["PASSWORD", "USER", "Registry", "basic_authorization", "password_auth"]
