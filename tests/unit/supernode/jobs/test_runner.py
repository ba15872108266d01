"""Jobs of a real supernode in this process: what nodes are told, what is saved, what they hold in the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.processes import wait_until
from proto.wire.messages import Keep, Preheat, PreheatEnded, Source
from supernode.jobs.contract import BlobMoved, Wakeup
from supernode.jobs.job import Job, JobSpec, JobState, load
from supernode.jobs.runner import ANSWER_S
from supernode.state.base import StateError
from supernode.state.sqlite import SqliteState
from tests.support.image_of_fakes import REPOSITORY, image_at
from tests.unit.peer.node.nodes import running_node
from tests.unit.supernode.harness import BarePeer, running_supernode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from supernode.app import Supernode
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio
NOW = ("--recovery", "0s")


@dataclass(frozen=True)
class _Url:
    url: str


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def ended(supernode: Supernode, job: Job) -> Job:
    await until(lambda: job.is_over)
    return job


async def test_a_node_is_told_of_every_blob_and_a_job_is_done_when_it_has_them(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    image = image_at(origin, 100, 200)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        job = await supernode.jobs.submit(JobSpec(image.name))
        for _ in image.content:
            told = await peer.expect(Preheat)
            assert told.source == Source(origin.authority, REPOSITORY, told.digest == str(image.manifests[0]))
            await peer.send(PreheatEnded(told.digest))
        assert (await ended(supernode, job)).state is JobState.DONE
        assert (job.nodes_done, job.nodes_count) == (1, 1)


async def test_what_is_to_be_kept_is_told_to_who_is_there_and_to_who_comes_later(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    image = image_at(origin, 100, 200)
    digests = set(map(str, image.content))
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        async with BarePeer.connected(supernode) as peer:
            job = await supernode.jobs.submit(JobSpec(image.name, keep=True))
            while set((await peer.expect(Keep)).digests) != digests:
                pass  # that there was nothing before
            for digest in digests:
                await peer.send(PreheatEnded(digest))
            await ended(supernode, job)
        async with BarePeer.connected(supernode) as later:
            assert set((await later.expect(Keep)).digests) == digests
            assert {(await later.expect(Preheat)).digest for _ in digests} == digests
            await supernode.jobs.cancel(job.number)
            assert (await later.expect(Keep)).digests == ()


async def test_nodes_beyond_what_is_told_in_one_go_have_their_turn(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.jobs.runner.TELLS_MAX", 1)
    monkeypatch.setattr("supernode.jobs.runner.PREHEATS_MAX", 2)
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        job = await supernode.jobs.submit(JobSpec(image.name, keep=True))
        await until(lambda: job.is_kept)
        async with BarePeer.connected(supernode) as one, BarePeer.connected(supernode) as other:
            for peer in (one, other):
                assert set((await peer.expect(Keep)).digests) == set(map(str, image.content))
                assert len({(await peer.expect(Preheat)).digest for _ in image.content}) == len(image.content)


async def test_nodes_are_told_and_looked_at_however_many_answers_come(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.jobs.runner.PREHEATS_MAX", 1)
    image = image_at(origin, 100, 200)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:

        async def answer_for_ever() -> None:
            while True:
                for job in supernode.jobs.jobs:
                    blobs = [blob.digest for blob in job.blobs]
                    name = peer.identity.peer.hex()
                    supernode.jobs._post(BlobMoved(job.number, job.attempts, name, blobs[0], 0) if blobs else Wakeup())
                await asyncio.sleep(0.01)

        answering = asyncio.create_task(answer_for_ever())
        await supernode.jobs.submit(JobSpec(image.name))
        try:
            assert len({(await peer.expect(Preheat)).digest for _ in image.content}) == len(image.content)
        finally:
            answering.cancel()


async def test_others_have_the_loop_while_thousands_of_answers_wait(tmp_path: Path, origin: FakeOrigin) -> None:
    image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        for _ in range(5000):
            supernode.jobs._post(BlobMoved(1, 1, "node", "sha256:a", 0))
        for _ in range(50):
            await asyncio.sleep(0)
        assert 4000 < supernode.jobs._inbox.qsize() < 5000


async def test_what_a_node_says_of_its_failure_is_cut_short(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        job = await supernode.jobs.submit(JobSpec(image.name))
        for _ in image.content:
            await peer.send(PreheatEnded((await peer.expect(Preheat)).digest, "store", "x" * 4000))
        await until(lambda: job.state is JobState.WAITING and job.attempts == 1)
        assert len(job.error) < 400


async def test_who_is_not_meant_keeps_nothing(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        job = await supernode.jobs.submit(JobSpec(image.name, to="zone=mars", keep=True))
        await until(lambda: job.is_kept)
        async with BarePeer.connected(supernode) as peer:
            assert (await peer.expect(Keep)).digests == ()


async def test_what_a_node_cannot_have_is_tried_again_later(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        job = await supernode.jobs.submit(JobSpec(image.name))
        for _ in image.content:
            await peer.send(PreheatEnded((await peer.expect(Preheat)).digest, "store", "it is full"))
        await until(lambda: job.state is JobState.WAITING and job.attempts == 1)
        assert "store: it is full" in job.error


async def test_a_cancelled_job_is_wished_no_more(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        job = await supernode.jobs.submit(JobSpec(image.name))
        for _ in image.content:
            assert (await peer.expect(Preheat)).wanted
        await supernode.jobs.cancel(job.number)
        assert not (await peer.expect(Preheat)).wanted
        assert job.state is JobState.CANCELLED


async def test_what_is_to_be_kept_is_wished_although_another_job_of_it_is_cancelled(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        kept = await supernode.jobs.submit(JobSpec(image.name, keep=True))
        for _ in image.content:
            await peer.send(PreheatEnded((await peer.expect(Preheat)).digest))
        await ended(supernode, kept)
        other = await supernode.jobs.submit(JobSpec(image.name))
        await until(lambda: other.state is JobState.RUNNING)
        await supernode.jobs.cancel(other.number)
        await peer.heard()
        assert all(told.wanted for told in peer.of(Preheat))


async def test_a_node_that_is_gone_has_failed(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        async with BarePeer.connected(supernode) as peer:
            job = await supernode.jobs.submit(JobSpec(image.name))
            await peer.expect(Preheat)
        await until(lambda: "not connected any more" in job.error)


async def test_a_node_that_was_away_when_its_job_was_cancelled_is_told_on_its_return(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        async with BarePeer.connected(supernode) as peer:
            job = await supernode.jobs.submit(JobSpec(image.name))
            for _ in image.content:
                assert (await peer.expect(Preheat)).wanted
        await until(lambda: "connected" in job.error)
        await supernode.jobs.cancel(job.number)
        async with BarePeer.connected(supernode, peer.identity) as again:
            told = [await again.expect(Preheat) for _ in image.content]
    assert not any(each.wanted for each in told)
    assert {each.digest for each in told} == set(map(str, image.content))


async def test_a_node_that_comes_back_at_once_is_told_again(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        job = await supernode.jobs.submit(JobSpec(image.name))
        for _ in image.content:
            await peer.expect(Preheat)
        # The newer session of a node ends its older one.
        async with BarePeer.connected(supernode, peer.identity) as again:
            for _ in image.content:
                await again.send(PreheatEnded((await again.expect(Preheat)).digest))
            assert (await ended(supernode, job)).state is JobState.DONE


async def test_a_node_that_says_nothing_has_failed(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.jobs.runner.ANSWER_S", 0.0)
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode):
        job = await supernode.jobs.submit(JobSpec(image.name))
        await until(lambda: "its release does not know preheats" in job.error)


async def test_a_node_that_owed_an_answer_to_a_cancelled_job_has_its_time_for_the_next(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The others are told just before nodes are looked at.
    monkeypatch.setattr("supernode.jobs.runner.PREHEATS_MAX", 1)
    image, late_s = image_at(origin, 100, 200), [0.0]
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        monkeypatch.setattr(supernode.jobs, "_clock", lambda: time.time() + late_s[0])
        job = await supernode.jobs.submit(JobSpec(image.name))
        assert (await peer.expect(Preheat)).wanted
        await supernode.jobs.cancel(job.number)
        late_s[0] = ANSWER_S + 1.0
        again = await supernode.jobs.submit(JobSpec(image.name))
        asked_for: set[str] = set()
        while len(asked_for) < len(image.content):
            told = await peer.expect(Preheat)
            asked_for |= {told.digest} if told.wanted and again.state is JobState.RUNNING else set()
        for digest in asked_for:
            await peer.send(PreheatEnded(digest))
        assert (await ended(supernode, again)).attempts == 1


async def test_what_two_jobs_wish_is_awaited_by_the_other_when_one_is_cancelled(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        first = await supernode.jobs.submit(JobSpec(image.name))
        second = await supernode.jobs.submit(JobSpec(image.name))
        await until(lambda: first.state is second.state is JobState.RUNNING)
        await supernode.jobs.cancel(first.number)
        for digest in image.content:
            await peer.send(PreheatEnded(str(digest)))
        assert (await ended(supernode, second)).state is JobState.DONE
        assert all(told.wanted for told in peer.of(Preheat))


async def test_a_job_that_cannot_be_saved_is_none(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, __: object) -> None:
        raise StateError("disk full")

    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        with monkeypatch.context() as broken:
            broken.setattr(SqliteState, "save_job", fail)
            with pytest.raises(StateError):
                await supernode.jobs.submit(JobSpec(image.name))
            await until(lambda: all(job.is_over for job in supernode.jobs.jobs))


async def test_an_answer_that_nobody_asked_for_means_nothing(tmp_path: Path, origin: FakeOrigin) -> None:
    image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        await peer.send(PreheatEnded("nonsense"), PreheatEnded("sha256:" + "0" * 64, "store", "full"))
        await peer.heard()
        assert supernode.jobs.jobs == []


async def test_a_job_goes_on_after_a_restart(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        await supernode.jobs.submit(JobSpec(image.name))
        await peer.expect(Preheat)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        (job,) = supernode.jobs.jobs
        await until(lambda: job.state in (JobState.RUNNING, JobState.WAITING))
        assert job.spec == JobSpec(image.name)


async def test_no_node_has_failed_whose_session_ends_with_the_supernode(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_at(origin, 100)
    async with AsyncExitStack() as node, running_supernode(tmp_path, origin, *NOW) as supernode:
        # All the time, also while sessions end.
        monkeypatch.setattr(supernode.jobs, "_look_s", 0.001)
        monkeypatch.setattr(supernode.jobs, "_look_due_s", 0.0)
        peer = await node.enter_async_context(BarePeer.connected(supernode))
        job = await supernode.jobs.submit(JobSpec(image.name))
        await peer.expect(Preheat)
    assert (job.state, job.attempts, job.error) == (JobState.WAITING, 0, "")


async def test_an_attempt_that_an_end_in_order_cut_off_is_saved_as_none(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        await supernode.jobs.submit(JobSpec(image.name))
        await peer.expect(Preheat)
        # While the node is there: it did not fail.
        await supernode.jobs.close()
    with contextlib.closing(SqliteState(tmp_path / "state.sqlite")) as state:
        (saved,) = state.load_jobs()
    assert (load(saved).state, load(saved).attempts) == (JobState.WAITING, 0)


async def test_a_job_does_not_wait_for_a_clock_that_was_set_back(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supernode.jobs.machine.BACKOFF_S", 0.5)
    image, back_s = image_at(origin, 100), [0.0]
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        monkeypatch.setattr(supernode.jobs, "_clock", lambda: time.time() - back_s[0])
        job = await supernode.jobs.submit(JobSpec(image.name))
        for _ in image.content:
            await peer.send(PreheatEnded((await peer.expect(Preheat)).digest, "store", "it is full"))
        await until(lambda: job.state is JobState.WAITING or job.attempts == 2)
        back_s[0] = 10_000.0
        for _ in image.content:
            await peer.send(PreheatEnded((await peer.expect(Preheat)).digest))
        assert (await ended(supernode, job)).state is JobState.DONE


async def test_three_nodes_have_an_image_before_clients_come_and_the_origin_sends_it_once(
    tmp_path: Path, origin: FakeOrigin
) -> None:
    image = image_at(origin, 300_000, 70_000, 10)
    async with running_supernode(tmp_path / "s", origin, *NOW) as supernode, AsyncExitStack() as stack:
        url = _Url(f"http://{supernode.api_address}")
        nodes = [
            await stack.enter_async_context(running_node(tmp_path / f"n{number}", url, origin)) for number in range(3)
        ]
        await until(lambda: len(supernode.jobs.connected) == 3)
        job = await supernode.jobs.submit(JobSpec(image.name))
        assert (await ended(supernode, job)).state is JobState.DONE, job.error
        assert (job.nodes_done, job.size_bytes) == (3, sum(map(len, image.content.values())))
        came = [_received(node.metrics.text()) for node in nodes]
        assert all(came)
        asked = len(origin.blob_requests())
        for node in nodes:
            for digest, content in image.content.items():
                source = Source(origin.authority, REPOSITORY, digest in image.manifests)
                assert await node.read(digest, source) == content
        assert len(origin.blob_requests()) == asked
        assert came == [_received(node.metrics.text()) for node in nodes]


def _received(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if line.startswith(b"layercast_bytes_total") and b"store" not in line]
