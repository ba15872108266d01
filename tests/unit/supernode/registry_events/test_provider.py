"""Harbor's preheat policies in dragonfly's two dialects."""

from __future__ import annotations

import pytest

from supernode.jobs.job import Job, JobSpec, JobState
from supernode.registry_events import provider
from supernode.registry_events.notice import EventUnreadable
from tests.support.registry_notifications import DIGEST, dragonfly_1_preheat, dragonfly_2_job

URL = "https://harbor.example.com/v2/team/app/manifests/1.0"


@pytest.mark.parametrize(
    ("scope", "to"), [("", ""), ("single_seed_peer", "1"), ("all_seed_peers", "1"), ("all_peers", "all")]
)
def test_a_job_names_image_and_scope(scope: str, to: str) -> None:
    assert provider.read_dragonfly_2(dragonfly_2_job(URL, scope)) == ("harbor.example.com/team/app", "1.0", to)


def test_an_older_harbor_names_the_image_by_its_url_too() -> None:
    body = dragonfly_1_preheat(URL, "team/app", "1.0")
    assert provider.read_dragonfly_1(body) == ("harbor.example.com/team/app", "1.0")


def test_a_manifest_may_be_named_by_its_digest() -> None:
    url = f"http://harbor.lab:8080/v2/team/app/manifests/{DIGEST}"
    repository, reference, _ = provider.read_dragonfly_2(dragonfly_2_job(url))
    assert provider.image_name(repository, reference) == f"harbor.lab:8080/team/app@{DIGEST}"
    assert provider.image_name(repository, "1.0") == "harbor.lab:8080/team/app:1.0"


@pytest.mark.parametrize(
    "url",
    [
        "", "https://harbor.example.com/team/app", "https://harbor.example.com/v2/team/app/blobs/1.0",
        "https://user:secret@harbor.example.com/v2/team/app/manifests/1.0", "https:///v2/a/manifests/1",
        "https://h.example/v2/UPPER/manifests/1", "https://h.example/v2/a/manifests/", "http://[::1/v2/a/manifests/1",
        None,
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_manifest_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(EventUnreadable, match=r"args\.url") as refused:
        provider.read_dragonfly_2(dragonfly_2_job(url))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        None, {}, {"type": "preheat"}, {"type": "sync", "args": {"type": "image"}}, dragonfly_2_job(URL, "moon"),
        dragonfly_2_job(URL, ["all_peers"]), dragonfly_2_job(URL, {"all_peers": 1}), dragonfly_2_job(URL, 7),
    ],
)  # fmt: skip
def test_another_job_is_refused(body: object) -> None:
    with pytest.raises(EventUnreadable):
        provider.read_dragonfly_2(body)
    with pytest.raises(EventUnreadable):
        provider.read_dragonfly_1({"type": "file", "url": URL})


@pytest.mark.parametrize(
    ("state", "newer", "older"),
    [
        (JobState.WAITING, "PENDING", "WAITING"),
        (JobState.RESOLVING, "PENDING", "RUNNING"),
        (JobState.RUNNING, "PENDING", "RUNNING"),
        (JobState.DONE, "SUCCESS", "SUCCESS"),
        (JobState.FAILED, "FAILURE", "FAILED"),
        (JobState.CANCELLED, "FAILURE", "FAILED"),
    ],
)
def test_every_state_has_a_word_in_both(state: JobState, newer: str, older: str) -> None:
    job = Job(7, JobSpec("app:1"), 1767323045.0, state)
    assert (provider.dragonfly_2(job)["state"], provider.dragonfly_1(job)["Status"]) == (newer, older)


def test_a_failure_says_why_and_where() -> None:
    job = Job(7, JobSpec("h.example/app:1"), 1767323045.0, JobState.FAILED, ended_unix_s=1767323049.0, error="1 of 2")
    job.failed_nodes = {"ab" * 32: "store: it is full"}
    failed = {"url": "h.example/app:1", "hostname": "ab" * 32, "ip": "", "description": "store: it is full"}
    results = [{"scheduler_cluster_id": 1, "success_tasks": [], "failure_tasks": [failed]}]
    assert provider.dragonfly_2(job) == {
        "id": 7,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:09Z",
        "state": "FAILURE",
        "result": {"job_states": [{"error": "1 of 2", "results": results}]},
    }
    assert provider.dragonfly_1(job) == {
        "ID": "7", "startTime": "2026-01-02T03:04:05Z", "finishTime": "2026-01-02T03:04:09Z", "errorMsg": "1 of 2",
        "Status": "FAILED",
    }  # fmt: skip
