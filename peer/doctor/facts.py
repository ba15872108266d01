"""What was found out about a node, and what is concluded from it. Data alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Finding:
    """`fault` is empty where the part is as it should be; else `mend` is what to run, or to set."""

    part: str
    said: str
    fault: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """`wanted_files` are what `layercast setup` would write, none where it is set up. `refused`: why it cannot.

    `options` are those that it was set up with. `other_ports`: of this machine, that these files name in the peer's
    place. `outside`: registries that go past the peer, and why. `not_read`: files that the running client has not read.
    """

    name: str
    mirror: str
    wanted_files: tuple[str, ...] = ()
    refused: str = ""
    was_set_up: bool = False
    options: str = ""
    other_ports: tuple[str, ...] = ()
    outside: tuple[tuple[str, str], ...] = ()
    not_read: tuple[str, ...] = ()
    restart: str = ""


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """`said` is its /v1/status. Without one `problem` says why: refused, silent, other (somebody else answers), old."""

    url: str
    said: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    # Who listens there, if it is to be seen.
    taken_by: str = ""
    # Another process has its data folder: a peer, at another port.
    runs_elsewhere: bool = False
    data_dir: str = ""


@dataclass(frozen=True, slots=True)
class SupernodeFacts:
    """`check` is its /v1/check. Without one: `unreachable` (network), `refused` (by it, or by us) or `skipped`.

    `ahead_s`: by how much its clock is ahead of this machine's. `old`: it knows no such question.
    """

    url: str | None
    check: Mapping[str, Any] = field(default_factory=dict)
    unreachable: str = ""
    refused: str = ""
    skipped: str = ""
    ahead_s: float = 0.0
    old: bool = False
    # None without a certificate.
    expires_unix_s: float | None = None


@dataclass(frozen=True, slots=True)
class RegistryFacts:
    """What a registry answers this machine. `problem` is about `step`: name, connect, tls, folder.

    `status` is of GET /v2/ there, 0 for none; `by_peer` of the same by way of the peer, 0 where that is not known.
    `asked`: it may be asked without the peer.
    """

    host: str
    address: str
    step: str = ""
    problem: str = ""
    status: int = 0
    retry_after_s: float = 0.0
    by_peer: int = 0
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `version` is this program's."""

    version: str
    now_unix_s: float
    peer: PeerFacts
    supernode: SupernodeFacts
    clients: tuple[ClientFacts, ...] = ()
    registries: tuple[RegistryFacts, ...] = ()
    # Clients that the operator named: each must be set up.
    clients_named: bool = False
