"""Random questions by random clients, each asked of the origin and of a node at the same moment: one answer.

The origin is the oracle: status, challenge and body through the node are compared with what it says itself. Most blobs
lie in the very store of the node that is asked, so that whatever a node gives, it gives because it was allowed.

One thing is left out: what an origin gives to anyone a node gives to anyone, also to who shows no anonymous token, or
a credential that is good elsewhere; nobody learns anything by it.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import Cluster
from tests.support.fake_origin import Fault, fake_origin
from tests.support.passwords import USER, basic_authorization, password_auth
from tests.support.registry_contents import CONFIG, LAYER, MANIFEST, Asker, Content, document
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.cluster.services import Peer
    from tests.support.fake_origin import FakeOrigin
    from tests.support.registry_contents import Answer

pytestmark = pytest.mark.client("docker-registry")

REQUESTS: Final = int(os.environ.get("LAYERCAST_ORACLE_REQUESTS", "200"))
SEED: Final = int(os.environ.get("LAYERCAST_ORACLE_SEED") or secrets.randbelow(1 << 32))
# What origins said counts so long; whatever changes there holds after it.
TTL_S: Final = 2.0
NODES: Final = 2
ADMIN: Final = "admin"
LEAVER: Final = "leaver"


@dataclass(frozen=True)
class Question:
    """A client asks, by its credential's name, for a blob or a manifest of a repository at an origin."""

    origin: str
    repository: str
    kind: str
    digest: str
    credential: str
    method: str = "GET"

    @property
    def target(self) -> str:
        return f"/v2/{self.repository}/{self.kind}/{self.digest}"


