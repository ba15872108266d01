"""A site as the real-client tests need it: an origin that is counted, a supernode, and nodes with a client each.

    host: docker-registry - counting proxy, supernode
    node: a peer, which reaches the host and the other nodes
      +-- client: a container client, which reaches its node's peer and nothing else

What the registry sends, the counting proxy has in its books; what the peers got, they say themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.cluster.counting_proxy import CountingProxy
from benchmarks.cluster.services import Cluster
from tests.support.counts import assert_becomes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.cluster.image import BlobFile, Image
    from benchmarks.cluster.ledger import Ledger
    from benchmarks.cluster.proxy_process import ProxyControl
    from benchmarks.cluster.registry import Registry
    from benchmarks.cluster.services import Peer
    from tests.support.networks import ClientNamespace, Lab


@dataclass(frozen=True, slots=True)
class ClientNode:
    """A peer in a node's namespace, and the namespace of its client."""

    peer: Peer
    client: ClientNamespace


class Site:
    """Origin, supernode and nodes; a context manager, which starts the first two and fails if one logged an error.

    `named` are registries (quay.io, say) that the supernode and all peers shall find at the origin.
    """

    def __init__(
        self,
        lab: Lab,
        registry: Registry,
        directory: Path,
        *,
        named: Sequence[str] = (),
        supernode_flags: Sequence[str] = (),
        peer_flags: Sequence[str] = (),
    ) -> None:
        self._lab = lab
        self.origin = CountingProxy(registry.host_port, (lab.host_address, 0))
        config = _write_upstreams(directory, named, self.origin.url)
        self.cluster = Cluster(
            directory,
            self.origin.address,
            host=lab.host_address,
            supernode_flags=["--config", config, *supernode_flags],
            peer_flags=["--config", config, *peer_flags],
        )

    def __enter__(self) -> Site:
        try:
            self.cluster.__enter__()
        except BaseException:
            self.origin.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        complaints = self._complaints()
        self.cluster.close()
        self.origin.close()
        if kind is None:
            assert complaints == [], "a pull that goes well is no error to anybody"

    def _complaints(self) -> list[str]:
        """What supernode and peers logged as errors."""
        lines = [line for service in (self.cluster.supernode, *self.cluster.peers) for line in service.process.log()]
        return [line for line in lines if line.split()[1:2] in (["error"], ["critical"])]

    def add_node(self, extra: Sequence[str] = ()) -> ClientNode:
        """A node whose peer runs, and its client's namespace, which has no route to the origin."""
        node = self._lab.add_node()
        client = node.add_client()
        peer = self.cluster.add_peer(node, proxy_host=client.gateway, extra=extra)
        host, _, port = self.origin.address.rpartition(":")
        assert not client.reaches(host, int(port))
        return ClientNode(peer, client)


def assert_left_the_origin_once(origin: ProxyControl, blobs: Sequence[BlobFile]) -> None:
    """Each byte of each blob left the origin exactly once, in one GET or in one for each of several ranges."""
    ledger: Ledger = origin.ledger()
    left = {blob.digest: (ledger.blob_bytes(blob.digest), ledger.distinct_bytes(blob.digest)) for blob in blobs}
    assert left == {blob.digest: (blob.size_bytes, blob.size_bytes) for blob in blobs}
    for blob in blobs:
        whole = [asked for asked in ledger.ranges(blob.digest) if asked is None]
        assert not whole or ledger.gets(blob.digest) == 1, f"{blob.digest} was asked whole and in part"


def assert_all_came_by_the_swarm(peer: Peer, image: Image, *, manifests: bool = True) -> None:
    """The peer received the image's bytes once, from seed and peers alone, and its client got them from it.

    With or without `manifests`, which no client counts as received.

    A client has its last byte before the peer's disk has it, and the peer counts a check once both have: so the
    figures are waited for.
    """

    def figures() -> dict[str, int]:
        metrics = peer.metrics()
        received = {
            source: int(metrics.value("layercast_bytes_total", source=source))
            for source in ("peer", "seed", "origin", "passthrough")
        }
        return {
            "from the swarm": received["peer"] + received["seed"],
            "from the origin": received["origin"] + received["passthrough"],
            "to clients": peer.client_bytes("swarm") + peer.client_bytes("store"),
            "digests right": int(metrics.value("layercast_digest_checks_total", result="ok")),
            "digests wrong": int(metrics.value("layercast_digest_checks_total", result="mismatch")),
        }

    wanted = {
        "from the swarm": image.pulled_bytes if manifests else image.size_bytes,
        "from the origin": 0,
        "to clients": image.size_bytes,
        "digests right": len({*image.blobs, *(image.manifests if manifests else ())}),
        "digests wrong": 0,
    }
    assert_becomes(figures, wanted)


def assert_stored_blobs_suffice(peer: Peer, image: Image, *, manifests: bool = True) -> None:
    """The peer's clients got the image twice, and its bytes came to the peer once."""
    pulled_bytes = image.pulled_bytes if manifests else image.size_bytes

    def figures() -> dict[str, int]:
        return {
            "received": sum(peer.received_bytes(source) for source in ("peer", "seed", "origin", "passthrough")),
            "to clients": peer.client_bytes("swarm") + peer.client_bytes("store"),
        }

    assert_becomes(figures, {"received": pulled_bytes, "to clients": 2 * image.size_bytes})
    assert peer.client_bytes("store") >= image.size_bytes


def _write_upstreams(directory: Path, named: Sequence[str], url: str) -> str:
    file = directory / "upstreams.toml"
    file.write_text("".join(f'[upstream."{host}"]\nurl = "{url}"\n' for host in named))
    return str(file)
