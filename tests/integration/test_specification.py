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
from benchmarks.cluster.programs import clean_environment
from benchmarks.cluster.registry import Registry
from benchmarks.cluster.services import LOOPBACK, Cluster, Peer
from tests.support.built_programs import DISTRIBUTION_3, OLAREG, built
from tests.support.registry_contents import Asker, Contents
from tests.support.registry_requirements import REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = pytest.mark.client("docker-registry", "go")


@contextlib.contextmanager
def debian(folder: Path) -> Iterator[str]:
    """docker-registry 2.8.2."""
    with Registry(folder) as registry:
        yield registry.address


@contextlib.contextmanager
def distribution(folder: Path) -> Iterator[str]:
    with Registry(folder, executable=built(DISTRIBUTION_3)) as registry:
        yield registry.address


@contextlib.contextmanager
def olareg(folder: Path) -> Iterator[str]:
    argv: list[str | Path] = [built(OLAREG), "serve", "--addr", LOOPBACK, "--dir", folder]
    with contextlib.closing(ReservedPort(LOOPBACK)) as port:
        number = port.address.rpartition(":")[2]
        with ManagedProcess([*argv, "--port", number], env=clean_environment(HOME=str(folder)), name="olareg"):
            wait_until(lambda: _answers(port.address), "olareg answers")
            yield port.address


def _answers(address: str) -> bool:
    with contextlib.suppress(ConnectionError):
        return Asker(address)("GET", "/v2/").status == 200
    return False


ORIGINS: Final[dict[str, Callable[[Path], AbstractContextManager[str]]]] = {
    "docker-registry": debian,
    "distribution-3": distribution,
    "olareg": olareg,
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
    folder = tmp_path_factory.mktemp(request.param)
    there = Contents()
    with ORIGINS[request.param](folder / "registry") as address, contextlib.ExitStack() as running:
        direct = Asker(address)
        there.push(direct)
        cluster = running.enter_context(Cluster(folder, address))
        sharing = cluster.add_peer()
        cluster.wait_for_sessions(1)
        flags = ["--default-upstream", f"http://{address}"]
        alone = Peer("alone", folder / "alone", [], LOOPBACK, LOOPBACK, flags)
        running.callback(alone.close)
        alone.start()
        yield Mirrored(request.param, there, direct, Asker(alone.proxy), Asker(sharing.proxy))


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
