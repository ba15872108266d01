"""What registries and Harbor send to a real supernode, what comes of it, and how operators look after it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest

from proto.ids import Digest
from proto.wire.messages import Preheat, PreheatEnded
from supernode.api import event_senders
from supernode.registry_events.harbor import CLOUD_EVENTS
from supernode.registry_events.notifications import MEDIA_TYPES
from supernode.state.base import StateError
from tests.support.image_of_fakes import REPOSITORY, TAG, image_at
from tests.support.registry_notifications import (
    cloud_event,
    dragonfly_1_preheat,
    dragonfly_2_job,
    envelope,
    harbor_webhook,
    kraken_envelope,
    notification,
)
from tests.unit.supernode.api.test_jobs import ask, check
from tests.unit.supernode.harness import BarePeer, running_supernode
from tests.unit.supernode.jobs.test_runner import until

if TYPE_CHECKING:
    from pathlib import Path

    from supernode.app import Supernode
    from supernode.state.base import SavedJob
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio
TOKEN: Final = "a-secret-of-registries"
PATH: Final = "/api/v1/notifications"
EVENTS: Final = "/api/v1/events"


def flags(tmp_path: Path, origin: FakeOrigin, *more: str, repository: str = REPOSITORY, scan: str = "0") -> list[str]:
    """One rule, a secret, and no scan."""
    (tmp_path / "token").write_text(TOKEN)
    file = tmp_path / "supernode.toml"
    file.write_text(
        f'event_token_file = "{tmp_path / "token"}"\ntag_scan_interval = "{scan}"\n'
        f'[preheat."apps"]\nrepositories = ["{origin.authority}/{repository}"]\ntags = ["v*"]\n'
    )
    return ["--config", str(file), "--recovery", "0s", *more]


async def send(
    supernode: Supernode,
    body: object,
    path: str = PATH,
    *,
    media_type: str = MEDIA_TYPES[0],
    token: str = TOKEN,
    method: str = "POST",
) -> tuple[int, Any]:
    """(status, what was answered)."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": media_type, **({"Authorization": token} if token else {})}
    async with aiohttp.ClientSession() as client:
        url = f"http://{supernode.api_address}{path}"
        async with client.request(method, url, data=io.BytesIO(content), headers=headers) as answer:
            if answer.content_type != "application/json":
                return answer.status, await answer.text()
            document = await answer.json()
            if path == PATH:
                check("POST", PATH, answer.status, document)
            return answer.status, document


def pushed(origin: FakeOrigin, number: int = 1, tag: str = TAG, digest: str = "") -> dict[str, Any]:
    """A body of distribution's, of the image that the origin has."""
    known = digest or str(Digest.of(b"manifest"))
    return envelope(notification(number, repository=REPOSITORY, tag=tag, digest=known, host=origin.authority))


async def served(peer: BarePeer, count: int) -> None:
    """The node has all of an image at once."""
    for _ in range(count):
        await peer.send(PreheatEnded((await peer.expect(Preheat)).digest))


