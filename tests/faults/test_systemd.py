"""The units, installed as docs/systemd.md says and run by systemd, in a machine of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import make_random_image
from benchmarks.cluster.processes import wait_until
from tests.support.counts import assert_becomes
from tests.support.systemd_machine import REPOSITORY, SystemdMachine, install_layercast, layercast_folders

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.client("systemd", "unshare", "nsenter", "ip", "curl")]

PAGE = Path(__file__).parents[2] / "docs" / "systemd.md"
HEALTH = "curl --silent --show-error --fail --max-time 300 http://127.0.0.1:65001/healthz"
PATIENCE_S = 300.0
# What curl ends with where nobody listens.
REFUSED = 7
UPSTREAM = '[upstream."registry.lab"]\ndirectory = "/srv/image"\n'


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdMachine]:
    """A supernode and a peer, with the commands of the page; both have one image as a registry."""
    image = tmp_path_factory.mktemp("image")
    image.chmod(0o755)
    make_random_image(image, [300_000, 70_000], seed=16, ref_name="1.0")
    folders = {**layercast_folders(), image: "/srv/image"}
    with SystemdMachine(tmp_path_factory.mktemp("machine"), folders) as running:
        install_layercast(running)
        common, supernode, node = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        # Layercast itself is there.
        common = "\n".join(line for line in common.splitlines() if "/opt/layercast" not in line)
        running.run(f"cd {REPOSITORY}\n{common}")
        running.run(f"mkdir -p /etc/containerd\nprintf '%s' '{UPSTREAM}' >/etc/layercast/supernode.toml\n{supernode}")
        running.run(node.replace("SUPERNODE", "127.0.0.1"))
        # Read anew while it runs.
        running.run(f"printf '%s' '{UPSTREAM}' >>/etc/layercast/peer.toml\nsystemctl reload layercast-peer")
        yield running


def health(machine: SystemdMachine) -> int:
    """Ask the mirror's port; curl's exit status."""
    return machine.run(HEALTH, check=False).returncode


def sources_received_from(machine: SystemdMachine) -> set[str]:
    metrics = machine.run("curl --silent --fail http://127.0.0.1:65001/metrics").stdout
    received = re.findall(r'^layercast_bytes_total\{source="(\w+)"\} (\S+)$', metrics, re.MULTILINE)
    return {source for source, count in received if float(count)}


def test_a_node_that_was_set_up_as_the_page_says_shares_images(machine: SystemdMachine) -> None:
    wait_until(lambda: "supernode: connected" in machine.run(HEALTH).stdout, "a session with the supernode", PATIENCE_S)
    assert "http://127.0.0.1:65001" in machine.run("cat /etc/containerd/certs.d/_default/hosts.toml").stdout
    machine.run("/opt/layercast/bin/layercast pull registry.lab/app:1.0")
    assert_becomes(lambda: sources_received_from(machine), {"seed"})


def test_a_restart_ends_when_the_supernode_is_ready_and_both_run_as_their_own_user(machine: SystemdMachine) -> None:
    machine.run("systemctl restart layercast-supernode && curl --insecure --fail https://127.0.0.1:65000/healthz")
    for name in ("peer", "supernode"):
        pid = machine.run(f"systemctl show --property=MainPID --value layercast-{name}").stdout.strip()
        assert machine.run(f"stat --format=%U /proc/{pid}").stdout == "layercast\n"


def test_a_client_that_comes_while_the_peer_is_killed_waits_for_the_next(machine: SystemdMachine) -> None:
    before = machine.run("systemctl show --property=NRestarts --value layercast-peer").stdout
    machine.run(f"systemctl kill --signal=KILL layercast-peer\n{HEALTH}")
    assert machine.run("systemctl show --property=NRestarts --value layercast-peer").stdout != before


def test_the_port_is_closed_when_both_are_stopped(machine: SystemdMachine) -> None:
    machine.run("systemctl stop layercast-peer.socket layercast-peer")
    assert health(machine) == REFUSED
    machine.run("systemctl start layercast-peer.socket layercast-peer")
    assert health(machine) == 0


def test_a_peer_that_cannot_start_gives_up_and_clients_are_refused(machine: SystemdMachine) -> None:
    machine.run("cp -p /etc/layercast/peer.toml . && echo 'listen = 1' >/etc/layercast/peer.toml")
    machine.run("systemctl stop layercast-peer")
    wait_until(lambda: health(machine) == REFUSED, "the end of the socket unit", PATIENCE_S)
    assert "listen" in machine.run("journalctl --unit=layercast-peer --lines=20").stdout
    machine.run(
        "cp -p peer.toml /etc/layercast/ && systemctl reset-failed layercast-peer.service layercast-peer.socket"
    )
    machine.run("systemctl start layercast-peer.socket layercast-peer")
    assert health(machine) == 0
