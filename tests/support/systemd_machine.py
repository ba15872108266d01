"""A machine with systemd as its first process: processes and a network of its own, this one's files with a layer over.

What it writes is in memory and gone with it. Of this machine's services none runs there.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.cluster.closing import Closing
from benchmarks.cluster.processes import ManagedProcess, ProcessError, run, wait_until
from benchmarks.cluster.programs import clean_environment, program
from benchmarks.cluster.services import script

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

REPOSITORY: Final = "/mnt/repository"
_ROOT: Final = Path(__file__).parents[2]
# Of one command there, or of systemd's own start, however busy this machine is.
_PATIENCE_S: Final = 600.0
_MADE: Final = "the machine is made"
# They would set this machine's kernel, clock or devices, or wait for them.
_MASKED: Final = (
    *("systemd-modules-load", "systemd-sysctl", "systemd-binfmt", "systemd-random-seed", "systemd-timesyncd"),
    *("systemd-udevd", "systemd-udev-trigger", "systemd-logind", "systemd-resolved", "systemd-networkd"),
    *("systemd-remount-fs", "systemd-update-utmp", "systemd-journal-flush", "systemd-tmpfiles-setup-dev"),
)
_MASKED_UNITS: Final = (
    *(f"{name}.service" for name in _MASKED),
    *("systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-journald-audit.socket"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "proc-sys-fs-binfmt_misc.automount"),
)
_FILES: Final = """
mount -t tmpfs tmpfs "$FOLDER"
cd "$FOLDER"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir="$FOLDER/upper",workdir="$FOLDER/work" root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for each in null zero full random urandom tty; do touch dev/$each; mount --bind /dev/$each dev/$each; done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
rm -rf etc/systemd/system etc/fstab
mkdir -p etc/systemd/system
for each in $MASKED; do ln -s /dev/null etc/systemd/system/$each; done
printf '[Unit]\\nRequires=basic.target\\nAfter=basic.target\\n' >etc/systemd/system/machine.target
"""
_START: Final = f"""
mkdir .before
pivot_root . .before
umount -l /.before
ip link set lo up
echo "{_MADE}"
exec env -i container=layercast-test PATH="$PATH" "$SYSTEMD" --unit=machine.target --show-status=no
"""


class SystemdMachine(Closing):
    """Running from construction until `close`; `folders` of this machine are there, too, read-only, as they are named.

    The running test is skipped where the kernel does not let one be made.
    """

    def __init__(self, folder: Path, folders: Mapping[Path, str]) -> None:
        found = run(["findmnt", "--noheadings", "--types", "cgroup2", "--output", "TARGET"], check=False).stdout.split()
        if not found:
            pytest.skip("no cgroup2 is mounted here, which systemd needs")
        # Alone in a group, which is the root of all groups to what runs there.
        self._group = Path(found[0]) / f"layercast-test-{os.getpid()}"
        self._group.mkdir()
        shown = "".join(
            f"mkdir -p .{there}\nmount --bind {shlex.quote(str(here))} .{there}\nmount -o remount,bind,ro .{there}\n"
            for here, there in {_ROOT: REPOSITORY, **folders}.items()
        )
        inside = shlex.join(["sh", "-euc", _FILES + shown + _START])
        own = "--mount --pid --net --uts --ipc --cgroup --fork --kill-child"
        enter = f'echo $$ >"$GROUP/cgroup.procs" && exec unshare {own} {inside}'
        settings = {"FOLDER": str(folder), "GROUP": str(self._group), "SYSTEMD": program("systemd")}
        settings["MASKED"] = " ".join(_MASKED_UNITS)
        self._process = ManagedProcess(["sh", "-c", enter], name="systemd", env=clean_environment(**settings))
        try:
            self._await_start()
        except BaseException:
            self.close()
            raise

    def _await_start(self) -> None:
        try:
            self._process.wait_for_line(_MADE)
        except ProcessError as error:
            pytest.skip(f"no machine with systemd can be made here: {error}")
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        (self._first,) = task.read_text().split()

        def runs() -> bool:
            return self.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded")

        wait_until(runs, "the end of systemd's start", _PATIENCE_S)

    def run(self, commands: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Shell commands there, as root. If one fails and `check` is on: ProcessError, with the journal's end."""
        try:
            return self._run(commands, check=check)
        except ProcessError as error:
            journal = self._run("journalctl --no-pager --lines=30", check=False).stdout
            raise ProcessError(f"{error}\n{journal}") from None

    def _run(self, commands: str, *, check: bool) -> subprocess.CompletedProcess[str]:
        argv = [
            program("nsenter"),
            f"--target={self._first}",
            "--all",
            "--",
            "/bin/sh",
            "-euc",
            f"cd /root\n{commands}",
        ]
        return run(argv, env=clean_environment(HOME="/root"), timeout_s=_PATIENCE_S, check=check)

    def close(self) -> None:
        """End all that runs there."""
        self._process.kill()
        kill = self._group / "cgroup.kill"
        if kill.exists():
            kill.write_text("1")
        wait_until(self._remove_groups, "the end of all that ran in the machine")

    def _remove_groups(self) -> bool:
        groups = [Path(folder) for folder, *_ in os.walk(self._group, topdown=False)]
        try:
            for each in groups:
                each.rmdir()
        except OSError:
            return False
        return True


def layercast_folders() -> dict[Path, str]:
    """What `install_layercast` needs of this machine."""
    return {Path(sys.base_prefix): "/opt/python", Path(sysconfig.get_path("purelib")): "/mnt/site"}


def install_layercast(machine: SystemdMachine) -> None:
    """Layercast and what it needs in /opt/layercast, as `pip install` would leave it there, without copies."""
    release = f"python3.{sys.version_info.minor}"
    programs = [script(name) for name in ("layercast", "layercast-peer", "layercast-supernode")]
    written = "".join(
        f"printf '%s\\n' '#!/opt/layercast/bin/python' >bin/{path.name}\n"
        f"printf '%s\\n' {shlex.quote(path.read_text().partition(chr(10))[2])} >>bin/{path.name}\n"
        for path in programs
    )
    # Services see no home folders, and this Python may have its library in one.
    library = "[Service]\\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib\\n"
    machine.run(
        f"""
mkdir -p /opt/layercast/bin /opt/layercast/lib/{release}/site-packages
cd /opt/layercast
ln -s /opt/python/bin/{release} bin/python
echo 'home = /opt/python/bin' >pyvenv.cfg
printf '{REPOSITORY}\\n/mnt/site\\n' >lib/{release}/site-packages/layercast.pth
{written}chmod 755 bin/layercast*
for each in peer supernode; do
    mkdir -p /etc/systemd/system/layercast-$each.service.d
    printf '{library}' >/etc/systemd/system/layercast-$each.service.d/library.conf
done
"""
    )