@dataclass
class World:
    """Origins by name with their addresses, credentials by name, and what each origin gives to whom."""

    addresses: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, str | None] = field(default_factory=dict)
    allowed: list[Question] = field(default_factory=list)
    # (origin, repository) pairs, and the digests of all that is anywhere.
    places: list[tuple[str, str]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    # What its origin gives to anyone.
    public: set[tuple[str, str, str]] = field(default_factory=set)

    def ask_origin(self, question: Question) -> Answer:
        return Asker(self.addresses[question.origin])(question.method, question.target, *self._lines(question))

    def ask_node(self, peer: Peer, question: Question) -> Answer:
        target = f"{question.target}?ns={self.addresses[question.origin]}"
        return Asker(peer.proxy)(question.method, target, *self._lines(question))

    def _lines(self, question: Question) -> list[tuple[str, str]]:
        authorization = self.credentials[question.credential]
        lines = [("Accept", MANIFEST)] if question.kind == "manifests" else []
        return lines if authorization is None else [*lines, ("Authorization", authorization)]

    def refused(self, rng: random.Random) -> Question:
        """One that is not among the allowed."""
        while True:
            question = Question(*rng.choice(self.places), "blobs", rng.choice(self.digests), rng.choice(self.names))
            if question not in self.allowed and (question.origin, question.repository, question.digest) not in (
                self.public
            ):
                return question

    @property
    def names(self) -> list[str]:
        return list(self.credentials)

    def allow(self, origin: str, repository: str, credentials: list[str], *contents: Content) -> None:
        for content in contents:
            self.digests.append(content.digest)
            kind = "manifests" if content.media_type == MANIFEST else "blobs"
            for name in credentials:
                self.allowed.append(Question(origin, repository, kind, content.digest, name))


@dataclass
class Differences:
    """What the nodes' answers came to."""

    given: int = 0
    refused_while_stored: int = 0
    found: list[str] = field(default_factory=list)

    def compare(self, world: World, peer: Peer, question: Question) -> None:
        direct, through = world.ask_origin(question), world.ask_node(peer, question)
        wanted, got = (
            (answer.status, answer.headers.get("www-authenticate"), answer.headers.get("content-length"), answer.body)
            for answer in (direct, through)
        )
        self.given += direct.status == 200
        self.refused_while_stored += direct.status != 200 and is_stored(peer, question.digest)
        if wanted != got:
            self.found.append(f"{peer.name} {question}: {_short(got)} in place of {_short(wanted)}")


def _short(answer: tuple[object, ...]) -> str:
    return " ".join(str(part)[:400] for part in answer)


def is_stored(peer: Peer, digest: str) -> bool:
    name = digest.rpartition(":")[2]
    return any(name in path.name for path in (peer.data_dir / "store").rglob(f"*{name}*"))


def layer(number: int) -> Content:
    return Content(random.Random(number).randbytes(40_000 + number), LAYER)


def manifest(*layers: Content, **more: object) -> Content:
    return document(MANIFEST, config=CONFIG_BLOB.descriptor, layers=[each.descriptor for each in layers], **more)


CONFIG_BLOB: Final = Content(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}', CONFIG)
MINE, THEIRS, SHARED, LOCKED, OPEN, DOOMED, LEFT = map(layer, range(1, 8))
# One whose layer is said to be elsewhere, and one that is about another: registries take both unseen.
FOREIGN: Final = {
    **THEIRS.descriptor,
    "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "urls": ["http://127.0.0.1:9/layer"],
}


def push(address: str, repository: str, headers: dict[str, str], *contents: Content) -> None:
    ask = Asker(address)
    for content in contents:
        lines = tuple(headers.items())
        if content.media_type == MANIFEST:
            target, kind = f"/v2/{repository}/manifests/{content.digest}", ("Content-Type", MANIFEST)
            answer = ask("PUT", target, *lines, kind, body=content.body)
        else:
            begun = ask("POST", f"/v2/{repository}/blobs/uploads/", *lines)
            assert begun.status == 202, begun
            target = begun.headers["location"].removeprefix(f"http://{address}")
            answer = ask("PUT", f"{target}&digest={content.digest}", *lines, body=content.body)
        assert answer.status == 201, (repository, content.media_type, answer)


@dataclass
class Site:
    """The world with its running parts."""

    world: World
    cluster: Cluster
    passwords: Path
    once_public: FakeOrigin
    liar: FakeOrigin
    deleted: list[Question]
    remover: dict[str, str]

    def change(self, number: int) -> None:
        """Something is revoked at an origin; it holds when this returns."""
        if number == 0:
            self.passwords.write_text("\n".join(self.passwords.read_text().split("\n")[:1]) + "\n")
        elif number == 1:
            self.once_public.token, self.once_public.challenge = "not-yours", 'Basic realm="closed"'
            self.world.public.clear()
            # Now that it is a secret, somebody claims to have it, too.
            self.liar.blobs[OPEN.digest] = bytes(len(OPEN.body))
        else:
            for question in self.deleted:
                answer = Asker(self.world.addresses[question.origin])("DELETE", question.target, *self.remover.items())
                assert answer.status == 202, (question, answer)
        # What is tested: after this time no node goes by what was before.
        time.sleep(TTL_S)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Site]:
    world = World()
    root = tmp_path / "locked"
    auth = password_auth(root)
    passwords = root / "htpasswd"
    passwords.write_text(passwords.read_text() + passwords.read_text().replace(USER, LEAVER))
    signer = Authority(tmp_path).issue(["token.test"])
    with (
        TokenServer(signer, {}) as tokens,
        Registry(tmp_path / "tokens", auth=tokens.registry_auth()) as by_token,
        Registry(root, auth=auth) as by_password,
        fake_origin() as liar,
        fake_origin() as once_public,
    ):
        world.addresses = {
            "token": by_token.address,
            "password": by_password.address,
            "liar": liar.authority,
            "public": once_public.authority,
        }
        remover = _fill(world, tokens)
        # It says that it has what is private elsewhere, and gives none of it.
        for content in (MINE, LOCKED):
            liar.blobs[content.digest] = bytes(len(content.body))
        liar.always["GET"] = Fault(status=403)
        once_public.blobs[OPEN.digest] = OPEN.body
        world.public.add(("public", "any/app", OPEN.digest))
        others = [flag for host in list(world.addresses.values())[1:] for flag in ("--insecure-upstream", host)]
        flags = [*others, "--insecure-upstream", tokens.address, "--permission-ttl", f"{TTL_S}s"]
        with Cluster(tmp_path, by_token.address, supernode_flags=flags, peer_flags=flags) as cluster:
            cluster.add_peers([None] * NODES)
            cluster.wait_for_sessions(NODES)
            deleted = [Question("token", "team/mine", "blobs", DOOMED.digest, "mine")]
            yield Site(world, cluster, passwords, once_public, liar, deleted, remover)


