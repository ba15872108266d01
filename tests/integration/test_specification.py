"""What a registry does, its mirror does: the specification's requirements, of each origin directly and through peers.

What a registry itself lacks is listed here, and nothing is asked of a mirror of it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.ports import ReservedPort
from benchmarks.cluster.processes import ManagedProcess, wait_until
from benchmarks.cluster.programs import clean_environment, program
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import LOOPBACK, Cluster, Peer
from benchmarks.serving.client import is_listening
from tests.support.built_programs import DISTRIBUTION_3, OLAREG, built
from tests.support.passwords import PASSWORD, USER
from tests.support.registry_contents import OTHER, REPOSITORY, TAGGED, Asker, Contents
from tests.support.registry_requirements import ACCEPT, REQUIREMENTS, UNKNOWN
from tests.support.tls import Authority
from tests.support.tokens import CHECK_PATH, TokenServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = pytest.mark.client("docker-registry", "go", "nginx")


@dataclass(frozen=True)
class Origin:
    """HOST:PORT of a registry and, where it wants tokens, of its token service, and who may do all."""

    address: str
    tokens: str = ""
    own: tuple[str, str] | None = None


@contextlib.contextmanager
def debian(folder: Path) -> Iterator[Origin]:
    """docker-registry 2.8.2."""
    with Registry(folder) as registry:
        yield Origin(registry.address)


@contextlib.contextmanager
def distribution(folder: Path) -> Iterator[Origin]:
    with Registry(folder, executable=built(DISTRIBUTION_3)) as registry:
        yield Origin(registry.address)


@contextlib.contextmanager
def olareg(folder: Path) -> Iterator[Origin]:
    argv: list[str | Path] = [built(OLAREG), "serve", "--addr", LOOPBACK, "--dir", folder]
    with contextlib.closing(ReservedPort(LOOPBACK)) as port:
        number = port.address.rpartition(":")[2]
        with ManagedProcess([*argv, "--port", number], env=clean_environment(HOME=str(folder)), name="olareg"):
            wait_until(lambda: _answers(port.address), "olareg answers")
            yield Origin(port.address)


def _answers(address: str) -> bool:
    with contextlib.suppress(ConnectionError):
        return Asker(address)("GET", "/v2/").status == 200
    return False


@contextlib.contextmanager
def tokens_for(folder: Path) -> Iterator[tuple[TokenServer, tuple[str, str]]]:
    """A token service, and the header of one who may do all in the repositories of the checks."""
    folder.mkdir()
    repositories = (REPOSITORY, TAGGED, OTHER, UNKNOWN)
    with TokenServer(Authority(folder).issue(["token.test"]), {USER: PASSWORD}) as tokens:
        token = tokens.token(USER, [f"repository:{name}:pull,push" for name in repositories])
        yield tokens, ("Authorization", f"Bearer {token}")


@contextlib.contextmanager
def distribution_with_tokens(folder: Path) -> Iterator[Origin]:
    with tokens_for(folder.with_name("tokens")) as (tokens, own):
        auth = tokens.registry_auth()
        with Registry(folder, auth=auth, executable=built(DISTRIBUTION_3)) as registry:
            yield Origin(registry.address, tokens.address, own)


# olareg knows no tokens: nginx asks the token service whether a request may pass.
GATE: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{ access_log off; client_max_body_size 0; client_body_temp_path {folder}; proxy_temp_path {folder};
fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
server {{ listen {address};
location / {{ auth_request /check; proxy_pass http://{behind}; proxy_set_header Authorization ""; }}
location = /check {{ internal; proxy_pass http://{tokens}{check}; proxy_pass_request_body off;
proxy_set_header Content-Length ""; proxy_set_header X-Original-URI $request_uri;
proxy_set_header X-Original-Method $request_method; }}
}} }}
"""


@contextlib.contextmanager
def olareg_with_tokens(folder: Path) -> Iterator[Origin]:
    with (
        tokens_for(folder.with_name("tokens")) as (tokens, own),
        olareg(folder) as behind,
        contextlib.closing(ReservedPort(LOOPBACK)) as port,
    ):
        place = folder.with_name("gate")
        place.mkdir()
        words = {"folder": place, "address": port.address, "behind": behind.address, "check": CHECK_PATH}
        (place / "nginx.conf").write_text(GATE.format(tokens=tokens.address, **words))
        argv: list[str | Path] = [program("nginx"), "-c", place / "nginx.conf", "-e", place / "log"]
        with ManagedProcess(argv, env=clean_environment(), name="nginx"):
            wait_until(lambda: is_listening(port.port), "nginx listens")
            yield Origin(port.address, tokens.address, own)


