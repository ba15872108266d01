"""Carries out what the jobs' machine decides: asks registries and nodes, sees how far they are, saves.

Lives on the event loop. What a node holds is what the control knows of it; that all of it is there, the node says.
It decides nothing about jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from proto.bounded_dict import BoundedDict
from proto.ids import Digest, PeerId, short_peer
from proto.runtime.logs import LogLimit
from proto.wire.messages import Keep, Preheat, Source
from supernode.control.peer_session import TEXT_MAX
from supernode.jobs import contract
from supernode.jobs.job import Job, load
from supernode.jobs.machine import Jobs
from supernode.jobs.resolution import Unresolved
from supernode.jobs.targets import Candidate, choose
from supernode.state.base import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from proto.wire.messages import PreheatEnded
    from supernode.control.node_registry import NodeRegistry
    from supernode.control.swarm_registry import SwarmRegistry
    from supernode.jobs.job import JobBlob, JobSpec
    from supernode.jobs.resolution import Image, Resolver
    from supernode.state.base import SavedJob
    from supernode.state.thread import StateThread

logger = logging.getLogger(__name__)

# Between two looks at what nodes hold.
LOOK_S: Final = 1.0
# Blobs of nodes that are looked at, or asked for, in one go: the loop is for others too.
LOOKS_MAX: Final = 5000
PREHEATS_MAX: Final = 2000
# Nodes that are told in one go what to keep, and blobs of these lists: after a restart all nodes are.
TELLS_MAX: Final = 20_000
# A node that has said nothing of any of its blobs by then does not know how.
ANSWER_S: Final = 60.0
# Blobs that nodes went away with, or never answered.
ABANDONED_MAX: Final = 10_000
# A registry tells of a push before it gives the manifest: the pauses before it is asked again.
ABSENT_PAUSES_S: Final = (0.1, 0.2, 0.4)
_SILENT: Final = "it said nothing: its release does not know preheats, or its store is stuck"
_GONE: Final = "it is not connected any more"


class JobsFull(Exception):
    """No other job is taken before some are over."""


class JobRunner:
    """start(), then close(). `on_fatal` is called once if the machine breaks. For `recovery_s` after the start no nodes
    are chosen: they are coming back.
    """

    def __init__(
        self,
        state: StateThread,
        resolver: Resolver,
        nodes: NodeRegistry,
        swarms: SwarmRegistry,
        on_fatal: Callable[[BaseException], None],
        *,
        clock: Callable[[], float] = time.time,
        recovery_s: float = 0.0,
        look_s: float = LOOK_S,
        on_ended: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._state = state
        self._resolver = resolver
        self._nodes = nodes
        self._swarms = swarms
        self._on_fatal = on_fatal
        self._clock = clock
        self._recovery_s = recovery_s
        self._nodes_back_s = 0.0
        self._look_s = look_s
        self._look_due_s = 0.0
        self._seen_unix_s = 0.0
        self._is_broken = False
        self._on_ended = on_ended
        self._machine = Jobs(random.Random())
        self._inbox: asyncio.Queue[tuple[contract.Event, asyncio.Future[Job | None] | None]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        # By peer and digest: the job's attempts that wait for it. And blobs that nodes are yet to be told of.
        self._waiting: dict[tuple[PeerId, str], dict[tuple[int, int], JobBlob]] = {}
        self._unsent: deque[tuple[PeerId, JobBlob]] = deque()
        # Of these, what the machine was told that is held; and the node's number when it was asked.
        self._moved: dict[tuple[PeerId, str], int] = {}
        self._sent_to: dict[tuple[PeerId, str], int] = {}
        # When a node was first told of something that it has not answered.
        self._asked_s: dict[PeerId, float] = {}
        # What nodes may still fetch that no job waits for: that is withdrawn once they are connected again.
        self._abandoned: BoundedDict[tuple[PeerId, str], JobBlob] = BoundedDict(ABANDONED_MAX)
        self._private: set[tuple[int, int]] = set()
        # One for each blob of each node, should all be gone at once.
        self._failures = LogLimit()
        self._looked: deque[tuple[PeerId, str]] = deque()
        # The numbers of nodes that know what they are to keep; and kept blobs that nodes are yet to be told of.
        self._kept_known_by: set[int] = set()
        self._unsent_kept: deque[tuple[int, Job, JobBlob]] = deque()

    async def start(self) -> None:
        """Go on with what was saved. Raises StateError."""
        jobs = [job for job in map(_loaded, await self._state.load_jobs()) if job is not None]
        self._machine = Jobs(random.Random(), jobs, self._clock())
        self._nodes_back_s = asyncio.get_running_loop().time() + self._recovery_s
        self._spawn(self._run())
        self._post(contract.Wakeup())

    async def close(self) -> None:
        """Nodes go on with what they were told; the jobs go on at the next start."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._is_broken:
            with contextlib.suppress(StateError):
                for saved in self._machine.close():
                    await self._state.save_job(saved)

    # --- operators and events ----------------------------------------------------------------------------------

    @property
    def jobs(self) -> list[Job]:
        """All that are known, by number."""
        return list(self._machine.jobs.values())

    @property
    def connected(self) -> list[str]:
        """The nodes that a job could be for now."""
        return [session.info.peer.hex() for session in self._nodes]

    def job(self, number: int) -> Job | None:
        """One of them."""
        return self._machine.jobs.get(number)

    async def submit(self, spec: JobSpec) -> Job:
        """Return once it is saved. Raises JobsFull and StateError."""
        if self._machine.is_full(spec):
            raise JobsFull
        job = await self._handled(contract.Submitted(spec))
        if job is None:
            raise JobsFull
        return job

    async def cancel(self, number: int) -> None:
        """Return once that is saved. Of one that is over nothing happens. Raises StateError."""
        await self._handled(contract.CancelWanted(number))

    def preheat_ended(self, peer: PeerId, ended: PreheatEnded) -> None:
        """A node answered."""
        self._asked_s.pop(peer, None)
        error = f"{ended.reason}: {ended.message}"[:TEXT_MAX] if ended.reason else ""
        self._blob_ended(peer, ended.digest, error)

    # --- the machine ------------------------------------------------------------------------------------------------

    async def _handled(self, event: contract.Event) -> Job | None:
        answer: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait((event, answer))
        return await answer

    def _post(self, event: contract.Event) -> None:
        self._inbox.put_nowait((event, None))

    async def _run(self) -> None:
        """One event after the other; what they give rise to is saved before it is carried out."""
        while True:
            event, answer = await self._next()
            before = self._machine.last_number
            commands = self._machine.handle(event, self._clock())
            trouble = None
            for command in commands:
                try:
                    await self._carry_out(command)
                except StateError as error:
                    logger.error("job_not_saved %s: look after the disk of --data-dir", error)
                    trouble = error
            if trouble is not None and isinstance(event, contract.Submitted):
                # Nobody counts on it.
                self._post(contract.CancelWanted(self._machine.last_number))
            self._tell_ended(commands)
            if answer is not None and not answer.done():
                if trouble is not None:
                    answer.set_exception(trouble)
                elif self._machine.last_number != before:
                    answer.set_result(self._machine.jobs[self._machine.last_number])
                else:
                    answer.set_result(None)

    def _tell_ended(self, commands: Iterable[contract.Command]) -> None:
        """Of those that were saved just now and are over, once each."""
        saved = dict.fromkeys(command.job.number for command in commands if isinstance(command, contract.Save))
        for number in saved:
            job = self._machine.jobs.get(number)
            if job is not None and job.is_over:
                self._on_ended(job)

    async def _next(self) -> tuple[contract.Event, asyncio.Future[Job | None] | None]:
        """What comes first: an event, or the machine's time; nodes are looked at however much comes."""
        loop = asyncio.get_running_loop()
        while True:
            # Thousands of events may wait: the loop is for others too.
            await asyncio.sleep(0)
            is_look_due = loop.time() >= self._look_due_s
            if is_look_due:
                self._look()
                self._look_due_s = loop.time() + self._look_s
            if not is_look_due and not self._inbox.empty():
                return self._inbox.get_nowait()
            due, now = self._machine.next_wakeup(), self._clock()
            is_set_back, self._seen_unix_s = now < self._seen_unix_s, now
            if due is not None and (due <= now or is_set_back):
                return contract.Wakeup(), None
            wait_s = self._look_due_s - loop.time()
            wait_s = wait_s if due is None else min(wait_s, due - self._clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s)):
                    return await self._inbox.get()

    async def _carry_out(self, command: contract.Command) -> None:
        match command:
            case contract.Save():
                await self._state.save_job(command.job)
            case contract.Forget():
                await self._state.forget_job(command.job)
            case contract.Resolve():
                self._spawn(self._resolve(command))
            case contract.Fetch():
                self._fetch(command)
            case contract.Stop():
                self._stop((command.job, command.attempt))
            case contract.KeepsChanged():
                self._kept_known_by.clear()

    # --- registries -------------------------------------------------------------------------------------------------

    async def _resolve(self, command: contract.Resolve) -> None:
        job, attempt = command.job, command.attempt
        try:
            image = await self._resolved(command.spec)
        except Unresolved as error:
            logger.warning("job_unresolved job=%d image=%s %s", job, command.spec.image, error)
            self._post(contract.ResolveFailed(job, attempt, str(error), error.lasting, error.retry_after_s))
            return
        # After a start: who was connected before it counts.
        await asyncio.sleep(self._nodes_back_s - asyncio.get_running_loop().time())
        present = self._machine.jobs.get(job)
        if present is None or not present.is_active or present.attempts != attempt:
            return
        if image.private:
            self._private.add((job, attempt))
        candidates = (Candidate(session.info.peer.hex(), session.info.zone) for session in self._nodes)
        chosen = choose(command.spec.to, job, candidates)
        logger.info("job_resolved job=%d digest=%s blobs=%d nodes=%d", job, image.digest, len(image.blobs), len(chosen))
        self._post(contract.Resolved(job, attempt, image.digest, image.blobs, chosen, image.private))

    async def _resolved(self, spec: JobSpec) -> Image:
        """Raises Unresolved."""
        for pause_s in ABSENT_PAUSES_S if spec.cause else ():
            try:
                return await self._resolver.resolve(spec)
            except Unresolved as error:
                if not error.is_absent:
                    raise
            await asyncio.sleep(pause_s)
        return await self._resolver.resolve(spec)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _fetch(self, command: contract.Fetch) -> None:
        attempt = command.job, command.attempt
        for name in command.nodes:
            peer = PeerId(bytes.fromhex(name))
            for blob in command.blobs:
                self._waiting.setdefault((peer, blob.digest), {})[attempt] = blob
                self._unsent.append((peer, blob))
        self._send_preheats()

    def _send_preheats(self) -> None:
        """To whom is connected, some in one go."""
        now = self._clock()
        for _ in range(min(PREHEATS_MAX, len(self._unsent))):
            peer, blob = self._unsent.popleft()
            session = self._nodes.session_of(peer)
            waiting = self._waiting.get((peer, blob.digest))
            if waiting is None:
                continue
            if session is None:
                self._blob_ended(peer, blob.digest, _GONE)
                continue
            if not 0.0 <= now - self._asked_s.get(peer, now) <= ANSWER_S:
                # Of what was cancelled meanwhile, or by another clock.
                del self._asked_s[peer]
            self._asked_s.setdefault(peer, now)
            self._sent_to[peer, blob.digest] = session.node
            private = any(attempt in self._private for attempt in waiting)
            session.send(_preheat(blob, private=private))

    def _look(self) -> None:
        """How far nodes are, as the control knows; and who is gone, or was not asked yet."""
        self._send_preheats()
        self._tell_kept()
        self._withdraw_abandoned()
        if not self._looked:
            self._looked.extend(self._waiting)
        for _ in range(min(LOOKS_MAX, len(self._looked))):
            peer, digest = self._looked.popleft()
            waiting = self._waiting.get((peer, digest))
            if waiting is not None:
                self._look_at(peer, digest, waiting)

    def _tell_kept(self) -> None:
        """Nodes that do not know it: what they are to keep, and that they are to have it."""
        connected = {session.node: session for session in self._nodes}
        self._kept_known_by &= connected.keys()
        left = 0 if self._unsent_kept else TELLS_MAX
        all_kept = [job for job in self.jobs if job.is_kept]
        for node in connected.keys() - self._kept_known_by:
            if left <= 0:
                break
            self._kept_known_by.add(node)
            info = connected[node].info
            candidate = [Candidate(info.peer.hex(), info.zone)]
            kept = [job for job in all_kept if choose(job.spec.to, job.number, candidate)]
            digests = dict.fromkeys(blob.digest for job in kept for blob in job.blobs)
            connected[node].send(Keep(tuple(digests)))
            left -= 1 + len(digests)
            self._unsent_kept.extend((node, job, blob) for job in kept for blob in job.blobs)
        for _ in range(min(PREHEATS_MAX, len(self._unsent_kept))):
            node, job, blob = self._unsent_kept.popleft()
            session = self._nodes.session(node)
            if session is not None and job.is_kept:
                session.send(_preheat(blob, private=job.private))

    def _withdraw_abandoned(self) -> None:
        """Nodes that are there again need not fetch what no job waits for any more."""
        back = [key for key in self._abandoned if self._nodes.session_of(key[0]) is not None]
        if not back:
            return
        needed = {blob.digest for job in self.jobs if job.is_kept or not job.is_over for blob in job.blobs}
        for peer, digest in back:
            session = self._nodes.session_of(peer)
            if (peer, digest) in self._waiting:
                del self._abandoned[peer, digest]
            elif session is not None and digest not in needed:
                session.send(_preheat(self._abandoned.pop((peer, digest)), wanted=False))

    def _look_at(self, peer: PeerId, digest: str, waiting: dict[tuple[int, int], JobBlob]) -> None:
        session = self._nodes.session_of(peer)
        if session is None:
            self._asked_s.pop(peer, None)
            self._abandoned[peer, digest] = next(iter(waiting.values()))
            self._blob_ended(peer, digest, _GONE)
            return
        if self._sent_to.get((peer, digest), session.node) != session.node:
            # In another session: what it answered between the two was not heard.
            self._sent_to[peer, digest] = session.node
            self._unsent.append((peer, next(iter(waiting.values()))))
        if Digest.parse(digest) in session.announced:
            self._asked_s.pop(peer, None)
        elif self._clock() - self._asked_s.get(peer, self._clock()) > ANSWER_S:
            self._abandoned[peer, digest] = next(iter(waiting.values()))
            self._blob_ended(peer, digest, _SILENT)
            return
        held_bytes = self._held_bytes(session.node, Digest.parse(digest))
        if held_bytes != self._moved.get((peer, digest), 0):
            self._moved[peer, digest] = held_bytes
            for job, attempt in waiting:
                self._post(contract.BlobMoved(job, attempt, peer.hex(), digest, held_bytes))

    def _held_bytes(self, node: int, digest: Digest) -> int:
        swarm = self._swarms.of(digest)
        member = None if swarm is None else swarm.members.get(node)
        return 0 if swarm is None or member is None else swarm.layout.bytes_in(member.held)

    def _blob_ended(self, peer: PeerId, digest: str, error: str) -> None:
        self._moved.pop((peer, digest), None)
        self._sent_to.pop((peer, digest), None)
        for job, attempt in self._waiting.pop((peer, digest), {}):
            if error:
                text = "job_blob_failed job=%d peer=%s digest=%s %s"
                self._failures.log(logger, logging.WARNING, text, job, short_peer(peer), digest, error)
            self._post(contract.BlobEnded(job, attempt, peer.hex(), digest, error))

    def _stop(self, attempt: tuple[int, int]) -> None:
        """Withdraw what nobody else waits for, and is not to be kept."""
        self._private.discard(attempt)
        kept = {blob.digest for job in self.jobs if job.is_kept for blob in job.blobs}
        for (peer, digest), waiting in list(self._waiting.items()):
            blob = waiting.pop(attempt, None)
            if blob is None or waiting:
                continue
            del self._waiting[peer, digest]
            self._moved.pop((peer, digest), None)
            self._sent_to.pop((peer, digest), None)
            session = self._nodes.session_of(peer)
            if session is None:
                self._abandoned[peer, digest] = blob
            elif digest not in kept:
                session.send(_preheat(blob, wanted=False))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._is_broken = True
            self._on_fatal(error)


def _preheat(blob: JobBlob, *, private: bool = False, wanted: bool = True) -> Preheat:
    source = Source(blob.upstream, blob.repository, blob.manifest)
    return Preheat(blob.digest, source, blob.size_bytes, private, wanted)


def _loaded(saved: SavedJob) -> Job | None:
    try:
        return load(saved)
    except ValueError as error:
        logger.error("job_damaged %s: it is not gone on with", error)
        return None
