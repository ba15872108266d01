"""A registry whose blobs lie at a CDN behind signed URLs, and how such CDNs misbehave: bytes, requests, and the log.

nginx checks the signatures. A blob is public and comes by the supernode, or by a peer that has none; or it is private,
and its registry wants a password, which the CDN must not see.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.faults import Fault
from benchmarks.cluster.processes import wait_until
from benchmarks.cluster.services import LOOPBACK, Cluster, Peer
from tests.support.passwords import basic_authorization
from tests.support.planted import places
from tests.support.pullers import Answer, Pull, blob_target
from tests.support.signed_cdn import (
    ENCODED,
    LIFE_S,
    LOGIN,
    PAGE,
    PLAIN,
    PRIVATE,
    UNSATISFIED,
    WHOLE,
    RedirectingRegistry,
    SignedCdn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cluster.ledger import Exchange

pytestmark = pytest.mark.client("nginx")

HOST: Final = "registry.test"
SIZE_BYTES: Final = 1_300_000
# In the middle of a piece.
CUT_BYTES: Final = 700_001
# Of a URL: longer than a busy machine takes from the redirect to the CDN.
SHORT_LIFE_S: Final = 5
SHARED, ALONE, BEHIND_LOGIN = "by the supernode", "without a supernode", "private"
MODES: Final = (SHARED, ALONE, BEHIND_LOGIN)
in_every_mode = pytest.mark.parametrize("mode", MODES)


@dataclass(frozen=True)
class Blob:
    digest: str
    target: str
    headers: dict[str, str]
    proxy: str


@dataclass
class Behind:
    """Peers behind whose registry is a CDN."""

    cdn: SignedCdn
    cluster: Cluster
    alone: Peer
    _seeds: Iterator[int] = field(default_factory=itertools.count)

    def put(self, way: str, mode: str) -> Blob:
        """A blob of the test's own, to be pulled in this mode."""
        digest = self.cdn.put(way, random.Random(next(self._seeds)).randbytes(SIZE_BYTES))
        repository, headers = (f"{PRIVATE}{way}", basic_authorization()) if mode == BEHIND_LOGIN else (way, {})
        peer = self.alone if mode == ALONE else self.cluster.peers[0]
        return Blob(digest, f"{blob_target(digest, repository)}?ns={HOST}", headers, peer.proxy)

    def start(self, blob: Blob) -> Pull:
        return Pull(blob.proxy, blob.target, headers=blob.headers)

    def pull(self, blob: Blob) -> Answer:
        with self.start(blob) as running:
            return running.result()

    def asked(self, blob: Blob) -> list[Exchange]:
        """The GETs of the blob at the CDN, but for those of one byte, by which its size is found."""
        return [each for each in self.cdn.proxy.ledger().of_blob(blob.digest) if each.ranges != (0, 0)]

    def assert_sent_once(self, blob: Blob, requests: int) -> None:
        """Each byte left the CDN once."""
        asked = self.asked(blob)
        assert sum(each.body_acked_bytes for each in asked) == SIZE_BYTES, asked
        assert len(asked) == requests


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("cdn")
    with contextlib.ExitStack() as running:
        cdn = running.enter_context(SignedCdn(folder))
        registry = running.enter_context(RedirectingRegistry(cdn))
        config = folder / "upstreams.toml"
        section = f'[upstream."{HOST}"]\nurl = "{registry.url}"\nredirect_hosts = ["{cdn.proxy.address}"]\n'
        config.write_text(section)
        flags = ["--config", str(config), "--log-level", "debug"]
        origin = f"{LOOPBACK}:{registry.port}"
        cluster = running.enter_context(Cluster(folder, origin, supernode_flags=flags, peer_flags=flags))
        cluster.add_peer()
        cluster.wait_for_sessions(1)
        alone = Peer("alone", folder / "alone", [], LOOPBACK, LOOPBACK, flags)
        running.callback(alone.close)
        alone.start()
        yield Behind(cdn, cluster, alone)


@pytest.fixture(autouse=True)
def no_faults(behind: Behind) -> Iterator[None]:
    yield
    behind.cdn.proxy.clear_faults()


def assert_whole(answer: Answer, blob: Blob) -> None:
    assert (answer.status, answer.complete, answer.sha256) == (200, True, blob.digest), answer


@in_every_mode
def test_a_blob_is_asked_of_the_cdn_once(behind: Behind, mode: str) -> None:
    blob = behind.put(PLAIN, mode)
    for _ in range(2):
        assert_whole(behind.pull(blob), blob)
    behind.assert_sent_once(blob, requests=1)