ORIGINS: Final[dict[str, Callable[[Path], AbstractContextManager[Origin]]]] = {
    "docker-registry": debian,
    "distribution-3": distribution,
    "olareg": olareg,
    "distribution-3 with tokens": distribution_with_tokens,
    "olareg with tokens": olareg_with_tokens,
}
NO_REFERRERS: Final = {
    "what_refers_to_a_manifest_is_listed",
    "what_nothing_refers_to_has_an_empty_list",
    "referrers_of_one_kind_are_listed",
    "that_referrers_are_of_one_kind_is_said",
}
LACKS: Final[dict[str, set[str]]] = {
    # It lists all tags in any order, whatever is asked for.
    "docker-registry": NO_REFERRERS
    | {
        "tags_are_listed_in_their_order",
        "as_many_tags_are_listed_as_are_asked_for",
        "no_tags_are_listed_where_none_are_asked_for",
        "tags_are_listed_after_the_last_one",
        "the_link_of_a_page_of_tags_leads_to_the_next_at_the_same_place",
    },
    "distribution-3": NO_REFERRERS,
    # It has no ETag, ends the connection where no tags are asked for, and every repository exists.
    "olareg": {
        "who_has_a_blob_already_is_told_so",
        "a_part_is_given_if_the_blob_is_the_same_still",
        "no_tags_are_listed_where_none_are_asked_for",
        "tags_of_an_unknown_repository_are_not_found",
    },
}


@dataclass(frozen=True)
class Mirrored:
    """A registry with the contents in it, and peers that mirror it."""

    name: str
    there: Contents
    direct: Asker
    alone: Asker
    shared: Asker


@pytest.fixture(scope="module", params=list(ORIGINS))
def mirrored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    folder = tmp_path_factory.mktemp("mirrored")
    there = Contents()
    with ORIGINS[request.param](folder / "registry") as origin, contextlib.ExitStack() as running:
        own = (origin.own,) if origin.own is not None else ()
        direct = Asker(origin.address, own)
        there.push(direct)
        flags = ["--insecure-upstream", origin.tokens] if origin.tokens else []
        cluster = running.enter_context(Cluster(folder, origin.address, supernode_flags=flags, peer_flags=flags))
        sharing = cluster.add_peer()
        cluster.wait_for_sessions(1)
        flags += ["--default-upstream", f"http://{origin.address}"]
        alone = Peer("alone", folder / "alone", [], LOOPBACK, LOOPBACK, flags)
        running.callback(alone.close)
        alone.start()
        name = request.param.partition(" ")[0]
        yield Mirrored(name, there, direct, Asker(alone.proxy, own), Asker(sharing.proxy, own))


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_what_a_registry_does_its_mirror_does(mirrored: Mirrored, name: str) -> None:
    check = REQUIREMENTS[name]
    if name in LACKS[mirrored.name]:
        with pytest.raises((AssertionError, KeyError, HTTPException)):
            check(mirrored.direct, mirrored.there)
        return
    check(mirrored.direct, mirrored.there)
    for mirror in (mirrored.alone, mirrored.shared):
        check(mirror, mirrored.there)
        check(mirror, mirrored.there)  # and from the store


def test_who_shows_no_token_is_challenged_as_by_the_registry(mirrored: Mirrored) -> None:
    there = mirrored.there
    for mirror in (mirrored.alone, mirrored.shared):
        for path in (
            f"{REPOSITORY}/manifests/image",
            f"{REPOSITORY}/manifests/{there.manifest.digest}",
            f"{REPOSITORY}/blobs/{there.layer.digest}",
            f"{REPOSITORY}/tags/list",
            f"{REPOSITORY}/referrers/{there.manifest.digest}",
        ):
            direct, through = (
                Asker(asker.address)("GET", f"/v2/{path}", *ACCEPT) for asker in (mirrored.direct, mirror)
            )
            told = [(answer.status, answer.headers.get("www-authenticate")) for answer in (direct, through)]
            assert told[0] == told[1], path
            if "referrers" not in path:  # which not each of them has
                assert (through.status == 401) == bool(mirrored.direct.own)