@pytest.mark.parametrize("media_type", [*MEDIA_TYPES, "application/json"])
async def test_a_pushed_tag_that_a_rule_means_comes_to_nodes(
    tmp_path: Path, origin: FakeOrigin, media_type: str
) -> None:
    image = image_at(origin, 100)
    async with (
        running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        status, answer = await send(supernode, pushed(origin), media_type=media_type)
        assert (status, answer["queued"]) == (202, 1)
        await served(peer, len(image.content))
        await until(lambda: supernode.events.processing.queue.counts() == {"waiting": 0, "working": 0, "dead": 0})
        (job,) = supernode.jobs.jobs
        assert (job.spec.image, job.spec.cause, job.state) == (image.name, "event 1", "done")
        assert supernode.metrics.events_received.labels("done")._value.get() == 1


@pytest.mark.parametrize(
    ("body", "media_type"), [(harbor_webhook("v1"), "application/json"), (cloud_event("v1"), CLOUD_EVENTS)]
)
async def test_harbor_tells_of_a_push_in_two_forms_and_the_endpoint_says_how_it_is_called(
    tmp_path: Path, origin: FakeOrigin, body: object, media_type: str
) -> None:
    more = flags(tmp_path, origin, repository="team/app")
    async with running_supernode(tmp_path / "s", origin, *more) as supernode:
        path = f"{PATH}?registry={origin.authority}"
        assert (await send(supernode, body, path, media_type=media_type))[1]["queued"] == 1
        assert (await send(supernode, body, path, media_type=media_type))[1]["repeated"] == 1
        assert (await send(supernode, body, media_type=media_type))[1]["unmatched"] == 1


async def test_what_is_told_again_or_says_nothing_new_is_done_once(tmp_path: Path, origin: FakeOrigin) -> None:
    image_at(origin, 100)
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        bodies = [
            pushed(origin, 1),
            pushed(origin, 1),
            pushed(origin, 2),
            pushed(origin, 3, digest=str(Digest.of(b"x"))),
        ]
        answers = [(await send(supernode, body))[1] for body in bodies]
        assert [answer["queued"] for answer in answers] == [1, 0, 0, 1]


async def test_one_job_that_has_not_begun_does_for_all_events_of_its_tag(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.jobs.machine.ACTIVE_MAX", 0)
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        digests = [str(Digest.of(bytes([number]))) for number in range(20)]
        events = [pushed(origin, number, digest=digest)["events"][0] for number, digest in enumerate(digests)]
        assert (await send(supernode, envelope(*events)))[1]["queued"] == 20
        await until(lambda: not supernode.events.processing.queue.waiting)
        assert [job.spec.cause for job in supernode.jobs.jobs] == ["event 1"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"5", b"x" * (event_senders.BODY_BYTES_MAX + 1)])
async def test_what_makes_no_sense_is_taken_and_dropped(tmp_path: Path, origin: FakeOrigin, body: bytes) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        assert await send(supernode, body) == (202, {"queued": 0, "repeated": 0, "unmatched": 0, "unreadable": 1})


async def test_what_no_rule_means_is_not_kept(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        assert (await send(supernode, pushed(origin, tag="test")))[1]["unmatched"] == 1
        assert (await ask(supernode, "GET", EVENTS))[1]["events"] == []


async def test_nobody_sends_without_the_secret_or_where_there_is_none(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        for path in (PATH, "/registry/notifications", "/oapi/v1/jobs", "/preheats"):
            assert (await send(supernode, pushed(origin), path, token=""))[0] == 401
            assert (await send(supernode, pushed(origin), path, token="Bearer another"))[0] == 401
    async with running_supernode(tmp_path / "none", origin) as supernode:
        status, said = await send(supernode, pushed(origin))
        assert (status, "event_token_file" in said) == (404, True)


async def test_a_stranger_with_the_secret_sends_events_and_sees_nothing_else(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.api.access._is_local", lambda request: False)
    more = flags(tmp_path, origin, "--open", "false")
    async with running_supernode(tmp_path / "s", origin, *more) as supernode:
        assert (await send(supernode, pushed(origin)))[0] == 202
        assert (await send(supernode, dragonfly_2_job("x"), "/oapi/v1/jobs"))[0] == 400
        assert (await send(supernode, b"", "/oapi/v1/jobs/1", method="GET"))[0] == 404
        for path in (EVENTS, "/api/v1/jobs"):
            assert (await send(supernode, b"", path, method="GET"))[0] == 403


async def test_a_full_queue_and_a_full_disk_are_told_to_come_again(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        monkeypatch.setattr("supernode.registry_events.queue.WAITING_MAX", 0)
        status, answer = await send(supernode, pushed(origin))
        assert (status, "too many" in answer["error"]) == (503, True)
        monkeypatch.setattr("supernode.registry_events.queue.WAITING_MAX", 10)

        def fail(events: object) -> list[int]:
            raise StateError("no room")

        monkeypatch.setattr(supernode._state._state, "add_events", fail)
        assert (await send(supernode, pushed(origin)))[0] == 503


async def test_a_dead_event_says_why_and_is_tried_again_or_dropped(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        queue = supernode.events.processing.queue
        # The origin has no such tag, and is asked four times.
        await send(supernode, pushed(origin))
        await until(lambda: bool(queue.dead))
        assert sum(asked.target.endswith(f"/manifests/{TAG}") for asked in origin.asked) == 4
        found = (await ask(supernode, "GET", EVENTS))[1]
        assert [(event["number"], event["state"], event["job"]) for event in found["events"]] == [(1, "dead", 1)]
        assert "404" in found["events"][0]["error"]
        assert (await ask(supernode, "POST", f"{EVENTS}/again", {"numbers": [9]}))[1] == {"changed": 0}
        image_at(origin, 100)
        async with BarePeer.connected(supernode) as peer:
            assert (await ask(supernode, "POST", f"{EVENTS}/again", {}))[1] == {"changed": 1}
            await served(peer, 3)
            await until(lambda: queue.counts() == {"waiting": 0, "working": 0, "dead": 0})
        assert [job.state for job in supernode.jobs.jobs] == ["failed", "done"]
        await send(supernode, pushed(origin, 2, "v404"))
        await until(lambda: bool(queue.dead))
        assert (await ask(supernode, "POST", f"{EVENTS}/drop", {"numbers": [queue.dead[0].number]}))[1] == {
            "changed": 1
        }
        assert (await ask(supernode, "GET", EVENTS))[1]["events"] == []


async def test_an_event_whose_job_was_not_saved_has_another(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_at(origin, 100)
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        save, failures = supernode._state.save_job, [StateError("no room")]

        async def save_job(job: SavedJob) -> None:
            if failures:
                raise failures.pop()
            await save(job)

        monkeypatch.setattr(supernode._state, "save_job", save_job)
        async with BarePeer.connected(supernode) as peer:
            await send(supernode, pushed(origin))
            await served(peer, 3)
            await until(lambda: not supernode.events.processing.queue.working)
        assert [job.state for job in supernode.jobs.jobs] == ["cancelled", "done"]


@pytest.mark.parametrize("body", [{"numbers": 5}, {"numbers": ["1"]}, {"all": True}, []])
async def test_a_change_that_makes_no_sense_is_refused(tmp_path: Path, origin: FakeOrigin, body: object) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        for name in ("again", "drop"):
            assert (await ask(supernode, "POST", f"{EVENTS}/{name}", body))[0] == 400
        assert (await ask(supernode, "POST", f"{EVENTS}/scan", {}, content_type="text/plain"))[0] == 415


async def test_events_outlive_a_restart_and_are_done_once(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    more = flags(tmp_path, origin)
    async with running_supernode(tmp_path / "s", origin, *more) as supernode:
        await send(supernode, pushed(origin))
    async with running_supernode(tmp_path / "s", origin, *more) as supernode, BarePeer.connected(supernode) as peer:
        assert (await send(supernode, pushed(origin)))[1]["repeated"] == 1
        await until(lambda: bool(supernode.jobs.jobs))
        # Without a node the first attempt may have failed: the next is not awaited here.
        (job,) = supernode.jobs.jobs
        assert job.spec == type(job.spec)(image.name, cause="event 1")
        assert peer is not None


# --- Harbor's preheat policies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthy", "/_ping", "/health"])
async def test_harbor_finds_it_healthy(tmp_path: Path, origin: FakeOrigin, path: str) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        assert (await send(supernode, b"", path, method="GET", token=""))[0] == 200


@pytest.mark.parametrize("dialect", ["2", "1"])
async def test_a_policy_has_an_image_at_nodes_and_polls_until_it_is_there(
    tmp_path: Path, origin: FakeOrigin, dialect: str
) -> None:
    image = image_at(origin, 100)
    url = f"http://{origin.authority}/v2/{REPOSITORY}/manifests/{TAG}"
    path = "/oapi/v1/jobs" if dialect == "2" else "/preheats"
    body = dragonfly_2_job(url, "all_peers") if dialect == "2" else dragonfly_1_preheat(url, REPOSITORY, TAG)
    states = ("PENDING", "SUCCESS") if dialect == "2" else ("RUNNING", "SUCCESS")
    key = "state" if dialect == "2" else "Status"
    async with (
        running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode,
        BarePeer.connected(supernode) as peer,
    ):
        status, made = await send(supernode, body, path, token=f"Bearer {TOKEN}")
        assert (status, made["id" if dialect == "2" else "ID"]) == (200, 1 if dialect == "2" else "1")
        first = await peer.expect(Preheat)
        polled = f"{path}/1"
        assert (await send(supernode, b"", polled, method="GET"))[1][key] == states[0]
        await peer.send(PreheatEnded(first.digest))
        await served(peer, len(image.content) - 1)
        (job,) = supernode.jobs.jobs
        await until(lambda: job.is_over)
        assert (await send(supernode, b"", polled, method="GET"))[1][key] == states[1]
        # What Harbor sent as the registry's token is for nobody.
        assert not any("pull-only" in str(asked.headers) for asked in origin.asked)
        assert b"pull-only" not in b"".join(file.read_bytes() for file in (tmp_path / "s").glob("state.sqlite*"))


async def test_a_policy_sees_its_own_jobs_alone_and_what_is_refused_says_why(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        await ask(supernode, "POST", body={"image": f"{origin.authority}/org/app:v1"})
        for number in ("1", "7", "x"):
            assert (await send(supernode, b"", f"/oapi/v1/jobs/{number}", method="GET"))[0] == 404
        foreign = dragonfly_2_job("https://other.example/v2/a/manifests/1")
        status, answer = await send(supernode, foreign, "/oapi/v1/jobs")
        assert (status, "--allow-upstream" in answer["message"]) == (403, True)
        assert (await send(supernode, b"{", "/preheats"))[0] == 400


async def test_policies_leave_room_for_the_jobs_of_others(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.registry_events.provider.OPEN_MAX", 2)
    image = image_at(origin, 100)
    job = dragonfly_2_job(f"http://{origin.authority}/v2/{REPOSITORY}/manifests/{TAG}")
    async with running_supernode(tmp_path / "s", origin, *flags(tmp_path, origin)) as supernode:
        # No node is there: they wait.
        assert [(await send(supernode, job, "/oapi/v1/jobs"))[0] for _ in range(3)] == [200, 200, 429]
        assert (await ask(supernode, "POST", body={"image": image.name}))[0] == 201


async def test_a_policy_in_krakens_dialect_needs_no_rule_and_no_secret_where_its_network_is_named(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    more = flags(tmp_path, origin, "--event-senders", "127.0.0.0/8", repository="other")
    async with running_supernode(tmp_path / "s", origin, *more) as supernode:
        body = kraken_envelope(tag="v9", host=origin.authority)
        status, answer = await send(supernode, body, "/registry/notifications", token="")
        assert (status, answer["queued"]) == (202, 1)
        await until(lambda: bool(supernode.jobs.jobs))
        assert supernode.jobs.jobs[0].spec.image == f"{origin.authority}/team/app:v9"
        # A web page that somebody there looks at can send this alone.
        page = {"media_type": "text/plain", "token": ""}
        assert (await send(supernode, body, "/registry/notifications", **page))[0] == 415
        foreign = kraken_envelope(host="other.example")
        assert (await send(supernode, foreign, "/registry/notifications"))[1]["unmatched"] == 1