@in_every_mode
@pytest.mark.parametrize("way", [PLAIN, WHOLE, UNSATISFIED])
@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
def test_a_body_that_is_cut_is_resumed_by_a_fresh_url(behind: Behind, mode: str, way: str, *, reset: bool) -> None:
    blob = behind.put(way, mode)
    cut = Fault(path_contains=blob.digest, whole=True, cut_after_bytes=CUT_BYTES, reset=reset, times=1)
    behind.cdn.proxy.add_fault(cut)
    assert_whole(behind.pull(blob), blob)
    if way == PLAIN:
        behind.assert_sent_once(blob, requests=2)


def test_a_url_that_has_expired_is_not_used_again(behind: Behind) -> None:
    """In every mode at once: they wait for the end of a life alike."""
    blobs = [behind.put(PLAIN, mode) for mode in MODES]
    proxy = behind.cdn.proxy
    for blob in blobs:
        proxy.add_fault(Fault(path_contains=blob.digest, stall_after_bytes=CUT_BYTES))
    behind.cdn.life_s = SHORT_LIFE_S
    try:
        with contextlib.ExitStack() as hanging_up:
            pulls = [hanging_up.enter_context(behind.start(blob)) for blob in blobs]
            wait_until(lambda: all(stands_in_the_middle(behind, blob) for blob in blobs), "the blobs' middle")
            expire_s = [expires_s(asked) for blob in blobs for asked in behind.asked(blob)]
            wait_until(lambda: time.time() > max(expire_s) + 1, "the end of the URLs' life")
            behind.cdn.life_s = LIFE_S
            proxy.cut()
            proxy.clear_faults()
            for pull, blob in zip(pulls, blobs, strict=True):
                assert_whole(pull.result(), blob)
    finally:
        behind.cdn.life_s = LIFE_S
    for blob in blobs:
        behind.assert_sent_once(blob, requests=2)


def stands_in_the_middle(behind: Behind, blob: Blob) -> bool:
    return any(asked.body_sent_bytes == CUT_BYTES for asked in behind.asked(blob))


def expires_s(asked: Exchange) -> int:
    return int(dict(part.split("=") for part in asked.query.split("&"))["expires"])


@in_every_mode
def test_a_cdn_that_knows_no_ranges_gives_the_whole(behind: Behind, mode: str) -> None:
    blob = behind.put(WHOLE, mode)
    assert_whole(behind.pull(blob), blob)
    behind.assert_sent_once(blob, requests=1)


@in_every_mode
def test_a_cdn_that_encodes_unasked_is_understood(behind: Behind, mode: str) -> None:
    blob = behind.put(ENCODED, mode)
    answer = behind.pull(blob)
    # How long it is nobody can know before its end, so it is passed through.
    assert (answer.status, answer.sha256, answer.error) == (200, blob.digest, "")
    assert len(behind.asked(blob)) == 1


@in_every_mode
def test_a_cdn_that_refuses_every_range_gives_the_whole(behind: Behind, mode: str) -> None:
    blob = behind.put(UNSATISFIED, mode)
    for _ in range(2):
        assert_whole(behind.pull(blob), blob)
    # The others were left at their heads, which tell the size.
    assert len([asked for asked in behind.asked(blob) if asked.ending == "complete"]) == 1


@in_every_mode
@pytest.mark.parametrize("delta_bytes", [-1000, 1000])
def test_a_length_that_is_wrong_once_is_made_good(behind: Behind, mode: str, delta_bytes: int) -> None:
    blob = behind.put(PLAIN, mode)
    wrong = Fault(path_contains=blob.digest, whole=True, length_delta_bytes=delta_bytes, times=1)
    behind.cdn.proxy.add_fault(wrong)
    assert_whole(behind.pull(blob), blob)


@in_every_mode
@pytest.mark.parametrize("way", [LOGIN, PAGE])
def test_who_is_led_to_a_login_of_the_cdns_gets_the_redirect(behind: Behind, mode: str, way: str) -> None:
    blob = behind.put(way, mode)
    answer = behind.pull(blob)
    assert answer.status == 307
    assert answer.headers["location"].startswith(f"{behind.cdn.proxy.url}/{way}/blobs/{blob.digest}?md5=")


def test_no_signed_url_is_logged_or_kept(behind: Behind) -> None:
    assert_whole(behind.pull(blob := behind.put(PLAIN, SHARED)), blob)
    for service in (behind.cluster.supernode, *behind.cluster.peers, behind.alone):
        assert [place for place, text in places(service) if b"&expires=" in text] == []
