"""What the facts mean: each part of the way as it should be, or what is wrong with it and what mends it. Pure.

A fault is named by one word, which docs/operations.md lists; every fault has a command or a setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peer.doctor.facts import Finding
from peer.setup import docker
from peer.setup.contract import DEFAULT_MIRROR
from proto.oci.upstreams import WELL_KNOWN_HOSTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peer.doctor.facts import ClientFacts, Facts, RegistryFacts

# As services do: below it tickets are good all the same.
CLOCK_DIFFERENCE_S: Final = 30.0
_TOKEN: Final = (
    "at the supernode: layercast-supernode token create > join.token; give the file to the peer as --join-file"
)
_UNIT: Final = "layercast-peer.service"
_START: Final = f"systemctl start {_UNIT}; without such a unit: layercast-peer --supernode URL --join-file FILE"
# Who holds the port while the peer is down, where its socket unit was installed.
_SOCKET_HOLDER: Final = "systemd ("
_ANEW: Final = "stop the peer, remove {data_dir}/membership.json, start it with a new token; " + _TOKEN


def judge(facts: Facts) -> list[Finding]:
    """In the order of the way: the client's file first, the registry last."""
    return [*_clients(facts), *_peer(facts), *_store(facts), *_supernode(facts), *_nodes(facts), *_registries(facts)]


def _clients(facts: Facts) -> Iterator[Finding]:
    set_up = [client for client in facts.clients if not client.wanted_files and not client.refused]
    for client in facts.clients:
        found = list(_client(client, _allowed(facts)))
        # One that nobody set up is nobody's fault while another is.
        if facts.clients_named or not set_up or client in set_up or client.was_set_up or client.other_ports:
            yield from found or [Finding(f"client {client.name}", f"set up for {client.mirror}")]
    if not facts.clients:
        yield Finding("client", "none was found on this machine", "client_missing", "layercast doctor --client NAME")


def _allowed(facts: Facts) -> set[str]:
    """Registries that the peer may be asked for."""
    return {*WELL_KNOWN_HOSTS, *(str(upstream["host"]) for upstream in facts.peer.said.get("upstreams", []))}


def _client(client: ClientFacts, allowed: set[str]) -> Iterator[Finding]:
    part = f"client {client.name}"
    mirror = "" if client.mirror == DEFAULT_MIRROR else f"--mirror {client.mirror}"
    command = " ".join(word for word in (f"layercast setup {client.name}", mirror, client.options) if word)
    mend = f"{command} && {client.restart}" if client.restart else command
    files = ", ".join(client.wanted_files)
    if client.refused:
        yield Finding(part, client.refused, "client_unusable", f"mend the file, then {command}")
    elif docker.CA in client.wanted_files and client.was_set_up:
        said = f"{docker.CA} is not the peer's certificate of now: the client does not believe what is intercepted"
        yield Finding(part, said, "client_old_certificate", mend)
    elif client.other_ports:
        said = f"{files} names port {', '.join(client.other_ports)} of this machine, the peer is {client.mirror}"
        yield Finding(part, said, "client_other_port", mend)
    elif client.wanted_files:
        said = f"{files} does not name the peer: the client goes straight to the registry"
        yield Finding(part, said, "client_not_set_up", mend)
    for registry, why in client.outside:
        # One that the peer may not be asked for is meant to go past it.
        if registry in allowed:
            yield Finding(part, why, "client_bypasses", f"{command} --registry {registry}")
    if client.not_read:
        said = f"{', '.join(client.not_read)} changed since the client started, which goes straight to the registry"
        yield Finding(part, said, "client_not_restarted", client.restart)


def _peer(facts: Facts) -> Iterator[Finding]:
    peer = facts.peer
    part = f"peer {peer.url}"
    port = peer.url.rpartition(":")[2]
    who = peer.taken_by or "another program"
    if peer.problem == "refused" and peer.runs_elsewhere:
        said = f"nothing listens there, but a peer runs with {peer.data_dir}"
        yield Finding(part, said, "peer_elsewhere", "layercast doctor --peer URL, with its --listen")
    elif peer.problem == "refused":
        yield Finding(part, "nothing listens there: it does not run", "peer_not_running", _START)
    elif peer.problem == "other":
        mend = (
            f"stop {who}, or run layercast-peer --listen 127.0.0.1:PORT and layercast setup CLIENT --mirror with that"
        )
        yield Finding(part, f"port {port} is {who}'s, not the peer's", "port_taken", mend)
    elif peer.problem == "silent" and peer.taken_by.startswith(_SOCKET_HOLDER):
        said = "systemd holds the port for it, and it does not run, or hangs"
        yield Finding(part, said, "peer_not_running", f"journalctl -u {_UNIT} says why; systemctl restart {_UNIT}")
    elif peer.problem == "silent":
        yield Finding(part, f"{who} listens and does not answer", "peer_hangs", f"systemctl restart {_UNIT}")
    elif peer.problem == "old":
        said = "an older release runs than this program's"
        yield Finding(part, said, "version_differs", f"systemctl restart {_UNIT}")
    elif not peer.said.get("ready"):
        yield Finding(part, f"not ready: {peer.said.get('problem')}", "peer_not_ready", f"journalctl -u {_UNIT}")
    else:
        yield from _running_peer(facts, part)


