"""The composition root: makes every part of the peer, starts it, reloads it, and ends it in order.

No behaviour of its own beyond that order. Created on a running event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from peer.downloader.contract import BlobFound
from peer.downloader.limits import Limits
from peer.downloader.machine import Downloader
from peer.membership.dialer import MemberDialer, OpenDialer
from peer.metrics import Metrics, RateMeter
from peer.node.blob_spans import BlobSpans
from peer.node.clock import SupernodeClock
from peer.node.node import Node
from peer.node.origin_fetch import UpstreamFetcher
from peer.node.private_bytes import PrivateBytes
from peer.node.session import Session
from peer.node.source_cache import SourceCache
from peer.node.store_reports import StoreReports
from peer.node.supernode_key import SupernodeKey
from peer.node.workers import Workers
from peer.permission import answer_file
from peer.permission.credentials import CredentialKeys
from peer.permission.gate import PermissionGate
from peer.permission.last_answers import LastAnswers
from peer.proxy.client_request import ProxyContext, ProxyLimits
from peer.proxy.forward_policy import ForwardPolicy, intercepted_hosts
from peer.proxy.forward_proxy import ForwardParts
from peer.proxy.mirror import build_app
from peer.proxy.node_authority import NodeAuthority
from peer.proxy.runner import refuse_nonsense
from peer.proxy.tunnel import Tunnels
from peer.registry.origins import Origins
from peer.status import ROUTES, PeerHealth, PeerParts
from peer.store import upkeep
from peer.store.blob_files import current_boot_id
from peer.transport.client import HttpTransport
from peer.transport.delivery import DeliverySlot, PieceDelivery
from peer.transport.member_tls import MemberTls
from peer.transport.rates import RateLimiter
from peer.transport.server import UploadServer
from proto import VERSION
from proto.config.settings import reloaded
from proto.config.values import HostPort, is_loopback, parse_host_port
from proto.errors import ConfigError, LocalError
from proto.ids import peer_name, short_peer
from proto.oci.routes import HEADER_LIMIT_BYTES
from proto.runtime import resources
from proto.runtime.http_api import add_routes
from proto.runtime.http_server import QuietRunner
from proto.runtime.resources import numeric_address
from proto.runtime.service import close_in_time
from proto.runtime.trace_export import open_traces
from proto.wire.handshake import PROTOCOL_VERSION, TORRENT, Hello
from proto.wire.messages import StoreReport
from proto.wire.tickets import Identity, sign_hello

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection

    from aiohttp.typedefs import Middleware

    from peer.config import PeerConfig
    from proto.ids import Digest
    from proto.wire.handshake import Challenge
    from proto.wire.messages import Message, Source

logger = logging.getLogger(__name__)

# How long a start waits for the supernode's first answer: after that the node is ready without it.
FIRST_SESSION_S: Final = 2.0
SAMPLE_S: Final = 1.0
DESCRIPTORS: Final = 8192
LISTEN_BACKLOG: Final = 1024
# Threads that wake for each 8 MiB of a sendfile or a few milliseconds' poll; they never wait for a client.
SENDFILE_THREADS: Final = 4
# How long an operator's drain waits for what is being sent to other nodes, and how often it looks.
DRAIN_S: Final = 60.0
DRAIN_LOOK_S: Final = 0.1
# Tunnels of clients at a time; each has a thread that mostly waits. docker opens one a request, six at a time.
TUNNELS_MAX: Final = 256
# As long as an origin's or a client's longest silence that anything here waits for, twice.
TUNNEL_IDLE_S: Final = 600.0


class Peer:
    """One node. open(), start(), then stop() in every case. `failed` is done when it cannot go on."""

    def __init__(self, config: PeerConfig) -> None:
        self._config = config
        # As settings say; an operator's drain is something else.
        self._configured_p2p = config.p2p
        self._upstreams = config.upstreams
        # Others that know this node ask for pieces as soon as the port is open.
        self._is_begun = False
        self._closing = contextlib.ExitStack()
        self._runners: list[web.AppRunner] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._node: Node | None = None
        self._session: Session | None = None
        self._store_reports = StoreReports()
        self._session_task: asyncio.Task[None] | None = None
        self._forward: ForwardParts | None = None
        self._reloading = asyncio.Lock()
        # What may be sent, taken from peers and taken from each origin a second now, bytes; empty: nothing is set yet.
        self._rates: tuple[int, ...] = ()
        self.metrics = Metrics()
        self.health = PeerHealth(config.supernode)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.proxy_address = self.upload_address = self.status_address = ""

    def open(self) -> None:
        """Blocking: take the data folder, open store and state, and all ports. Raises ConfigError."""
        config, closing = self._config, self._closing
        closing.callback(os.close, resources.take_folder(config.data_dir))
        resources.raise_descriptor_limit(DESCRIPTORS)
        self._identity = Identity.load_or_create(config.data_dir / "identity.key")
        traces = open_traces(
            config.otlp_endpoint, config.trace_percent / 100, "layercast-peer", short_peer(self._identity.peer)
        )
        closing.callback(traces.close)
        self._spans = BlobSpans(traces)
        self._supernode_key = SupernodeKey(config.data_dir / "supernode.key")
        self._clock = SupernodeClock()
        self._member_tls = MemberTls()
        self._dialer = self._make_dialer()
        self._proxy_socket = resources.passed_listener("--listen", config.listen) or resources.listen(
            "--listen", config.listen, LISTEN_BACKLOG
        )
        closing.callback(self._proxy_socket.close)
        self.proxy_address = self.status_address = resources.bound_address(self._proxy_socket)
        self._status_socket: socket.socket | None = None
        if config.status_listen is not None and (config.status_listen != config.listen or not config.listen.port):
            self._status_socket = resources.listen("--status-listen", config.status_listen, LISTEN_BACKLOG)
            closing.callback(self._status_socket.close)
            self.status_address = resources.bound_address(self._status_socket)
        self._sources = SourceCache(config.data_dir / "state.sqlite")
        closing.callback(self._sources.close)
        self._open_answers(config)
        self._authority = NodeAuthority(config.data_dir)
        self._intercepts = self._open_authority(config)
        self._tunnels = Tunnels(TUNNELS_MAX, TUNNEL_IDLE_S)
        closing.callback(self._tunnels.close)
        self._private_bytes = PrivateBytes(self._sources.keep_private)
        self._store = upkeep.open_store(config.data_dir, config)
        closing.callback(self._store.close)
        self._upload = UploadServer(
            config.upload_listen,
            self._store,
            self._upload_key,
            peer_name(self._identity.peer),
            slots=config.upload_slots,
            rate_limit_bytes_s=config.upload_rate.now(),
            clock=self._clock.now,
            tls=self._member_tls,
            encrypted_alone=self._is_encrypted,
        )
        self._upload.enabled = config.p2p
        closing.callback(self._upload.close)
        self.upload_address = self._upload.address

    def _open_answers(self, config: PeerConfig) -> None:
        """What outlives this process of what origins answered, if anything is to. Raises ConfigError."""
        self._answer_file: answer_file.SqliteAnswerFile | None = None
        if not config.stale_if_down_s:
            answer_file.remove(config.data_dir)
            self._keys = CredentialKeys()
            return
        self._keys = CredentialKeys(answer_file.credential_key(config.data_dir))
        self._answer_file = answer_file.SqliteAnswerFile(config.data_dir)
        self._closing.callback(self._answer_file.close)

    def _open_authority(self, config: PeerConfig) -> bool:
        """Whether this node can show certificates for registries. Where it cannot, all else goes on."""
        try:
            if config.forward_proxy:
                self._authority.open(intercepted_hosts(config.upstreams))
        except ConfigError as error:
            logger.error("interception_off %s; then send SIGHUP. CONNECT to registries is tunnelled now", error)
            return False
        return config.forward_proxy

    def _make_dialer(self) -> MemberDialer | OpenDialer | None:
        """To the supernode, if there is one. Raises ConfigError."""
        config = self._config
        if config.supernode is None:
            return None
        if config.open:
            logger.warning(
                "membership_open: the supernode is believed as it comes, without certificates; for trials alone"
            )
            return OpenDialer(config.supernode)
        return MemberDialer(
            config.supernode, config.data_dir, self._identity, config.join or config.join_file, self._member_tls.use
        )

    def _remember_source(self, digest: Digest, source: Source) -> None:
        """Written at once, by its thread: a crash must not leave bytes of which nobody knows that they are public."""
        self._sources.remember(digest, source)
        self._sources.write_waiting()

    def _upload_key(self) -> bytes | None:
        """By which tickets are checked; from any thread. None until it is known which blobs are private: come back."""
        return self._supernode_key.get() if self._is_begun else None

    def _is_encrypted(self, digest: Digest) -> bool:
        """Whether a blob's pieces travel by TLS alone; from any thread."""
        return self._config.encrypt == "all" or digest in self._private_bytes

    async def start(self) -> str:
        """Serve, and return when the node is ready, with the words of its ready line. open() must have been called."""
        config = self._config
        for upstream in config.upstreams.configured():
            if upstream.client_cert is not None and not upstream.shared:
                logger.warning("client_cert_not_shared upstream=%s: local clients read without it", upstream.host)
        node = self._make_node()
        found = await asyncio.to_thread(self._inventory)
        node.begin(found, sharing=config.p2p)
        self._is_begun = True
        self._store.on_evicted(self._evicted)
        self._store.on_rotten(node.rotten)
        self.metrics.before_scrape(self._scrape)
        self._tasks.append(asyncio.create_task(self._each_second()))
        if self._dialer is not None:
            session = self._session = Session(self._dialer, node)
            self.health.connected = lambda: session.is_open
            self.health.problem_of_session = lambda: session.problem
            self._tasks.append(asyncio.create_task(self._dialer.keep_renewed()))
            if config.p2p:
                await self._connect(self._session)
        # Not before: without the swarm what it finds would be asked of the origin, by each node.
        drain = {"drain": functools.partial(self._drain_command, asyncio.get_running_loop())}
        upkeep.begin(self._store, config.data_dir, config, "being fetched again", self._closing, drain)
        await self._serve_clients(node)
        self.health.ready()
        if self._intercepts:
            logger.info("forward_proxy_ready ca=%s: for clients of HTTPS_PROXY", self._authority.certificate_file)
        logger.info("ready blobs=%d supernode=%s", len(found), self.health.supernode_text())
        return f"peer proxy={self.proxy_address} upload={self.upload_address} status={self.status_address}"

    def _make_node(self) -> Node:
        config, closing = self._config, self._closing
        self._origins = Origins(
            lambda: self._upstreams,
            on_request=self.metrics.count_origin_request,
            on_queue=self.metrics.queue_changed,
            user_agent=f"layercast/{VERSION}",
            first_byte_s=config.origin_first_byte_s,
            rate_min_bytes_s=config.origin_rate_min_bytes_s,
        )
        self._download_limiter = RateLimiter(config.download_rate.now())
        http = HttpTransport(
            self._identity,
            # A lease granted ahead waits at its source, and must not keep the one before it from ending.
            workers=2 * config.download_slots,
            limiter=self._download_limiter,
            tls=self._member_tls,
            encrypt_all=config.encrypt == "all",
        )
        self._delivery = DeliverySlot({TORRENT: self._open_torrents})
        closing.callback(self._delivery.close)
        self._store.before_write(lambda digest: self._delivery.current.give_way(digest))
        fetcher = UpstreamFetcher(self._origins, self.metrics.origin_received, self._spans)
        workers = Workers(self._store, http, fetcher, self._origins, self.metrics, self._is_encrypted, self._spans)
        node = self._node = Node(
            Downloader(
                random.Random(),
                peer_name(self._identity.peer),
                _limits(config),
            ),
            workers,
            self.metrics,
            send=self._say,
            hello=self._hello,
            on_fatal=self._fail,
            supernode_key=self._supernode_key,
            clock=self._clock,
            on_source=self._remember_source,
            private_bytes=self._private_bytes,
            delivery=self._delivery,
            range_prefetch=config.range_prefetch,
        )
        for close in (node.release, self._origins.close, workers.close):
            closing.callback(close)
        return node

    def _say(self, message: Message, *, soon: bool = True) -> None:
        if self._session is not None:
            self._session.send(message, soon=soon)

    def _open_torrents(self) -> PieceDelivery:
        """From a thread, when a supernode has pieces carried that way. Raises ImportError, ConfigError."""
        # Imported only here: a cluster that uses leases needs no libtorrent.
        from peer.torrent.delivery import TorrentDelivery

        assert self._node is not None
        post = self._node.driver.post_threadsafe
        return TorrentDelivery(self._store, self._config, post, lambda count: self.metrics.received("peer", count))

    def _inventory(self) -> list[BlobFound]:
        sources, private = self._sources.load(), self._sources.load_private()
        self._drop_unknown({*sources, *private})
        found = [
            BlobFound(
                blob.digest,
                blob.layout.size_bytes,
                blob.layout.piece_size_bytes,
                blob.held,
                blob.complete,
                sources.get(blob.digest, ()),
                private.get(blob.digest, ()),
            )
            for blob in self._store.inventory()
        ]
        self._sources.keep_only(event.digest for event in found)
        return found

    def _drop_unknown(self, known: Collection[Digest]) -> None:
        """Blobs of which a crash left the bytes alone: nobody knows who may read them."""
        unknown = [blob.digest for blob in self._store.inventory() if blob.digest not in known]
        for digest in unknown:
            self._store.remove(digest)
        if unknown:
            logger.warning("blobs_dropped count=%d: it is not known any more whose they are", len(unknown))

    def _hello(self, challenge: Challenge) -> Hello:
        """Who this node is. An address without a host: as the supernode sees it."""
        config = self._config
        bound = parse_host_port(self.upload_address)
        unspecified = bound.host in ("0.0.0.0", "::")
        advertised = numeric_address(config.advertise) if config.advertise is not None else None
        if advertised is None:
            advertised = HostPort("", bound.port) if unspecified else bound
        return Hello(
            version=PROTOCOL_VERSION,
            peer=self._identity.peer,
            boot_id=current_boot_id(),
            proof=sign_hello(self._identity, challenge.nonce, challenge.supernode),
            upload_address=str(advertised),
            zone=config.zone,
            upload_slots=config.upload_slots,
            download_slots=config.download_slots,
            upload_rate_bytes_s=config.upload_rate.told_bytes_s,
            download_rate_bytes_s=config.download_rate.told_bytes_s,
            agent=f"layercast/{VERSION}",
            delivery_port=self._delivery.select(challenge.transport),
        )

    async def _serve_clients(self, node: Node) -> None:
        pool = ThreadPoolExecutor(SENDFILE_THREADS, thread_name_prefix="sendfile")
        self._closing.callback(pool.shutdown)
        config = self._config
        gate = PermissionGate(
            self._origins, config.permission_ttl_s, keys=self._keys, on_asked=self.metrics.permission_asked
        )
        self._closing.callback(gate.close)
        context = ProxyContext(
            node.readers,
            self._origins,
            gate,
            LastAnswers(self._keys, config.stale_if_down_s, self._answer_file),
            pool,
            self.metrics,
            ProxyLimits(tag_s=config.tag_ttl_s),
            hosts=config.mirror_hosts,
            push_allowed=lambda: self._config.push,
        )
        self._forward = ForwardParts(
            _forward_policy(self._config, intercepts=self._intercepts),
            self._origins.upstreams,
            self._authority,
            self._tunnels,
            self.metrics,
            own_ports=frozenset(
                parse_host_port(each).port for each in (self.proxy_address, self.upload_address, self.status_address)
            ),
            names=self._config.mirror_hosts,
        )
        app = build_app(context, self._forward, self._watchers())
        status = app if self._status_socket is None else web.Application()
        add_routes(status, ROUTES, PeerParts(self.health, self.metrics, self._facts))
        if self._status_socket is not None:
            await self._run_app(status, self._status_socket)
        await self._run_app(app, self._proxy_socket)

    def _watchers(self) -> list[Middleware]:
        """Who sees each request of a client, the outermost first. Raises ConfigError."""
        watchers, quiet = [], frozenset(path for path, _ in ROUTES)
        if self._config.access_log is not None:
            from peer.proxy import access_log

            log = access_log.AccessLog(self._config.access_log)
            self._closing.callback(log.close)
            watchers.append(access_log.middleware(log, quiet))
        if self._spans.traces.on:
            from peer.proxy import traced

            watchers.append(traced.middleware(self._spans, quiet))
        return watchers

    async def _run_app(self, app: web.Application, listener: socket.socket) -> None:
        runner = QuietRunner(
            app,
            refuse=refuse_nonsense,
            shutdown_timeout=0.5,
            max_line_size=HEADER_LIMIT_BYTES,
            max_field_size=HEADER_LIMIT_BYTES,
        )
        self._runners.append(runner)
        await runner.setup()
        await web.SockSite(runner, listener, backlog=LISTEN_BACKLOG).start()

    # --- the supernode -----------------------------------------------------------------------------------------

    async def _connect(self, session: Session) -> None:
        """Start to keep a session open, and wait up to FIRST_SESSION_S for the first answer."""
        session.tried.clear()
        task = self._session_task = asyncio.create_task(session.run(), name="session")
        task.add_done_callback(self._session_ended)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SESSION_S):
                await session.tried.wait()

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.critical("session_failed: a bug of ours, the process ends", exc_info=task.exception())
            self._fail()

    async def _disconnect(self) -> None:
        """End the session and wait for its end."""
        task, self._session_task = self._session_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # --- while it runs -----------------------------------------------------------------------------------------

    async def reload(self, config: PeerConfig) -> None:
        """Apply the options that may change at run time: allow-lists, rate limits, the p2p switch. Ends a drain."""
        self._configured_p2p = config.p2p
        await self._apply(config)

    async def _apply(self, config: PeerConfig) -> None:
        async with self._reloading:
            await self._reload(config)

    async def _reload(self, config: PeerConfig) -> None:
        before = self._config
        config = reloaded(before, config)
        if self._forward is not None:
            self._intercepts = await asyncio.to_thread(self._open_authority, config)
            self._forward.policy = _forward_policy(config, intercepts=self._intercepts)
        self._config, self._upstreams = config, config.upstreams
        self._set_rates()
        if config.p2p != before.p2p and self._node is not None:
            self._upload.enabled = config.p2p
            self._node.switch_sharing(config.p2p)
            if not config.p2p:
                self._delivery.current.sharing_ended()
                await self._disconnect()
            elif self._session is not None:
                await self._connect(self._session)
        logger.info("reloaded p2p=%s upload_rate_bytes_s=%s", config.p2p, config.upload_rate)

    def _set_rates(self) -> None:
        """Those that count now, by the clock."""
        config = self._config
        upload, download, origin = config.upload_rate.now(), config.download_rate.now(), config.origin_rate.now()
        if (upload, download, origin) == self._rates:
            return
        if self._rates:
            logger.info(
                "rates_changed upload_bytes_s=%d download_bytes_s=%d origin_bytes_s=%d", upload, download, origin
            )
        self._rates = (upload, download, origin)
        self._upload.set_rate_limit(upload)
        self._download_limiter.set_rate(download)
        self._delivery.current.set_rates(upload, download)
        self._origins.limits.set_rate(origin)

    def _drain_command(
        self, loop: asyncio.AbstractEventLoop, argument: str, say: Callable[[str], None]
    ) -> tuple[str, int]:
        """An operator's, from a thread: no other node is served, or, with "undo", all are again. Raises LocalError."""
        shares = argument == "undo"
        wanted = self._configured_p2p if shares else False
        changing = self._apply(dataclasses.replace(self._config, p2p=wanted))
        asyncio.run_coroutine_threadsafe(changing, loop).result(DRAIN_S)
        if shares:
            return ("shares again" if wanted else "p2p = false is its setting: it shares nothing"), 0
        say("no other node is sent here any more; its own clients are served from its store and from upstream")
        until_s = time.monotonic() + DRAIN_S
        while self._upload.active and time.monotonic() < until_s:
            time.sleep(DRAIN_LOOK_S)
        left = self._upload.active
        if left:
            raise LocalError(f"{left} transfers to other nodes still run after {DRAIN_S:g} s; they end with the peer")
        return "drained: nothing is sent to other nodes; stop it when its clients are done", 0

    def _evicted(self, digest: Digest) -> None:
        """From any thread."""
        self._sources.forget(digest)
        if self._node is not None:
            self._node.evicted(digest)

    def _scrape(self) -> None:
        self.metrics.uploaded_bytes.set(self._sent_bytes())
        self.metrics.store_bytes.set(self._store.used_bytes)
        self.metrics.tunnels_open.set(self._tunnels.open)
        self.metrics.uploads_refused(dict(self._upload.counters.refused))
        counters = self._store.counters
        self.metrics.count_store(counters.rotten, counters.full, counters.scrubbed_bytes)
        if self._node is not None:
            self.metrics.swarms_open.set(len(self._node.machine.state.busy))

    def _sent_bytes(self) -> int:
        return self._upload.counters.sent_bytes + self._delivery.sent_bytes

    async def _each_second(self) -> None:
        up, down = RateMeter(), RateMeter()
        while True:
            now = time.monotonic()
            self.metrics.upload_rate.set(up.sample(self._sent_bytes(), now))
            self.metrics.download_rate.set(down.sample(self.metrics.received_total_bytes, now))
            self._sources.write_waiting()
            self._set_rates()
            self._report_store(now)
            await asyncio.sleep(SAMPLE_S)

    def _report_store(self, now_s: float) -> None:
        if self._session is None or not self._session.is_open:
            self._store_reports.forget()
            return
        counters = self._store.counters
        rotten, refused = sum(dict(counters.rotten).values()), sum(dict(counters.full).values())
        report = StoreReport(self._store.used_bytes, self._config.store_size_bytes, rotten, refused)
        if self._store_reports.is_due(report, now_s):
            self._session.send(report)

    def _facts(self) -> dict[str, Any]:
        """What `layercast doctor` asks of a running peer; no secret among it. From any thread."""
        config, counters = self._config, self._store.counters
        intercepts = self._intercepts
        return {
            "program": "layercast-peer",
            "version": VERSION,
            "peer": self._identity.peer.hex(),
            "ready": not self.health.problem,
            "problem": self.health.problem,
            "supernode": config.supernode,
            "open": config.open,
            "p2p": config.p2p,
            "connected": self.health.connected(),
            "session_problem": self.health.problem_of_session(),
            "supernode_ahead_s": round(self._clock.ahead_s, 1),
            "certificate_expires_unix_s": self._dialer.expires_unix_s if self._dialer is not None else None,
            "upload_address": self.upload_address,
            "data_dir": str(config.data_dir.absolute()),
            "interception_ca": str(self._authority.certificate_file.absolute()) if intercepts else None,
            "store": {
                **resources.disk_facts(config.data_dir / "store"),
                "used_bytes": self._store.used_bytes,
                "free_floor_bytes": config.store_free_floor_bytes,
                "rotten_pieces": sum(counters.rotten.values()),
            },
            "descriptors": resources.descriptor_limit(),
            "descriptors_wanted": DESCRIPTORS,
            "upstreams": [upstream.facts() for upstream in config.upstreams.configured()],
            "limited": self._origins.limited(),
        }

    def _fail(self) -> None:
        if not self.failed.done():
            self.failed.set_result(None)

    async def stop(self) -> bool:
        """End everything within 5 s. False when a thread did not end in time and the process must be left by force."""
        self.health.not_ready("stopping")
        await self._disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._node is not None:
            self._node.close()
        for runner in self._runners:
            await runner.cleanup()
        return await close_in_time(self._closing)


def _limits(config: PeerConfig) -> Limits:
    """Who wants no patience wants none with a supernode that hung up either, nor to wait for others then."""
    patience_s, usual = config.supernode_patience_s, Limits()
    return Limits(
        grace_s=min(usual.grace_s, patience_s),
        silent_grace_s=patience_s,
        grace_jitter_s=min(usual.grace_jitter_s, patience_s),
        public_s=config.permission_ttl_s,
        stale_s=config.stale_if_down_s,
    )


def _forward_policy(config: PeerConfig, *, intercepts: bool) -> ForwardPolicy:
    return ForwardPolicy(
        enabled=config.forward_proxy,
        intercepts=intercepts,
        local_only=is_loopback(config.listen.host),
        hosts=frozenset(config.tunnel_hosts),
    )
