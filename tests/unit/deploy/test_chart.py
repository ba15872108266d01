"""The chart, rendered in six variants by Helm: Kubernetes takes it, and the programs take what it tells them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

import peer.config
import supernode.config
from proto import VERSION
from proto.config.values import HostPort
from tests.support.kubernetes_schemas import faults
from tests.support.rendered_chart import CHART, RELEASES, VARIANTS, manifests, rendered, run_helm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rendered_chart import Manifest

ROOT = Path(__file__).parents[3]
# What the linter calls a remark; a warning is more.
INFO: Final = 1
# Kinds of the Prometheus operator, which Kubernetes does not know.
OPERATOR_GROUP = "monitoring.coreos.com/"


def one(variant: str, kind: str, name: str) -> Manifest:
    """Of this kind and name."""
    found = [each for each in manifests(variant) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1
    return found[0]


def pods(variant: str) -> Iterator[tuple[str, Manifest]]:
    """Each pod's name and what it is to be."""
    for each in manifests(variant):
        if each["kind"] in ("DaemonSet", "Job", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_every_manifest(variant: str, release: str) -> None:
    known = [each for each in manifests(variant, release) if not each["apiVersion"].startswith(OPERATOR_GROUP)]
    assert len(known) >= 5
    assert [fault for each in known for fault in faults(each, release)] == []


def test_a_field_that_kubernetes_does_not_know_would_be_noticed() -> None:
    wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "datas": {}}
    assert "datas" in "".join(faults(wrong, RELEASES[-1]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_nothing_to_warn_of(variant: str) -> None:
    remarks = rendered(RELEASES[-1])[variant]["lint"]
    assert [remark["text"] for remark in remarks if remark["severity"] > INFO] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_programs_take_their_settings(variant: str, tmp_path: Path) -> None:
    for role, load in (("peer", peer.config.load), ("supernode", supernode.config.load)):
        file = tmp_path / f"{role}.toml"
        file.write_text(one(variant, "ConfigMap", f"layercast-{role}")["data"][f"{role}.toml"])
        config = load(["--config", str(file)], {})
        assert config.open == (variant in ("k3s", "trial"))
        assert config.warnings == ()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_pod_mounts_is_there(variant: str) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in manifests(variant)}
    there |= {("ConfigMap", "our-authorities"), ("Secret", "our-login"), ("Secret", "our-token")}
    for name, pod in pods(variant):
        claims = {"data"} if name.endswith("-supernode") else set()
        assert {mount["name"] for each in containers(pod) for mount in each["volumeMounts"]} == {
            *(volume["name"] for volume in pod["volumes"]), *claims,
        }  # fmt: skip
        named = [("ConfigMap", each["configMap"]["name"]) for each in pod["volumes"] if "configMap" in each]
        named += [("Secret", each["secret"]["secretName"]) for each in pod["volumes"] if "secret" in each]
        named += [("ServiceAccount", pod["serviceAccountName"])] if "serviceAccountName" in pod else []
        assert set(named) - there == set()


def containers(pod: Manifest) -> list[Manifest]:
    """All of a pod's."""
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_runs_as_root_but_what_writes_the_runtime_s_files(variant: str) -> None:
    for _, pod in pods(variant):
        for each in containers(pod):
            rights = {**pod.get("securityContext", {}), **each["securityContext"]}
            assert rights["readOnlyRootFilesystem"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"]["drop"] == ["ALL"]
            assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
            assert (rights.get("runAsNonRoot"), "add" in rights["capabilities"]) == (
                (None, True) if each["name"] == "client" else (True, False)
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_has_room_of_its_own(variant: str) -> None:
    for _, pod in pods(variant):
        for each in containers(pod):
            assert set(each["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in each["resources"]["limits"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_account_may_change_nothing_but_what_the_chart_made(variant: str) -> None:
    there = {each["metadata"]["name"] for each in manifests(variant)}
    for role in (each for each in manifests(variant) if each["kind"] == "Role"):
        for rule in role["rules"]:
            assert set(rule["verbs"]) <= {"get", "patch"}
            assert rule["resourceNames"]
            assert set(rule["resourceNames"]) <= there


def test_the_ports_are_those_of_the_programs() -> None:
    ports = {each["name"]: each["port"] for each in one("defaults", "Service", "layercast-supernode")["spec"]["ports"]}
    defaults = {field.name: field.default for field in supernode.config.SupernodeConfig.__dataclass_fields__.values()}
    assert {"api": defaults["listen"], "pieces": defaults["upload_listen"]} == {
        name: HostPort("0.0.0.0", port) for name, port in ports.items()
    }


def test_the_secrets_that_prometheus_reads_are_made_by_the_chart() -> None:
    monitor = one("monitored", "ServiceMonitor", "layercast-supernode")["spec"]["endpoints"][0]
    named = {monitor["tlsConfig"]["ca"]["secret"]["name"], monitor["authorization"]["credentials"]["name"]}
    assert named == {one("monitored", "Secret", "layercast-operator")["metadata"]["name"]}


def test_the_alerts_are_those_of_the_rules_file() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/layercast.rules.yaml").read_text())
    assert one("monitored", "PrometheusRule", "layercast")["spec"] == rules


def test_the_chart_installs_this_release() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == VERSION


@pytest.mark.parametrize(
    "values", ["peers: {}", "peer: {port: 0}", "client: {runtime: rkt}", "image: {digest: latest}", "open: 1"]
)
def test_a_value_that_means_nothing_is_refused(values: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(values)
    assert "values" in run_helm(RELEASES[-1], f"wrong={file}")["wrong"]["error"]
