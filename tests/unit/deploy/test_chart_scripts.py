"""What the chart's containers run beside the two services: the hooks, and the script that sets a runtime up."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.cluster.services import script
from proto.wire.join import parse_join_token
from supernode.membership.authorities import AuthorityFolder
from tests.support.http_server import HttpServer, QuietHandler
from tests.support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

FILES = Path(__file__).parents[3] / "deploy" / "helm" / "layercast" / "files"
TIMEOUT_S = 60.0
DAEMONSET = "/apis/apps/v1/namespaces/site/daemonsets/layercast-peer"
PATH = f"{script('layercast').parent}:{os.environ['PATH']}"


class ClusterApi:
    """Notes what was patched. A GET answers with what is next of `statuses`, the last again and again."""

    def __init__(self, folder: Path) -> None:
        self.patches: list[tuple[str, Any]] = []
        self.statuses: list[dict[str, int]] = []
        authority = Authority(folder)
        api = self

        class Handler(QuietHandler):
            def do_PATCH(self) -> None:
                assert self.headers["Authorization"] == "Bearer account"
                assert self.headers["Content-Type"] == "application/strategic-merge-patch+json"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.patches.append((self.path, body))
                self.answer({"metadata": {"generation": 2}})

            def do_GET(self) -> None:
                assert self.path == DAEMONSET
                self.answer({"status": api.statuses.pop(0) if len(api.statuses) > 1 else api.statuses[0]})

            def answer(self, document: object) -> None:
                text = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = HttpServer(Handler, context=authority.issue(["127.0.0.1"]).server_context())
        (folder / "ca.crt").write_text(authority.certificate_file.read_text())
        (folder / "token").write_text("account\n")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterApi]:
    """The cluster that hooks see."""
    folder = tmp_path / "account"
    folder.mkdir()
    cluster = ClusterApi(folder)
    settings = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.server.port)}
    settings |= {"NAMESPACE": "site", "DAEMONSET": "layercast-peer", "JOIN_SECRET": "join", "PATH": PATH}
    settings |= {"OPERATOR_SECRET": "operator", "DATA_DIR": str(tmp_path / "data"), "TTL": "90d", "DEADLINE_S": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with cluster.server:
        yield cluster


@pytest.fixture
def hook(api: ClusterApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hooks' program, which waits for nothing."""
    spec = importlib.util.spec_from_file_location("cluster", FILES / "cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ACCOUNT", tmp_path / "account")
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    return module


def run(hook: ModuleType, monkeypatch: pytest.MonkeyPatch, action: str, deadline_s: str = "0") -> None:
    """As a Job does. Raises SystemExit if it fails."""
    monkeypatch.setenv("DEADLINE_S", deadline_s)
    monkeypatch.setattr("sys.argv", ["cluster.py", action])
    hook.main()


def test_the_token_of_a_supernode_goes_into_the_secret(
    api: ClusterApi, hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities = AuthorityFolder(tmp_path / "data").load_or_create()
    run(hook, monkeypatch, "token")
    (join, token), (operator, read) = api.patches
    assert join == "/api/v1/namespaces/site/secrets/join"
    text = base64.b64decode(token["data"]["token"]).decode()
    assert parse_join_token(text).fingerprint == authorities.current.fingerprint
    assert operator == "/api/v1/namespaces/site/secrets/operator"
    folder = tmp_path / "data" / "ca"
    assert {name: base64.b64decode(value).decode() for name, value in read["data"].items()} == {
        name: (folder / name).read_text() for name in ("ca.pem", "operator.token")
    }


def test_a_supernode_that_never_started_is_waited_for_and_named(
    api: ClusterApi, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"token: .*start the supernode once"):
        run(hook, monkeypatch, "token")
    assert api.patches == []


def test_removal_waits_until_every_node_took_it_back(
    api: ClusterApi, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"desiredNumberScheduled": 3, "numberReady": 3, "updatedNumberScheduled": 3}
    api.statuses = [
        {**good, "observedGeneration": 1},
        {**good, "observedGeneration": 2, "updatedNumberScheduled": 1},
        {**good, "observedGeneration": 2, "numberReady": 2},
        {**good, "observedGeneration": 2},
    ]
    run(hook, monkeypatch, "undo", deadline_s="60")
    assert len(api.statuses) == 1
    ((path, patch),) = api.patches
    assert path == DAEMONSET
    (container,) = patch["spec"]["template"]["spec"]["initContainers"]
    assert container == {"name": "client", "env": [{"name": "ACTION", "value": "undo"}]}


def test_removal_stops_where_a_node_does_not_take_it_back(
    api: ClusterApi, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.statuses = [
        {"desiredNumberScheduled": 3, "numberReady": 1, "updatedNumberScheduled": 3, "observedGeneration": 2}
    ]
    with pytest.raises(SystemExit, match="undo: 2 nodes are set up still"):
        run(hook, monkeypatch, "undo")


def run_client(action: str, runtime: str, folder: Path) -> str:
    """As the DaemonSet's first container does; what it printed."""
    settings = {"ACTION": action, "RUNTIME": runtime, "MIRROR": "http://127.0.0.1:65101", "PATH": PATH}
    settings |= {"REGISTRIES": "a.example b.example", "DATA": str(folder / "data"), "HOST": str(folder / "host")}
    done = subprocess.run(
        ["sh", str(FILES / "client.sh")], env=settings, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
@pytest.mark.parametrize("runtime", ["containerd", "crio", "k3s"])
def test_a_node_s_runtime_is_set_up_once_and_taken_back(runtime: str, tmp_path: Path) -> None:
    host = tmp_path / "host"
    for folder in ("etc/containerd", "etc/containers", "etc/rancher/k3s", "var/lib/layercast"):
        (host / folder).mkdir(parents=True)
    before = sorted(host.rglob("*"))
    assert "127.0.0.1:65101" in run_client("setup", runtime, tmp_path)
    set_up = sorted(host.rglob("*"))
    assert set_up != before
    assert "nothing to do" in run_client("setup", runtime, tmp_path)
    run_client("undo", runtime, tmp_path)
    assert sorted(host.rglob("*")) == before
    assert run_client("undo", runtime, tmp_path) == ""
    # Another client's record is none of this one's.
    (host / "var/lib/layercast/setup/docker").mkdir(parents=True)
    assert run_client("undo", runtime, tmp_path) == ""
    data = (tmp_path / "data").stat()
    assert (data.st_uid, data.st_gid, data.st_mode & 0o777) == (10001, 10001, 0o700)
