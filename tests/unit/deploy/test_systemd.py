"""The units: what they allow, and that they name what there is."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.cluster.programs import find_program
from peer.config import PeerConfig
from peer.doctor import judgement
from proto.config.settings import default_data_dir
from tests.support.missing import skip_or_fail

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "deploy" / "systemd"
SERVICES = ("layercast-peer.service", "layercast-supernode.service")
# Tenths, as systemd-analyze takes it.
EXPOSURE_MAX = 20
TIMEOUT_S = 60.0


def installed(name: str) -> str:
    """The path of one of systemd's programs, or the running test ends here."""
    found = find_program(name)
    if found is None:
        skip_or_fail(f"{name} is missing: apt-get install systemd")
    return found


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that stands for the root of a machine where docs/systemd.md was followed."""
    programs = ["opt/layercast/bin/layercast-peer", "opt/layercast/bin/layercast-supernode", "bin/kill"]
    for place in (*programs, "etc/sysusers.d/x", "etc/tmpfiles.d/x", "etc/systemd/system/x"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    for place in programs:
        (tmp_path / place).touch(mode=0o755)
    for path in UNITS.iterdir():
        folder = {"sysusers": "etc/sysusers.d", "tmpfiles": "etc/tmpfiles.d"}.get(path.name.split(".")[1])
        shutil.copy(path, tmp_path / (folder or "etc/systemd/system"))
    return tmp_path


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """One of systemd's programs, to its end."""
    return subprocess.run(
        [installed(name), *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )  # fmt: skip


def unit(name: str) -> configparser.ConfigParser:
    """A key that stands twice has its last value."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_by_2_0_at_most(name: str) -> None:
    threshold = f"--threshold={EXPOSURE_MAX}"
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, str(UNITS / name))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_systemd_understands_every_line_of_the_units(machine: Path) -> None:
    words = ["--man=no", "--recursive-errors=no", f"--root={machine}"]
    done = run("systemd-analyze", "verify", *words, *SERVICES, "layercast-peer.socket")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.root
def test_the_user_and_the_folders_are_made(machine: Path) -> None:
    assert run("systemd-sysusers", f"--root={machine}").returncode == 0
    assert ":Layercast:/var/lib/layercast:" in (machine / "etc/passwd").read_text()
    assert run("systemd-tmpfiles", f"--root={machine}", "--create").returncode == 0
    assert (machine / "etc/layercast").stat().st_mode & 0o777 == 0o750
    assert (machine / "var/lib/layercast").is_dir()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_as_the_user_that_is_made(name: str) -> None:
    user = unit(name)["Service"]["User"]
    assert re.search(rf"^u {user} ", (UNITS / "layercast.sysusers.conf").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_its_data_where_the_tools_of_root_look_for_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    role = name.removeprefix("layercast-").removesuffix(".service")
    service = unit(name)["Service"]
    assert f"LAYERCAST_DATA_DIR={default_data_dir() / role}" in (UNITS / name).read_text()
    assert f"/var/lib/{service['StateDirectory']}" == str(default_data_dir() / role)


def test_the_peer_may_write_its_access_log_where_the_docs_have_it() -> None:
    (path,) = re.findall(r'^`access_log = "([^"]+)"`', (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert Path(path).parent == Path("/var/log") / unit("layercast-peer.service")["Service"].get("LogsDirectory", "")


def test_the_socket_unit_holds_the_port_where_a_peer_listens() -> None:
    fields = {field.name: field for field in PeerConfig.__dataclass_fields__.values()}
    assert unit("layercast-peer.socket")["Socket"]["ListenStream"] == str(fields["listen"].default)


def test_doctor_names_units_that_there_are() -> None:
    named = set(re.findall(r"layercast-\w+\.service", Path(judgement.__file__).read_text()))
    assert named
    assert named <= {path.name for path in UNITS.iterdir()}
