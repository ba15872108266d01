"""What both releases of CNCF distribution really send of a push is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.registry import Registry
from supernode.api.notifications import read
from supernode.registry_events.notice import Notice
from supernode.registry_events.notifications import MEDIA_TYPES, instances_of
from tests.support.built_programs import DISTRIBUTION_3, built
from tests.support.http_server import HttpServer, QuietHandler

if TYPE_CHECKING:
    from pathlib import Path


class _Receiver(QuietHandler):
    sent: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sent.append((self.headers["Content-Type"], body))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()


@pytest.mark.client("docker-registry")
@pytest.mark.parametrize("release", [2, 3])
def test_a_push_is_read_by_its_tag_with_its_digest(tmp_path: Path, release: int) -> None:
    executable = built(DISTRIBUTION_3) if release == 3 else None
    sent: list[tuple[str, Any]] = []
    handler = type("Receiver", (_Receiver,), {"sent": sent})
    with HttpServer(handler) as server, Registry(tmp_path / "registry", executable=executable) as registry:
        registry.stop()
        url = f"http://127.0.0.1:{server.port}/"
        registry.endpoints = [{"name": "us", "url": url, "timeout": "60s", "threshold": 5, "backoff": "200ms"}]
        registry.start()
        (tmp_path / "image").mkdir()
        digest = registry.push(make_random_image(tmp_path / "image", (2000,), seed=1), "team/app", "v1")

        def told() -> list[Notice]:
            return [notice for media_type, body in list(sent) for notice in read(media_type, body, "").found]

        wait_until(lambda: bool(told()), "the registry tells of the tag")
        (notice,) = told()
        assert notice == Notice(notice.key, f"{registry.address}/team/app", "v1", digest)
        assert {media_type for media_type, _ in sent} == {MEDIA_TYPES[release - 2]}
        assert len({name for _, body in sent for name in instances_of(body)}) == 1
