"""The support bundle has what a helper needs, and none of the credentials that are planted all over a machine."""

from __future__ import annotations

import base64
import json
import os
import secrets
import tarfile
from typing import TYPE_CHECKING

import pytest

from peer.cli.main import main
from proto.wire.join import JoinToken
from tests.support.planted import forms
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin

if TYPE_CHECKING:
    from pathlib import Path

PLACES = (
    "egress proxy", "operator login", "operator token", "docker login", "identity token", "authorization", "bearer",
    "url user", "query", "cookie", "client file", "status", "metrics", "join", "environment", "key",
    "event token", "service login",
)  # fmt: skip


class Machine:
    """Its files below `folder`, with a secret of its own at each of PLACES."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = {place: secrets.token_urlsafe(24) for place in PLACES}
        planted = self.secrets
        tokens = {place: JoinToken.generate("f" * 43).text for place in ("join", "environment")}
        planted |= {place: token.split(".")[2] for place, token in tokens.items()}
        self.environment = {"DOCKER_CONFIG": str(folder / "docker"), "LAYERCAST_JOIN": tokens["environment"]}
        login = base64.b64encode(f"me:{planted['docker login']}".encode()).decode()
        auths = {"a.example": {"auth": login}, "b.example": {"identitytoken": planted["identity token"]}}
        self.write("docker/config.json", json.dumps({"auths": auths}))
        self.write("login", f"operator:{planted['operator login']}\n")
        self.write("supernode/ca/operator.token", f"{planted['operator token']}\n")
        self.write("event.token", f"{planted['event token']}\n")
        service = base64.b64encode(f"me:{planted['service login']}".encode()).decode()
        self.write(".docker/config.json", json.dumps({"auths": {"c.example": {"auth": service}}}))
        self.write("supernode/event-log", "layercast-events and so on")
        key = f"-----BEGIN PRIVATE KEY-----\n{planted['key']}\n-----END PRIVATE KEY-----\n"
        self.write("peer/identity.key", key)
        self.write("join.token", tokens["join"] + "\n")
        self.write(
            "peer.toml",
            f'join_file = "{folder}/join.token"\nzone = "eu"\n# Was {planted["egress proxy"]} before.\n'
            f'[upstream."a.example"]\negress_proxy = "http://me:{planted["egress proxy"]}@proxy.example:3128"\n',
        )
        self.write(
            "supernode.toml",
            f'event_log = "{folder}/supernode/event-log"\nevent_token_file = "{folder}/event.token"\n'
            f'[upstream."a.example"]\ncredentials = "file:{folder}/login"\n',
        )
        lines = [
            "2026-01-01 info peer ready address=127.0.0.1:65001",
            f"GET /v2/ Authorization: Basic {base64.b64encode(b'me:' + planted['authorization'].encode()).decode()}",
            f"sent bearer {planted['bearer']}",
            f"asked https://me:{planted['url user']}@a.example/v2/",
            f"redirect to https://cdn.example/x?X-Amz-Signature={planted['query']}&a=b",
            f"GET /v2/a/blobs/sha256:00?sig={planted['query']} 200",
            f"Cookie: session={planted['cookie']}",
            # As somebody may have logged them who should not: only who knows them finds them.
            *(f"stray {planted[place]}" for place in ("operator login", "operator token", "docker login", "join")),
            *(f"stray {planted[place]}" for place in ("event token", "service login")),
            f"stray {login} {planted['identity token']} {planted['environment']}",
            key,
        ]
        self.write("peer.log", "\n".join(lines))
        self.write("root/etc/docker/daemon.json", f'{{"proxies": {{"token": "{planted["client file"]}"')
        self.write("root/usr/bin/dockerd", "")

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def answer(self, seen: Seen) -> Reply:
        """Of both services."""
        planted = self.secrets
        status = {
            "program": "layercast-peer",
            "session_problem": f"refused by http://x:{planted['status']}@supernode",
            "swarms": [{"digest": "sha256:0123"}],
        }
        answers = {
            "/healthz": Reply(200, body=b"ready\n"),
            "/metrics": Reply(200, body=f'layercast_sessions_open{{at="u:{planted["metrics"]}@host"}} 3\n'.encode()),
            "/v1/status": Reply(200, body=json.dumps(status).encode()),
        }
        return answers.get(seen.target, Reply(404, body=b"no such page"))


def bundle_of(machine: Machine, url: str, *further: str) -> dict[str, bytes]:
    """Its parts by name, without the folder that they are in."""
    folder = machine.folder
    file = folder / "bundle.tar.gz"
    words = ["support-bundle", "--output", str(file), "--peer", url, "--supernode", url]
    words += ["--config", f"{folder}/peer.toml", "--supernode-config", f"{folder}/supernode.toml"]
    words += ["--data-dir", f"{folder}/peer", "--supernode-data-dir", f"{folder}/supernode", "--root", f"{folder}/root"]
    assert main([*words, "--log", f"{folder}/peer.log", *further]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as bundle:
        found = {}
        for member in bundle.getmembers():
            part = bundle.extractfile(member)
            assert part is not None
            found[member.name.partition("/")[2]] = part.read()
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    for name in [name for name in os.environ if name.startswith("LAYERCAST_")]:
        monkeypatch.delenv(name)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


def test_it_has_settings_status_metrics_logs_findings_and_events(machine: Machine) -> None:
    with scripted_origin(machine.answer) as origin:
        found = bundle_of(machine, f"http://{origin.authority}")
    assert json.loads(found["peer/settings.json"])["zone"] == "eu"
    assert b"layercast_sessions_open" in found["supernode/metrics.txt"]
    assert b"sha256:0123" in found["peer/v1-status.txt"]
    assert b"answers 404" in found["supernode/v1-nodes.txt"]
    assert b"ready address=127.0.0.1:65001" in found["logs/0-peer.log"]
    assert b"client_unusable" in found["doctor.txt"]
    assert found["supernode/event-log"] == b"layercast-events and so on"
    assert json.loads(found["about.json"])["environment"] == ["LAYERCAST_JOIN"]


def test_no_planted_credential_is_in_it(machine: Machine) -> None:
    with scripted_origin(machine.answer) as origin:
        found = bundle_of(machine, f"http://{origin.authority}")
    whole = b"\n".join(found.values())
    assert [
        place for place, secret in machine.secrets.items() if any(form in whole for form in forms(secret.encode()))
    ] == []


def test_an_event_log_that_holds_a_secret_is_left_out(machine: Machine) -> None:
    machine.write("supernode/event-log", f"layercast-events {machine.secrets['operator token']}")
    with scripted_origin(machine.answer) as origin:
        assert "supernode/event-log" not in bundle_of(machine, f"http://{origin.authority}")


def test_services_that_do_not_run_and_files_that_are_not_there_are_told(machine: Machine) -> None:
    found = bundle_of(machine, "http://127.0.0.1:1", "--log", f"{machine.folder}/none.log")
    assert b"does not answer" in found["peer/metrics.txt"]
    assert b"not to be had" in found["logs/1-none.log"]
    assert b"peer_not_running" in found["doctor.txt"]


def test_a_file_that_is_there_is_not_written_over(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.write("there", "mine")
    assert main(["support-bundle", "--output", f"{machine.folder}/there"]) == 1
    assert "File exists" in capsys.readouterr().err
    assert (machine.folder / "there").read_text() == "mine"