def _fill(world: World, tokens: TokenServer) -> dict[str, str]:
    """Push everything; the header of who may delete."""

    def bearer(user: str, *repositories: str, actions: str = "pull") -> str:
        return "Bearer " + tokens.token(user, [f"repository:{each}:{actions}" for each in repositories])

    about = manifest(SHARED, subject={"mediaType": MANIFEST, "digest": THEIRS.digest, "size": len(THEIRS.body)})
    foreign = document(MANIFEST, config=CONFIG_BLOB.descriptor, layers=[MINE.descriptor, FOREIGN])
    own, theirs, locked = manifest(MINE, SHARED, DOOMED), manifest(THEIRS, SHARED), manifest(LOCKED, SHARED)
    everything = {"Authorization": bearer(ADMIN, "team/mine", "team/theirs", actions="pull,push,delete")}
    push(world.addresses["token"], "team/mine", everything, CONFIG_BLOB, MINE, SHARED, DOOMED, own, about, foreign)
    push(world.addresses["token"], "team/theirs", everything, CONFIG_BLOB, THEIRS, SHARED, theirs)
    push(world.addresses["password"], "locked/app", basic_authorization(), CONFIG_BLOB, LOCKED, SHARED, LEFT, locked)
    good = bearer("me", "team/mine")
    world.credentials = {
        "nobody": None,
        "mine": good,
        "theirs": bearer("them", "team/theirs"),
        "both": bearer("boss", "team/mine", "team/theirs"),
        "nothing": bearer("me", "team/none"),
        "forged": good[:-8] + "AAAAAAAA",
        "password": basic_authorization()["Authorization"],
        "leaver": basic_authorization(LEAVER)["Authorization"],
        "wrong": basic_authorization(USER, "wrong")["Authorization"],
    }
    world.allow("token", "team/mine", ["mine", "both"], CONFIG_BLOB, MINE, SHARED, DOOMED, own, about, foreign)
    world.allow("token", "team/theirs", ["theirs", "both"], CONFIG_BLOB, THEIRS, SHARED, theirs)
    world.allow("password", "locked/app", ["password", "leaver"], CONFIG_BLOB, LOCKED, SHARED, LEFT, locked)
    world.allow("public", "any/app", ["nobody"], OPEN)
    world.places = [
        ("token", "team/mine"),
        ("token", "team/theirs"),
        ("password", "locked/app"),
        ("liar", "any/app"),
        ("public", "any/app"),
    ]
    world.digests = sorted({each.digest for each in world.allowed if each.kind == "blobs"})
    return everything


def questions(world: World, rng: random.Random, count: int) -> Iterator[Question]:
    """Half of them allowed at the beginning, a few by HEAD."""
    for _ in range(count):
        question = rng.choice(world.allowed) if rng.random() < 0.5 else world.refused(rng)
        head = rng.random() < 0.1
        yield Question(**{**question.__dict__, "method": "HEAD"}) if head else question


def test_every_answer_is_the_origins_own(running: Site) -> None:
    print(f"LAYERCAST_ORACLE_SEED={SEED} LAYERCAST_ORACLE_REQUESTS={REQUESTS}")
    rng, world, peers, seen = random.Random(SEED), running.world, running.cluster.peers, Differences()
    for peer in peers:
        for question in world.allowed:
            assert world.ask_node(peer, question).status == 200, question
        assert all(is_stored(peer, digest) for digest in world.digests)
    share = REQUESTS // 4
    for number in range(4):
        # At once, so that what is asked for one client is on its way while others ask.
        with ThreadPoolExecutor(4) as pool:
            asked = [(rng.choice(peers), question) for question in questions(world, rng, share)]
            for done in [pool.submit(seen.compare, world, *each) for each in asked]:
                done.result()
        if number < 3:
            running.change(number)
    print(json.dumps({"given": seen.given, "refused though stored": seen.refused_while_stored}))
    assert not seen.found, "\n".join(seen.found)
    assert 3 * seen.given >= REQUESTS - 3
    assert 3 * seen.refused_while_stored >= REQUESTS - 3