def _running_peer(facts: Facts, part: str) -> Iterator[Finding]:
    said = facts.peer.said
    limit, wanted = int(said.get("descriptors", 0)), int(said.get("descriptors_wanted", 0))
    if 0 < limit < wanted:
        text = f"it may have {limit} files and connections open, and may need {wanted}"
        mend = f"LimitNOFILE={wanted} in its unit (systemctl edit {_UNIT}), or ulimit -n {wanted}; restart it"
        yield Finding(part, text, "descriptors_few", mend)
    if said.get("version") != facts.version:
        text = f"it runs release {said.get('version')}, this program is {facts.version}"
        yield Finding(part, text, "version_differs", f"systemctl restart {_UNIT}")
    if not said.get("p2p", True):
        yield Finding(
            part, "p2p = false: it shares nothing", "sharing_off", "layercast drain --undo; or p2p = true, then SIGHUP"
        )
    if limit == 0 or limit >= wanted:
        yield Finding(part, f"ready, release {said.get('version')}")


def _store(facts: Facts) -> Iterator[Finding]:
    store = facts.peer.said.get("store")
    if not store:
        return
    folder = f"{facts.peer.said['data_dir']}/store"
    part, good = f"store {folder}", True
    if store["disk_problem"] or not store["writable"]:
        why = store["disk_problem"] or "it is not writable for the peer: another owner, or a disk that turned read-only"
        mend = (
            f"findmnt -T {folder} && mount -o remount,rw, or chown it to the peer's user; dmesg says what the disk did"
        )
        yield Finding(part, why, "store_not_writable", mend)
        good = False
    elif store["free_bytes"] < store["free_floor_bytes"]:
        free, floor = _mib(store["free_bytes"]), _mib(store["free_floor_bytes"])
        mend = f"make room (du -xh {folder}; layercast evict DIGEST), or lower store_size or store_free_floor"
        yield Finding(part, f"its disk has {free} free, less than the {floor} to be left", "store_full", mend)
        good = False
    if store["rotten_pieces"]:
        text = f"{store['rotten_pieces']} pieces rotted on its disk since the peer's start"
        mend = f"layercast verify --data-dir {facts.peer.said['data_dir']}; look after the disk (smartctl -a)"
        yield Finding(part, text, "store_rotten", mend)
        good = False
    if good:
        yield Finding(part, f"{_mib(store['used_bytes'])} used, {_mib(store['free_bytes'])} free on its disk")


def _supernode(facts: Facts) -> Iterator[Finding]:
    supernode, said = facts.supernode, facts.peer.said
    if supernode.url is None:
        return
    part, found = f"supernode {supernode.url}", []
    expires_unix_s = supernode.expires_unix_s or said.get("certificate_expires_unix_s")
    problem = str(said.get("session_problem") or "")
    ahead_s = supernode.ahead_s or float(said.get("supernode_ahead_s") or 0.0)
    if abs(ahead_s) > CLOCK_DIFFERENCE_S:
        side = "behind" if ahead_s > 0 else "ahead of"
        text = f"this machine's clock is {abs(ahead_s):.0f} s {side} the supernode's"
        found.append(Finding(part, text, "clock_differs", "timedatectl set-ntp true (on the machine that is wrong)"))
    if expires_unix_s is not None and expires_unix_s < facts.now_unix_s:
        text = "this node's certificate has expired"
        found.append(Finding(part, text, "certificate_expired", _anew(facts)))
    elif supernode.unreachable:
        mend = f"start layercast-supernode there, open {_port(supernode.url)} to it, or correct the peer's --supernode"
        found.append(Finding(part, supernode.unreachable, "supernode_unreachable", mend))
    elif supernode.old or "version" in problem:
        text = problem or "it is of an older release than this node"
        found.append(Finding(part, text, "version_differs", _same_release(facts)))
    elif not found and (supernode.refused or (problem and not said.get("connected"))):
        found.append(_not_admitted(facts, part, problem or supernode.refused))
    elif supernode.check and supernode.check["version"] != facts.version:
        text = f"it runs release {supernode.check['version']}, this node {facts.version}"
        found.append(Finding(part, text, "version_differs", _same_release(facts)))
    yield from found
    if not found:
        yield Finding(part, supernode.skipped or "reached; this node is a member")


