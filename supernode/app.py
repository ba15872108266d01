"""The composition root: makes every part of the supernode, starts it, reloads it, and ends it in order.

No behaviour of its own beyond that order. Created on a running event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import platform
import secrets
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from peer.registry.origins import Origins
from peer.registry.range_reader import ReadSettings
from peer.store import upkeep
from peer.transport.cancellation import Cancellation
from peer.transport.client import HttpTransport
from peer.transport.member_tls import MemberTls
from peer.transport.server import UploadServer
from proto import VERSION
from proto.config.settings import reloaded
from proto.errors import ConfigError, RemoteError
from proto.ids import peer_name, short_peer
from proto.runtime import resources
from proto.runtime.driver import Driver
from proto.runtime.http_api import Health, add_routes
from proto.runtime.http_server import QuietRunner
from proto.runtime.service import close_in_time
from proto.runtime.trace_export import open_traces
from proto.wire.handshake import TORRENT
from proto.wire.join import REQUEST_BYTES_MAX
from proto.wire.tickets import Identity
from supernode.api.access import Access
from supernode.api.events import events_summary, rule_rows
from supernode.api.jobs import job_row
from supernode.api.listener import HEAD_LINE_BYTES_MAX, KEEPALIVE_S, Listener
from supernode.api.parts import ApiParts
from supernode.api.routes import CHANGES, REMOVALS, ROUTES
from supernode.api.sessions import SessionServer
from supernode.console import pages
from supernode.console.feed import Feed
from supernode.console.logins import Logins
from supernode.console.parts import Console
from supernode.console.snapshot import Snapshots, View
from supernode.control.announcements import Announcements, Policy
from supernode.control.control import Control
from supernode.control.delivery import PieceDelivery
from supernode.control.ports import ControlPorts
from supernode.credentials import OperatorLogins
from supernode.event_log.format import Header, SchedulerParameters
from supernode.event_log.writer import EventLogWriter, RecordedScheduler
from supernode.jobs.resolution import Resolver
from supernode.jobs.runner import JobRunner
from supernode.membership.admission import revoked_text
from supernode.membership.members import Members
from supernode.metrics import Metrics
from supernode.origin.private_access import PrivateAccess
from supernode.origin.public_access import PublicAccess
from supernode.origin.sources import OriginFetcher
from supernode.registry_events.service import RegistryEvents
from supernode.scheduler import build as scheduler_build
from supernode.scheduler.contract import Pace, PreheatRateSet, Wakeup
from supernode.scheduler.settings import SchedulerSettings
from supernode.seed import Seed
from supernode.seed_address import LOOK_UP_EVERY_S, SeedAddress
from supernode.session.session import Limits, Terms
from supernode.signer import IdentitySigner
from supernode.state.sqlite import SqliteState
from supernode.state.thread import StateThread

if TYPE_CHECKING:
    from peer.store.disk import DiskStore
    from proto.errors import UpstreamError
    from proto.ids import Digest, PeerId
    from proto.machine import Machine
    from proto.wire.messages import Source
    from supernode.config import SupernodeConfig
    from supernode.scheduler.contract import Command, Event

logger = logging.getLogger(__name__)

# Peers of a whole cluster reconnect at once after a restart.
LISTEN_BACKLOG: Final = 4096
UPLOAD_CONNECTIONS_MAX: Final = 4096
# The assumed rate of the uplink while none is configured: 1 Gbit/s.
UPLINK_ASSUMED_BYTES_S: Final = 125_000_000
# At the console; all are at /api/v1/jobs.
JOBS_SHOWN: Final = 50
# Of each state; all that are listed anywhere are at /api/v1/events.
EVENTS_SHOWN: Final = 30
RULES_SHOWN: Final = 50
SESSIONS_END_S: Final = 1.5
# How late a rate's window may begin.
RATES_LOOK_S: Final = 1.0
# For so much of its time an origin's word is told to nodes, so that some of it is left for the way there.
KNOWN_SHARE: Final = 0.9
# SQLite and sockets of origins, uploads and files beside the sessions.
DESCRIPTORS_BESIDE_SESSIONS: Final = 8192


class Supernode:
    """One supernode. start(), then stop() in every case. `failed` is done when it cannot go on."""

    def __init__(self, config: SupernodeConfig) -> None:
        self.config = config
        self.limits = Limits(
            sessions_max=config.sessions_max,
            ping_interval_s=config.ping_interval_s,
            advertise_allow=config.advertise_allow,
        )
        self.health = Health()
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None
        self._watching: asyncio.Task[None] | None = None
        # None with --open.
        self.members: Members | None = None
        # What was made, to be closed in the opposite order, in a thread.
        self._closing = contextlib.ExitStack()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looking_up: asyncio.Task[None] | None = None
        # Of uploads, of each origin, of each node's preheats now, bytes/s.
        self._rates = (config.upload_rate.now(), 0, 0)
        self._following_rates: asyncio.Task[None] | None = None
        self.metrics = Metrics()
        self.api_address = ""
        self.upload_address = ""
        self._started_s = time.monotonic()
        # Nodes of an earlier process ask for pieces as soon as the port is open.
        self._is_begun = False

    def open(self) -> None:
        """Blocking: take the data folder, open store, state and both ports. Raises ConfigError."""
        config, closing = self.config, self._closing
        closing.callback(os.close, resources.take_folder(config.data_dir))
        self._identity = Identity.load_or_create(config.data_dir / "identity.key")
        self._signer = IdentitySigner(self._identity)
        self._member_tls = MemberTls()
        if config.open:
            logger.warning("membership_open: whoever reaches --listen may join and read; for trials alone")
        else:
            members = Members(config.data_dir, self._identity, self._member_tls.use)
            members.open()
            closing.callback(members.close)
            self.members = members
        state = SqliteState(config.data_dir / "state.sqlite")
        self._epoch = state.next_epoch()
        self._state = StateThread(state)
        closing.callback(self._state.close)
        self._socket = resources.listen("--listen", config.listen, LISTEN_BACKLOG)
        closing.callback(self._socket.close)
        self._store = upkeep.open_store(config.data_dir, config)
        closing.callback(self._store.close)
        self._upload = UploadServer(
            config.upload_listen,
            self._store,
            self._upload_key,
            peer_name(self._signer.peer),
            slots=config.upload_slots,
            rate_limit_bytes_s=config.upload_rate.now(),
            connections_max=UPLOAD_CONNECTIONS_MAX,
            sign_hash=self._signer.sign_held,
            tls=self._member_tls,
            encrypted_alone=self._is_encrypted,
        )
        self._upload.enabled = config.p2p
        closing.callback(self._upload.close)
        self.upload_address = self._upload.address
        self._seed_address = SeedAddress(config.advertise, self.upload_address)
        self._seed_address.look_up()
        self._delivery = _open_delivery(config, self._store, self._identity)
        closing.callback(self._delivery.close)
        self.api_address = resources.bound_address(self._socket)
        resources.raise_descriptor_limit(config.sessions_max + DESCRIPTORS_BESIDE_SESSIONS)
        # Last: a start that fails leaves the log of an earlier one where it is.
        self._scheduler = self._open_scheduler()

    def _open_scheduler(self) -> Machine[Event, Command]:
        """The scheduler, recorded if that is wanted. Raises ConfigError."""
        config = self.config
        parameters = SchedulerParameters(
            seed=secrets.randbits(64),
            epoch=self._epoch,
            settings=SchedulerSettings()
            if self._delivery.leases_pieces
            else SchedulerSettings(downloads_per_node_max=0),
            seed_upload_slots=config.upload_slots,
            seed_upload_rate_bytes_s=float(config.upload_rate.told_bytes_s) or None,
        )
        scheduler = self._machine = parameters.build()
        if config.event_log is None:
            return scheduler
        header = Header(parameters, VERSION, platform.python_version(), time.time())
        log = EventLogWriter(config.event_log, header, size_limit_bytes=config.event_log_size_bytes)
        self._closing.callback(log.close)
        return RecordedScheduler(scheduler, log)

    async def start(self) -> str:
        """Serve; returns the words of the ready line. open() must have been called."""
        config = self.config
        self._policy = Policy(config.upstreams, config.p2p)
        self._logins = OperatorLogins()
        origins = Origins(
            lambda: self._policy.upstreams,
            on_request=self.metrics.count_origin_request,
            on_queue=self.metrics.queue_changed,
            user_agent=f"layercast/{VERSION}",
            first_byte_s=config.origin_first_byte_s,
            rate_min_bytes_s=config.origin_rate_min_bytes_s,
            logins=self._logins.login,
        )
        self._limited, self._upstreams = origins.limited, origins.rows
        self._origin_limits = origins.limits
        self._origin = OriginFetcher(
            origins,
            ReadSettings(self._count_origin_bytes),
            on_contradiction=functools.partial(self._contradicted, asyncio.get_running_loop()),
        )
        self._heads = Cancellation()
        self._transport = HttpTransport(
            self._identity, workers=4, tls=self._member_tls, encrypt_all=config.encrypt == "all"
        )
        traces = open_traces(
            config.otlp_endpoint, config.trace_percent / 100, "layercast-supernode", short_peer(self._signer.peer)
        )
        self._closing.callback(traces.close)
        self._seed = Seed(
            self._store, self._transport, self._origin.fetch, origins.queues, self._signer, config.data_dir, traces
        )
        self._public_access = PublicAccess(
            lambda source, digest: self._origin.public_size(source, digest, self._heads),
            self._state,
            origins.queues,
            fresh_s=KNOWN_SHARE * config.permission_ttl_s,
            stale_s=config.stale_if_down_s,
            on_refused=lambda reason: self.metrics.blobs_refused.labels(reason).inc(),
        )
        self._private_access = PrivateAccess(
            lambda source, digest: self._origin.private_size(source, digest, self._heads),
            self._has_login,
            origins.queues,
            KNOWN_SHARE * config.permission_ttl_s,
        )
        for close in (self._seed.close, self._transport.close, origins.close, self._seed.cancel_all):
            self._closing.callback(close)
        self._driver: Driver[Event, Command] = Driver(self._scheduler, Wakeup(), self._fail)
        self._control = control = Control(self._ports())
        self._driver.begin(control.commands.carry_out)
        self._seed.report_to(control.verification)
        self._is_begun = True
        self._announcements = Announcements(
            control,
            self._public_access,
            self._policy,
            self._delivery,
            self._state.load_swarm,
            self._seed.look,
            self._driver.fail,
            # Without certificates nobody would be kept from them.
            None if self.members is None else self._private_access,
            self._seed.void,
        )
        refetched = "to be fetched again when a node wants it"
        upkeep.begin(self._store, config.data_dir, config, refetched, self._closing)
        self._make_jobs(control, origins)
        self.metrics.before_scrape(self._scrape)
        terms = Terms(self._identity.peer, self._epoch, f"layercast/{VERSION}", config.transport, self.limits)
        self._sessions = SessionServer(control.message_handler(self._announcements), self.metrics, terms, self.members)
        await self.jobs.start()
        await self.events.start()
        await self._serve_api()
        if self._seed_address.is_name:
            self._looking_up = asyncio.create_task(self._follow_name())
        self._following_rates = asyncio.create_task(self._follow_rates())
        self.health.ready()
        logger.info("ready epoch=%d key=%s scheduler=%s", self._epoch, self._identity.peer.hex()[:8], scheduler_build())
        return f"supernode api={self.api_address} upload={self.upload_address}"

    def _make_jobs(self, control: Control, origins: Origins) -> None:
        """Preheats, and the registry events that give rise to some."""
        self.jobs = JobRunner(
            self._state, Resolver(origins, self._has_login), control.nodes, control.swarms, self._fail,
            recovery_s=self.config.recovery_s, on_ended=lambda job: self.events.job_ended(job),
        )  # fmt: skip
        self.events = RegistryEvents(
            self._state,
            self.jobs,
            origins,
            rules=lambda: self.config.rules,
            senders=lambda: self.config.senders,
            is_allowed=self._is_allowed,
            has_login=self._has_login,
            count=self.metrics.count_event,
            on_fatal=self._fail,
            clock=time.time,
            scan_every_s=self.config.tag_scan_interval_s,
            first_scan_s=self.config.recovery_s,
        )

    async def _serve_api(self) -> None:
        control, members = self._control, self.members
        console = self._console = Console(
            pages.load(), Feed(Snapshots(self._view()).make), Logins(), self._machine.story, self._machine.copies
        )
        parts = ApiParts(
            self.health,
            self.metrics,
            control.nodes,
            control.swarms,
            control.seed_reach,
            self._sessions.serve,
            self._epoch,
            self._started_s,
            members,
            lambda result: self.metrics.joins.labels(result).inc(),
            self._login_problems,
            self._limited,
            self.jobs,
            console,
            self.events,
        )
        access = Access(members, console.logins, local_operators=self.config.local_operators)
        decide = access.middleware(lambda request: listener.spoke(request))
        app = web.Application(middlewares=[decide], client_max_size=REQUEST_BYTES_MAX)
        add_routes(app, ROUTES, parts, changes=CHANGES, removals=REMOVALS)
        self._runner = QuietRunner(
            app,
            shutdown_timeout=0.5,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=HEAD_LINE_BYTES_MAX,
            max_field_size=HEAD_LINE_BYTES_MAX,
        )
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        listener = self._listener = Listener(self._socket, server, lambda: None if members is None else members.tls)
        listener.start()
        if members is not None:
            self._watching = asyncio.create_task(
                members.watch(self._end_revoked, self._renew_certificates, control.participation.end_quarantine)
            )
            self._watching.add_done_callback(self._watch_ended)

    def _view(self) -> View:
        """What the console looks at."""
        control, machine = self._control, self._machine
        return View(
            control.nodes,
            control.swarms,
            control.seed_reach,
            machine.copies,
            machine.link_speeds,
            self._uplink_rate,
            self._upstreams,
            lambda: self.health.problem,
            self._epoch,
            self._started_s,
            "open" if self.members is None else "tokens",
            self.config.origin_price,
            lambda: [job_row(each) for each in self.jobs.jobs[-JOBS_SHOWN:]],
            lambda: {**events_summary(self.events, EVENTS_SHOWN), "rules": rule_rows(self.events)[:RULES_SHOWN]},
        )

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        """Revoked nodes would stay members from here on."""
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())

    def _end_revoked(self, revoked: frozenset[PeerId]) -> None:
        for peer in revoked:
            session = self._control.nodes.session_of(peer)
            if session is not None:
                session.channel.end("revoked", revoked_text(session.info.peer))

    def _renew_certificates(self) -> None:
        for session in self._control.nodes:
            session.send(self._sessions.certificate_due())

    def _uplink_rate(self) -> float:
        return float(self.config.upload_rate.now() or UPLINK_ASSUMED_BYTES_S)

    def _upload_key(self) -> bytes | None:
        """By which tickets are checked; from any thread. None until somebody can say what is private: come back."""
        return self._signer.peer if self._is_begun else None

    def _is_encrypted(self, digest: Digest) -> bool:
        """Whether a blob's pieces leave by TLS alone; from any thread."""
        swarm = self._control.swarms.of(digest)
        return self.config.encrypt == "all" or (swarm is not None and swarm.private)

    def _has_login(self, host: str) -> bool:
        try:
            return bool(self._policy.upstreams.lookup(host).credentials)
        except RemoteError:
            return False

    def _pace(self) -> Pace | None:
        """At which a blob's pieces will travel, as far as measured: no faster than they come from the origin."""
        leases, origin_bytes_s = self._machine.pace(), self._seed.origin_rate.bytes_s()
        if leases is None or not origin_bytes_s:
            return None
        return Pace(min(leases.rate_bytes_s, origin_bytes_s), leases.lease_s)

    def _is_allowed(self, host: str) -> bool:
        try:
            self._policy.upstreams.lookup(host)
        except RemoteError:
            return False
        return True

    def _ports(self) -> ControlPorts:
        return ControlPorts(
            post=self._driver.post,
            clock=time.monotonic,
            unix_clock=time.time,
            signer=self._signer,
            seed=self._seed,
            state=self._state,
            observer=self.metrics,
            delivery=self._delivery,
            forget_public=self._public_access.forget,
            uplink_rate=self._uplink_rate,
            recover_until=time.monotonic() + self.config.recovery_s,
            seed_address=self._seed_address.seen_at,
            seed_connected=self._upload.is_connected,
            announced_max=self.limits.announced_max,
            has_login=self._has_login,
            preheat_ended=lambda peer, ended: self.jobs.preheat_ended(peer, ended),
            pace=self._pace,
        )

    async def reload(self, config: SupernodeConfig) -> None:
        """Apply the options that may change at run time: the allow-list, rate limits, the p2p switch.

        The upload port keeps to the new rate; the scheduler goes on planning with the rate it was started with.
        """
        self.config = config = reloaded(self.config, config)
        self._policy.upstreams = config.upstreams
        self._policy.p2p = config.p2p
        self._set_rates()
        if config.p2p:
            # Switched off, new announcements are refused, but uploads go on: a pull under way may need pieces that only
            # this store holds.
            self._upload.enabled = True
        logger.info("reloaded p2p=%s upload_rate_bytes_s=%s", config.p2p, config.upload_rate)

    async def stop(self) -> bool:
        """End everything within 5 s. False when a thread did not end in time and the process must be left by force."""
        self.health.not_ready("stopping")
        if self._runner is not None:
            await self._end_sessions(self._runner)
        return await close_in_time(self._closing)

    async def _end_sessions(self, runner: web.AppRunner) -> None:
        self._console.feed.end()
        if self._listener is not None:
            await self._listener.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        # Before the sessions: a node whose session ends with us has not left its job.
        await self.events.close()
        await self.jobs.close()
        for session in self._control.nodes:
            session.channel.end("shutdown", "the supernode is stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SESSIONS_END_S):
                await self._sessions.wait_for_no_session()
        for task in (self._looking_up, self._following_rates):
            if task is not None:
                task.cancel()
        self._heads.cancel()
        self._origin_limits.set_rate(0)
        await self._announcements.close()
        await self._public_access.close()
        self._private_access.close()
        self._driver.close()
        await runner.cleanup()

    def _login_problems(self) -> dict[str, str]:
        """From any thread."""
        return self._logins.problems(self._policy.upstreams.configured()) | self._private_access.login_problems

    def _fail(self, error: BaseException | None) -> None:
        logger.critical("supernode_failed: a bug of ours, the process ends", exc_info=error)
        self.health.not_ready("failed")
        if not self.failed.done():
            self.failed.set_result(None)

    async def _follow_rates(self) -> None:
        while True:
            self._set_rates()
            await asyncio.sleep(RATES_LOOK_S)

    def _set_rates(self) -> None:
        """Those that count now, by the clock."""
        config, before = self.config, self._rates
        self._rates = upload, origin, preheat = (
            config.upload_rate.now(), config.origin_rate.now(), config.preheat_rate.now()
        )  # fmt: skip
        if self._rates == before:
            return
        logger.info("rates_changed upload_bytes_s=%d origin_bytes_s=%d preheat_bytes_s=%d", upload, origin, preheat)
        self._upload.set_rate_limit(upload)
        self._delivery.set_upload_rate(upload)
        self._origin_limits.set_rate(origin)
        if preheat != before[2]:
            self._driver.post(PreheatRateSet(float(preheat)))

    async def _follow_name(self) -> None:
        while True:
            await asyncio.sleep(LOOK_UP_EVERY_S)
            await asyncio.to_thread(self._seed_address.look_up)

    def _contradicted(
        self, loop: asyncio.AbstractEventLoop, source: Source, digest: Digest, error: UpstreamError
    ) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._public_access.contradicted, source, digest, error)

    def _count_origin_bytes(self, count: int) -> None:
        self.metrics.origin_bytes.inc(count)
        self.metrics.bytes_received.labels("origin").inc(count)

    def _scrape(self) -> None:
        self.metrics.uploaded_bytes.set(self._upload.counters.sent_bytes + self._delivery.sent_bytes)
        self.metrics.store_bytes.set(self._store.used_bytes)
        self.metrics.seed_unreachable.set(self._control.seed_reach.nodes_out())
        now = time.monotonic()
        self.metrics.swarms_silent(swarm.silent_s(now) for swarm in self._control.swarms)
        counters = self._store.counters
        self.metrics.count_store(counters.rotten, counters.full, counters.scrubbed_bytes)
        self.metrics.count_jobs(job.state.value for job in self.jobs.jobs)
        self.metrics.count_events(self.events.processing.queue.counts())
        self.metrics.uploads_refused(dict(self._upload.counters.refused))


def _open_delivery(config: SupernodeConfig, store: DiskStore, identity: Identity) -> PieceDelivery:
    """How pieces travel here. Raises ConfigError."""
    if config.transport != TORRENT:
        return PieceDelivery()
    try:
        # Imported only here: a cluster that uses leases needs no libtorrent.
        from supernode.torrent.tracker import TorrentTracker
    except ImportError as error:
        raise ConfigError(f"--transport torrent: {error}; install the package libtorrent here") from None
    return TorrentTracker(store, config, identity)
