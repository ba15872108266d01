"""Scrapes and reads /metrics of the services. Prometheus text in, numbers out."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.cluster.processes import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of an exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape."""

    samples: tuple[Sample, ...]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name whose labels include `labels`; 0 where there are none."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def names(self) -> set[str]:
        """The names of all samples."""
        return {sample.name for sample in self.samples}


def parse(text: str) -> Metrics:
    """Metrics from Prometheus text. Raises ValueError for anything else."""
    return Metrics(
        tuple(
            Sample(sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )
    )


def http_get(address: str, path: str, timeout_s: float = WAIT_S) -> tuple[int, bytes]:
    """GET `path` at HOST:PORT; status and body."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def scrape(address: str, timeout_s: float = WAIT_S) -> Metrics:
    """The metrics of the service whose status address is HOST:PORT."""
    status, body = http_get(address, "/metrics", timeout_s)
    if status != 200:
        raise ValueError(f"/metrics at {address} answered {status}")
    return parse(body.decode())
