"""What registries and Harbor send of a push, as they send it."""

from __future__ import annotations

from typing import Any, Final

from proto.ids import Digest

DIGEST: Final = str(Digest.of(b"manifest"))
REGISTRY: Final = "registry.example.com"


def notification(
    number: int = 1,
    *,
    action: str = "push",
    repository: str = "team/app",
    tag: str = "1.0",
    digest: str = DIGEST,
    host: str = REGISTRY,
    instance: str = "one",
) -> dict[str, Any]:
    """One event of distribution's."""
    target: dict[str, Any] = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": 708,
        "length": 708,
        "repository": repository,
        "url": f"http://{host}/v2/{repository}/manifests/{digest}",
    }
    return {
        "id": f"320678d8-ca14-430f-8bb6-{number:012}",
        "timestamp": "2026-01-02T03:04:05.6Z",
        "action": action,
        "target": {**target, **({"tag": tag} if tag else {})},
        "request": {
            "id": "6df24a34-0959-4923-81ca-14f09767db19", "addr": "10.0.0.9:41000", "host": host, "method": "PUT",
            "useragent": "docker/28",
        },
        "actor": {"name": "ci"},
        "source": {"addr": f"{host}:5000", "instanceID": instance},
    }  # fmt: skip


def envelope(*events: dict[str, Any]) -> dict[str, Any]:
    """A body of distribution's."""
    return {"events": list(events)}


def kraken_envelope(tag: str = "1.0", digest: str = DIGEST, host: str = REGISTRY) -> dict[str, Any]:
    """A body as Harbor sends it to kraken."""
    target = {
        "MediaType": "application/vnd.docker.distribution.manifest.v2+json", "Digest": digest,
        "Repository": "team/app", "Url": f"https://{host}/v2/team/app/manifests/{tag}", "Tag": tag,
    }  # fmt: skip
    event = {"Id": "7", "TimeStamp": "2026-01-02T03:04:05Z", "Action": "push", "Target": target}
    return {"Events": [{**event, "Request": None, "Actor": None}]}


def harbor_webhook(tag: str = "1.0", kind: str = "PUSH_ARTIFACT", digest: str = DIGEST) -> dict[str, Any]:
    """Harbor's own payload."""
    resource = {"digest": digest, "tag": tag, "resource_url": f"{REGISTRY}/team/app:{tag}"}
    repository = {
        "date_created": 1767322000, "name": "app", "namespace": "team", "repo_full_name": "team/app",
        "repo_type": "private",
    }  # fmt: skip
    return {
        "type": kind,
        "occur_at": 1767323045,
        "operator": "robot$ci",
        "event_data": {"resources": [resource], "repository": repository},
    }


def cloud_event(tag: str = "1.0", kind: str = "harbor.artifact.pushed") -> dict[str, Any]:
    """The same as a CloudEvent."""
    return {
        "specversion": "1.0",
        "id": "4bd27a03-b0ed-4a2f-ac1e-d83a4d0a3ea6",
        "source": "/projects/2/webhook/policies/15",
        "type": kind,
        "datacontenttype": "application/json",
        "time": "2026-01-02T03:04:05Z",
        "data": harbor_webhook(tag)["event_data"],
        "operator": "robot$ci",
    }


def dragonfly_2_job(url: str, scope: object = "") -> dict[str, Any]:
    """What Harbor 2.12 and newer posts to /oapi/v1/jobs."""
    arguments = {
        "type": "image", "url": url, "tag": "", "filtered_query_params": "",
        "headers": {"Authorization": "Bearer pull-only"}, "scope": scope, "concurrent_count": 0, "timeout": 0,
    }  # fmt: skip
    return {"type": "preheat", "args": arguments, "scheduler_cluster_ids": None}


def dragonfly_1_preheat(url: str, image: str, tag: str, digest: str = DIGEST) -> dict[str, Any]:
    """What older ones post to /preheats."""
    headers = {"Authorization": "Bearer pull-only"}
    return {"type": "image", "url": url, "headers": headers, "image": image, "tag": tag, "digest": digest}
