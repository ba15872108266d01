"""What facts mean. A good node's have no fault; one fact at a time is another here, and names its fault."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peer.doctor import judgement
from peer.doctor.facts import ClientFacts, Facts, PeerFacts, RegistryFacts, SupernodeFacts
from peer.doctor.judgement import judge
from peer.setup import docker

ROOT = Path(__file__).parents[4]
NOW_UNIX_S = 1_000_000.0
CLIENT = ClientFacts("containerd", "http://127.0.0.1:65001", restart="systemctl restart containerd")
SAID: dict[str, Any] = {
    "ready": True,
    "version": "1",
    "connected": True,
    "session_problem": "",
    "supernode_ahead_s": 0.4,
    "certificate_expires_unix_s": NOW_UNIX_S + 1e6,
    "data_dir": "/data",
    "descriptors": 8192,
    "descriptors_wanted": 8192,
    "limited": {},
    "store": {
        "free_bytes": 3 << 30,
        "writable": True,
        "disk_problem": "",
        "used_bytes": 5,
        "free_floor_bytes": 2 << 30,
        "rotten_pieces": 0,
    },
}
CHECK: dict[str, Any] = {
    "version": "1",
    "connected": True,
    "address": "10.0.0.7:65002",
    "address_refused": "",
    "unreached": "",
    "logins": {},
    "limited": {},
}
GOOD = Facts(
    "1",
    NOW_UNIX_S,
    PeerFacts("http://127.0.0.1:65001", SAID, data_dir="/data"),
    SupernodeFacts("https://supernode:65000", CHECK, expires_unix_s=NOW_UNIX_S + 1e6),
    (CLIENT,),
    (RegistryFacts("quay.io", "quay.io", status=401, by_peer=401),),
)


def test_a_registry_that_only_the_peer_may_ask_is_judged_by_its_answer() -> None:
    alone = RegistryFacts("quay.io", "quay.io", by_peer=401, asked=False)
    assert faults(replace(GOOD, registries=(alone,))) == []
    found = next(each for each in judge(replace(GOOD, registries=(replace(alone, by_peer=502),))) if each.fault)
    assert found.fault == "registry_not_by_peer"
    assert "answers this program" not in found.said


def faults(facts: Facts) -> list[str]:
    return [finding.fault for finding in judge(facts) if finding.fault]


def said(**changes: object) -> Facts:
    return replace(GOOD, peer=replace(GOOD.peer, said=SAID | changes))


def checked(**changes: object) -> Facts:
    return replace(GOOD, supernode=replace(GOOD.supernode, check=CHECK | changes))


def supernode(**changes: Any) -> Facts:
    return replace(GOOD, supernode=replace(GOOD.supernode, check={}, **changes))


def client(**changes: Any) -> Facts:
    return replace(GOOD, clients=(replace(CLIENT, **changes),))


def peer(**changes: Any) -> Facts:
    return replace(GOOD, peer=PeerFacts("http://127.0.0.1:65001", **changes))


def registry(**changes: Any) -> Facts:
    return replace(GOOD, registries=(replace(GOOD.registries[0], **changes),))


def test_a_good_node_has_each_link_and_no_fault() -> None:
    assert faults(GOOD) == []
    assert [finding.part.split()[0] for finding in judge(GOOD)] == [
        "client", "peer", "store", "supernode", "other", "registry",
    ]  # fmt: skip


CASES = [
    (client(wanted_files=("/etc/a",)), "client_not_set_up"),
    (client(wanted_files=("/etc/a",), other_ports=("7001",)), "client_other_port"),
    (client(refused="/etc/a: not TOML"), "client_unusable"),
    (client(outside=(("quay.io", "/etc/x hides _default"),)), "client_bypasses"),
    (client(wanted_files=(docker.CA,), was_set_up=True, options="--proxy"), "client_old_certificate"),
    (client(not_read=("/etc/a",)), "client_not_restarted"),
    (replace(GOOD, clients=()), "client_missing"),
    (peer(problem="refused"), "peer_not_running"),
    (peer(problem="refused", runs_elsewhere=True), "peer_elsewhere"),
    (peer(problem="other", taken_by="nginx (pid 7)"), "port_taken"),
    (peer(problem="silent"), "peer_hangs"),
    (peer(problem="silent", taken_by="systemd (pid 1)"), "peer_not_running"),
    (peer(problem="old"), "version_differs"),
    (said(ready=False, problem="starting"), "peer_not_ready"),
    (said(version="0"), "version_differs"),
    (said(p2p=False), "sharing_off"),
    (said(descriptors=1024), "descriptors_few"),
    (said(store=SAID["store"] | {"writable": False}), "store_not_writable"),
    (said(store=SAID["store"] | {"free_bytes": 5}), "store_full"),
    (said(store=SAID["store"] | {"rotten_pieces": 1}), "store_rotten"),
    (said(supernode_ahead_s=-90.0), "clock_differs"),
    (supernode(unreachable="Connection refused"), "supernode_unreachable"),
    (supernode(old=True), "version_differs"),
    (supernode(expires_unix_s=NOW_UNIX_S - 1), "certificate_expired"),
    (supernode(refused="refused (403): was revoked"), "not_admitted"),
    (supernode(refused="it speaks no TLS: it was started with --open"), "membership_differs"),
    (supernode(refused="another node, not the supernode: correct --supernode"), "supernode_wrong"),
    (supernode(refused="refused (403): the join token x is expired"), "join_token_refused"),
    (checked(version="0"), "version_differs"),
    (checked(unreached="Connection refused"), "node_unreached"),
    (checked(address_refused="192.0.2.1:65002"), "address_not_allowed"),
    (checked(logins={"quay.io": "no such file"}), "login_refused"),
    (checked(limited={"ghcr.io": 30.0}), "registry_limits"),
    (said(limited={"quay.io": 30.0}), "registry_limits"),
    (registry(by_peer=404), "registry_not_allowed"),
    (registry(step="name", problem="no address"), "registry_name"),
    (registry(step="connect", problem="refused"), "registry_unreachable"),
    (registry(step="tls", problem="unknown authority"), "registry_tls"),
    (registry(step="folder", problem="missing"), "registry_folder"),
    (registry(status=429, retry_after_s=60.0), "registry_limits"),
    (registry(status=503), "registry_down"),
    (registry(by_peer=503), "registry_not_by_peer"),
]


@pytest.mark.parametrize(("facts", "fault"), CASES, ids=[f"{fault}-{place}" for place, (_, fault) in enumerate(CASES)])
def test_each_fault_is_named_by_itself_and_has_what_mends_it(facts: Facts, fault: str) -> None:
    assert faults(facts) == [fault]
    assert all(finding.mend for finding in judge(facts) if finding.fault)


def test_every_fault_has_its_case_here_and_its_row_in_the_documents() -> None:
    calls = [node for node in ast.walk(ast.parse(Path(judgement.__file__).read_text())) if isinstance(node, ast.Call)]
    made = [
        call.args[2]
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Finding" and call.args[2:]
    ]
    named = {argument.value for argument in made if isinstance(argument, ast.Constant)}
    assert len(named) > 30
    assert {fault for _, fault in CASES} == named
    section = (ROOT / "docs/operations.md").read_text().partition("## What is wrong on a node")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {fault for cell in cells for fault in re.findall(r"`([a-z_]+)`", cell)} == named


def test_a_client_that_nobody_set_up_is_no_fault_beside_one_that_is() -> None:
    other = ClientFacts("docker", CLIENT.mirror, wanted_files=("/etc/docker/daemon.json",))
    assert faults(replace(GOOD, clients=(CLIENT, other))) == []
    assert faults(replace(GOOD, clients=(CLIENT, replace(other, was_set_up=True)))) == ["client_not_set_up"]
    assert faults(replace(GOOD, clients=(CLIENT, other), clients_named=True)) == ["client_not_set_up"]


def test_a_registry_that_the_peer_may_not_be_asked_for_is_meant_to_go_past_it() -> None:
    assert faults(client(outside=(("10.0.0.5:5000", "/etc/x hides _default"),))) == []


def test_the_command_has_the_options_that_the_client_was_set_up_with() -> None:
    facts = client(name="docker", wanted_files=("/etc/a",), options="--proxy --registry quay.io")
    found = next(finding for finding in judge(facts) if finding.fault)
    assert found.mend.startswith("layercast setup docker --proxy --registry quay.io && ")


def test_a_client_that_reads_its_files_by_itself_is_not_restarted() -> None:
    found = next(
        finding for finding in judge(client(name="podman", wanted_files=("/etc/a",), restart="")) if finding.fault
    )
    assert found.mend == "layercast setup podman"


def test_a_peer_without_a_supernode_has_no_such_link() -> None:
    alone = replace(GOOD, supernode=SupernodeFacts(None))
    assert faults(alone) == []
    assert not any(finding.part.startswith("supernode") for finding in judge(alone))


def test_a_mirror_at_another_port_is_in_the_command() -> None:
    facts = client(mirror="http://127.0.0.1:7001", wanted_files=("/etc/a",))
    found = next(finding for finding in judge(facts) if finding.fault)
    assert found.mend == ("layercast setup containerd --mirror http://127.0.0.1:7001 && systemctl restart containerd")
