"""Scrapes of the services: what benchmarks.harness.metrics has, under the name that tests use."""

from benchmarks.harness.metrics import Metrics, Sample, http_get, parse, scrape

__all__ = ["Metrics", "Sample", "http_get", "parse", "scrape"]
