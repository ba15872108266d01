"""Membership as a running supernode has it: on the event loop, with one thread for what blocks.

It notices within a second what the operator's commands changed: revoked nodes, a new authority. What follows from that
is the caller's to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proto.errors import LocalError
from proto.ids import PeerId, short_peer
from proto.runtime import tls
from proto.runtime.logs import LogLimit
from supernode.membership.admission import Admission
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.browser_certificate import browser_context, load_or_create, show_to_browsers
from supernode.membership.certificates import NODE_LIFE_S, certify_node, certify_supernode, pem
from supernode.membership.database import MemberDatabase

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from proto.wire.tickets import Identity
    from supernode.membership.admission import Admitted
    from supernode.membership.authorities import Authorities

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
# Nodes that connected since the last look; a whole cluster reconnects at once.
_SEEN_MAX: Final = 50_000

P = ParamSpec("P")
R = TypeVar("R")


class Member(NamedTuple):
    """Who a client certificate is for. `due`: it is by an authority that certifies no more."""

    peer: PeerId
    expires_unix_s: float
    due: bool


class Members:
    """open(), then watch() while the service runs, then close(). TLS has checked the certificates that get here."""

    def __init__(
        self,
        data_dir: Path,
        identity: Identity,
        show: Callable[[bytes, bytes, str], None] = lambda certificate, key, authorities: None,
    ) -> None:
        """`identity` is the supernode's own, which its certificate is for.

        `show` is given what it shows as a node among the others, where pieces are fetched, and whom it trusts (PEM).
        """
        self._show = show
        self._folder = AuthorityFolder(data_dir)
        self._identity = identity
        self._revoked: frozenset[PeerId] = frozenset()
        self._lifts: frozenset[PeerId] = frozenset()
        self._seen: dict[PeerId, tuple[PeerId, str, float]] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="members")
        self.authorities: Authorities
        # For connections that begin now.
        self.tls: ssl.SSLContext
        self.operator_token = ""
        # A line a minute: each look may find it so.
        self._trouble = LogLimit(lines_max=1)

    def open(self) -> None:
        """Blocking: what there is, or what a first start makes. Raises ConfigError."""
        found = self._folder.load_or_create()
        self._browser_pair = load_or_create(self._folder.path)
        self._use(found)
        self.operator_token = self._folder.operator_token()
        self._database = MemberDatabase(self._folder.path)
        self._admission = Admission(lambda: self.authorities, self._database)
        self._revoked = self._database.revoked()
        # Quarantines ended with the process before.
        self._database.take_lifts()
        self._stamps = self._folder.stamp(), self._database.stamp()

    def close(self) -> None:
        """Blocking; what was seen is written. Idempotent."""
        self._executor.shutdown()
        self._write_seen()
        self._database.close()

    @property
    def fingerprint(self) -> str:
        """What new join tokens pin."""
        return self.authorities.current.fingerprint

    @property
    def bundle(self) -> str:
        """The certificates of all authorities that are trusted, PEM."""
        return pem(self.authorities.trusted)

    def member(self, certificate: bytes) -> Member:
        """Whom a client certificate (DER) is for."""
        read = x509.load_der_x509_certificate(certificate)
        key = read.public_key()
        assert isinstance(key, Ed25519PublicKey), "our authority certifies no other keys"
        due = read.issuer != self.authorities.current.name
        return Member(PeerId(key.public_bytes_raw()), read.not_valid_after_utc.timestamp(), due)

    def is_revoked(self, peer: PeerId) -> bool:
        """Whether it is no member any more, whatever its certificate says."""
        return peer in self._revoked

    async def join(self, body: bytes, address: str) -> Admitted:
        """Raises JoinRefused, DatabaseError."""
        admitted = await self._run(self._admission.join, body, address)
        logger.info("node_joined peer=%s address=%s", short_peer(admitted.peer), address)
        return admitted

    async def renew(self, peer: PeerId, body: bytes) -> Admitted:
        """Raises JoinRefused, DatabaseError."""
        return await self._run(self._admission.renew, peer, body)

    def record_seen(self, member: Member, address: str) -> None:
        """It connected; written down with the next look."""
        if len(self._seen) < _SEEN_MAX:
            self._seen[member.peer] = member.peer, address, member.expires_unix_s

    async def watch(
        self,
        revoked: Callable[[frozenset[PeerId]], None],
        rotated: Callable[[], None],
        lifted: Callable[[PeerId], None],
    ) -> None:
        """Until cancelled: with each look tell which nodes are revoked, and if there is a new authority.

        `lifted` is told whose quarantine the operator ended.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            before = self._revoked
            changed = await self._tried(self._look)
            for peer in self._revoked - before:
                logger.warning("node_revoked peer=%s: its session ends, it is refused from now on", short_peer(peer))
            # All of them each time: one may have been opening its session when it was revoked.
            revoked(self._revoked)
            lifts, self._lifts = self._lifts, frozenset()
            for peer in lifts:
                lifted(peer)
            await self._tried(self._write_seen)
            if changed is not None:
                certifies = self.fingerprint
                self._use(changed)
                if certifies != self.fingerprint:
                    logger.warning(
                        "authority_changed fingerprint=%s: nodes get new certificates by themselves", self.fingerprint
                    )
                    rotated()

    # --- in the thread -----------------------------------------------------------------------------------------

    def _look(self) -> Authorities | None:
        """Take in what changed outside. Returns other authorities, if they are others now."""
        stamps = self._folder.stamp(), self._database.stamp()
        if stamps[1] != self._stamps[1]:
            # First: whatever else fails, who was revoked is out.
            self._revoked = self._database.revoked()
            self._lifts |= self._database.take_lifts()
        found = self._folder.load() if stamps[0] != self._stamps[0] else self.authorities.at(time.time())
        self._stamps = stamps
        renewed = time.time() > self._renew_unix_s
        return found if found is not self.authorities or renewed else None

    def _write_seen(self) -> None:
        seen, self._seen = self._seen, {}
        if seen:
            self._database.record_seen(list(seen.values()))

    # --- -------------------------------------------------------------------------------------------------------

    def _use(self, authorities: Authorities) -> None:
        """Show a certificate by the current authority from now on."""
        now_s = time.time()
        certificate = certify_supernode(authorities.current, self._identity.private_key.public_key(), now_s)
        chain = pem([certificate, *authorities.chain]).encode()
        self.tls = tls.server_context(chain, self._identity.private_pem(), pem(authorities.trusted))
        show_to_browsers(self.tls, browser_context(self._browser_pair, pem(authorities.trusted)))
        node = pem([certify_node(authorities.current, self._identity.peer, now_s), *authorities.chain]).encode()
        self._show(node, self._identity.private_pem(), pem(authorities.trusted))
        self.authorities = authorities
        self._renew_unix_s = now_s + NODE_LIFE_S / 2

    async def _tried(self, operation: Callable[[], R]) -> R | None:
        """None, and a line in the log, where a disk refuses: what was known stays good."""
        try:
            return await self._run(operation)
        except LocalError as error:
            self._trouble.log(logger, logging.ERROR, "membership_not_read: %s; what was known stays good", error)
            return None

    async def _run(self, operation: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.wrap_future(self._executor.submit(operation, *args, **kwargs))