def _not_admitted(facts: Facts, part: str, problem: str) -> Finding:
    if "join token" in problem and "authority" not in problem:
        return Finding(part, problem, "join_token_refused", _TOKEN)
    if "--open" in problem:
        return Finding(part, problem, "membership_differs", "start both with --open, or both without")
    if "correct --supernode" in problem:
        return Finding(part, problem, "supernode_wrong", "correct the peer's --supernode")
    return Finding(part, problem, "not_admitted", _anew(facts))


def _nodes(facts: Facts) -> Iterator[Finding]:
    check = facts.supernode.check
    if not check.get("connected"):
        return
    address = check["address"]
    part = f"other nodes to {address}"
    if check["address_refused"]:
        text = f"{check['address_refused']} is not where this node connects from, and nobody is sent there"
        mend = "at the supernode: --advertise-allow NETWORK with that address in it; or drop the peer's --advertise"
        yield Finding(part, text, "address_not_allowed", mend)
    elif check["unreached"]:
        port = address.rpartition(":")[2]
        mend = f"open TCP {port} of this node for other nodes (nft, security groups), or set --advertise HOST:PORT"
        yield Finding(part, f"the supernode gets no connection: {check['unreached']}", "node_unreached", mend)
    else:
        yield Finding(part, "the supernode reaches it")


def _registries(facts: Facts) -> Iterator[Finding]:
    limited = {**facts.peer.said.get("limited", {}), **facts.supernode.check.get("limited", {})}
    logins = facts.supernode.check.get("logins", {})
    for registry in facts.registries:
        found = list(_registry(registry, limited.pop(registry.host, 0.0)))
        yield from found or [Finding(f"registry {registry.host}", f"answers at {registry.address}")]
    for host, for_s in limited.items():
        yield _limit(f"registry {host}", for_s)
    for host, problem in logins.items():
        mend = (
            f'at the supernode: docker login {host}, or correct credentials of [upstream."{host}"]; the right to pull'
        )
        yield Finding(f"login {host}", problem, "login_refused", mend)


def _registry(registry: RegistryFacts, limited_s: float) -> Iterator[Finding]:
    part, host = f"registry {registry.host}", registry.host
    if registry.by_peer == 404:
        mend = f'allow_upstream = ["{host}"] at the peers and the supernode, then SIGHUP them'
        text = "no allowed upstream of the peer: clients go straight to it"
        yield Finding(part, text, "registry_not_allowed", mend)
    elif registry.step == "name":
        mend = (
            f"getent hosts {registry.address.partition(':')[0]}; correct /etc/resolv.conf, or the url of the upstream"
        )
        yield Finding(part, registry.problem, "registry_name", mend)
    elif registry.step == "connect":
        text = f"{registry.address}: {registry.problem}"
        mend = f'curl -v https://{registry.address}/v2/; open the way to it, or set egress_proxy of [upstream."{host}"]'
        yield Finding(part, text, "registry_unreachable", mend)
    elif registry.step == "tls":
        text = f"{registry.address}: {registry.problem}"
        mend = f'ca_file = "its-authority.pem" in [upstream."{host}"], at the peers and the supernode, then SIGHUP them'
        yield Finding(part, text, "registry_tls", mend)
    elif registry.step == "folder":
        mend = f'mount it, or correct directory in [upstream."{host}"]'
        yield Finding(part, f"{registry.address}: {registry.problem}", "registry_folder", mend)
    elif limited_s or registry.status == 429:
        yield _limit(part, limited_s or registry.retry_after_s)
    elif registry.status >= 500:
        text = f"{registry.address} answers {registry.status}"
        yield Finding(part, text, "registry_down", f"curl -v https://{registry.address}/v2/; ask who runs it")
    elif registry.by_peer >= 500:
        text = f"{registry.address} answers this program, and by way of the peer {registry.by_peer} comes"
        if not registry.asked:
            text = f"{registry.address}: by way of the peer, which alone may ask it, {registry.by_peer} comes"
        mend = f"journalctl -u {_UNIT} says why (origin_out_of_reach, ...); its network, its egress_proxy or ca_file"
        yield Finding(part, text, "registry_not_by_peer", mend)


def _limit(part: str, for_s: float) -> Finding:
    text = f"it limits how often it is asked (429), for {for_s:.0f} s more"
    mend = 'wait; docker login at the supernode and credentials = "docker-config" of its upstream raise the limit'
    return Finding(part, text, "registry_limits", mend)


def _anew(facts: Facts) -> str:
    return _ANEW.format(data_dir=facts.peer.said.get("data_dir") or facts.peer.data_dir)


def _same_release(facts: Facts) -> str:
    return f"pip install layercast=={facts.version} on both, the supernode first"


def _port(url: str) -> str:
    return f"TCP {url.rpartition(':')[2].rstrip('/')}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB" if size_bytes < 2**30 else f"{size_bytes / 2**30:.1f} GiB"
