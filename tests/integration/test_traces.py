"""Traces of real services, as a collector gets them: a client's GET, the leases and pieces below it, and the origin."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import Cluster
from tests.support.http_server import HttpServer, QuietHandler
from tests.support.pullers import REPOSITORY, blob_target, get

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.cluster.registry import Registry

pytestmark = pytest.mark.client("docker-registry")

SIZE_BYTES = 1 << 20
SECRET = secrets.token_hex(12)


class Collector:
    """Takes OTLP over HTTP. `bodies` are as they came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Take(QuietHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = HttpServer(Take)

    def spans(self) -> list[tuple[str, Any]]:
        """Each with the name of the service that sent it."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = next(each.value.string_value for each in resource.resource.attributes if "name" in each.key)
                found += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def named(self, name: str) -> list[tuple[str, Any]]:
        return [(service, span) for service, span in self.spans() if span.name == name]


def values(span: Any) -> dict[str, str]:
    return {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes}


def test_a_get_has_its_leases_pieces_and_the_origin_below_it_and_no_secret(registry: Registry, tmp_path: Path) -> None:
    with registry.writer() as writer:
        digest = writer.push_blob_bytes(REPOSITORY, secrets.token_bytes(SIZE_BYTES))
    collector = Collector()
    with collector.server as server:
        flags = ["--otlp-endpoint", f"http://127.0.0.1:{server.port}"]
        with Cluster(tmp_path, registry.address, supernode_flags=flags, peer_flags=flags) as cluster:
            [peer] = cluster.add_peers([None])
            cluster.wait_for_sessions(1)
            headers = {"Cookie": SECRET, "User-Agent": "containerd/1.7"}
            assert get(peer.proxy, f"{blob_target(digest)}?sig={SECRET}", headers=headers).status == 200
            wait_until(lambda: bool(collector.named("origin") and collector.named("GET")), "the spans")
        pieces, leases = collector.named("piece"), collector.named("lease")
        [(service, request)] = collector.named("GET")
        [(origin_service, origin)] = collector.named("origin")
    assert (service, origin_service) == ("layercast-peer", "layercast-supernode")
    told = values(request)
    assert (told["url.path"], told["http.response.status_code"]) == (blob_target(digest).partition("?")[0], "200")
    assert (told["layercast.bytes"], told["layercast.source"]) == (str(SIZE_BYTES), "swarm")
    assert leases
    assert {span.parent_span_id for _, span in [*leases, ("", origin)]} == {request.span_id}
    assert {span.parent_span_id for _, span in pieces} == {span.span_id for _, span in leases}
    assert {span.trace_id for _, span in collector.spans()} == {request.trace_id}
    assert sum(int(values(span)["layercast.bytes"]) for _, span in pieces) == SIZE_BYTES
    assert not any(SECRET.encode() in body for body in collector.bodies)
