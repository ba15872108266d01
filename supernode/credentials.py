"""The operator's own logins at registries: from docker's config.json, a credential helper, or a file.

Read when they are needed, kept in memory for some minutes, and asked for anew when a registry refuses them: some
helpers (ECR's and their like) give what expires. A secret goes to its registry alone: to no log, no disk, no argument
list.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peer.registry.base import IDENTITY_TOKEN, Login
from proto.errors import LocalError
from proto.oci.upstreams import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from proto.oci.upstreams import UpstreamConfig

KEPT_S: Final = 300.0
# What a registry refused, or could not be had, is not asked for anew more often than this.
ASKED_AGAIN_S: Final = 5.0
HELPER_S: Final = 30.0
_FILE_BYTES_MAX: Final = 1024 * 1024
_HUB_KEY: Final = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was found, or what is wrong."""

    login: Login | None
    problem: str
    found_s: float


class OperatorLogins:
    """Safe to use from many threads; one question at a time for each upstream."""

    def __init__(self, environ: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._environ = os.environ if environ is None else environ
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._asking: dict[str, threading.Lock] = {}

    def login(self, upstream: UpstreamConfig, refused: Login | None = None) -> Login | None:
        """What the operator gave for it; `refused` was just not accepted. None where there is none, or none other.

        Blocking. Raises LocalError.
        """
        if not upstream.credentials:
            return None
        with self._lock:
            one_at_a_time = self._asking.setdefault(upstream.host, threading.Lock())
        with one_at_a_time:
            kept = self._kept.get(upstream.host)
            lasts_s = KEPT_S if kept is not None and kept.login not in (None, refused) else ASKED_AGAIN_S
            if kept is None or self._clock() - kept.found_s >= lasts_s:
                kept = self._kept[upstream.host] = self._find(upstream)
            if kept.problem:
                raise LocalError(kept.problem)
            return None if kept.login == refused else kept.login

    def problems(self, upstreams: Iterable[UpstreamConfig]) -> dict[str, str]:
        """Of which of them no login is to be had, and why. Blocking."""
        found = {}
        for upstream in upstreams:
            try:
                self.login(upstream)
            except LocalError as error:
                found[upstream.host] = str(error)
        return found

    def _find(self, upstream: UpstreamConfig) -> _Kept:
        """A helper that hangs must not hang once for each blob."""
        try:
            return _Kept(self._ask(upstream), "", self._clock())
        except LocalError as error:
            return _Kept(None, str(error), self._clock())

    def _ask(self, upstream: UpstreamConfig) -> Login:
        kind, _, name = upstream.credentials.partition(":")
        try:
            if kind == "helper":
                login = self._from_helper(name, _keys(upstream)[0])
            elif kind == "file":
                login = _from_file(Path(name).expanduser())
            else:
                login = self._from_docker_config(_keys(upstream))
        except LocalError as error:
            raise LocalError(f"credentials of {upstream.host}: {error}") from None
        return login

    def _from_docker_config(self, keys: list[str]) -> Login:
        folder = Path(self._environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        config = _json_object(_read(folder / "config.json"), folder / "config.json")
        helpers, auths, store = config.get("credHelpers"), config.get("auths"), config.get("credsStore")
        for key in keys:
            if isinstance(helpers, dict) and isinstance(helper := helpers.get(key), str):
                return self._from_helper(helper, key)
            entry = auths.get(key) if isinstance(auths, dict) else None
            if isinstance(entry, dict) and (login := _entry_login(entry)) is not None:
                return login
        if isinstance(store, str):
            return self._from_helper(store, keys[0])
        raise LocalError(f"{folder / 'config.json'} has none: run docker login there")

    def _from_helper(self, name: str, key: str) -> Login:
        """See github.com/docker/docker-credential-helpers: the registry on stdin, JSON on stdout."""
        program = f"docker-credential-{name}"
        try:
            # What it says besides is not repeated: it may hold what it should not.
            done = subprocess.run(
                [program, "get"], input=key.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                timeout=HELPER_S, check=False, env=dict(self._environ),
            )  # fmt: skip
        except FileNotFoundError:
            raise LocalError(f"{program} is not installed") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LocalError(f"{program}: {type(error).__name__}") from None
        if done.returncode:
            raise LocalError(f"{program} ended with status {done.returncode}: log in with it")
        answer = _json_object(done.stdout, program)
        return _login(answer.get("Username"), answer.get("Secret"), program)


def _keys(upstream: UpstreamConfig) -> list[str]:
    """How docker's files and helpers may call a registry."""
    host = upstream.host
    if host == DOCKER_HUB:
        return [_HUB_KEY, "index.docker.io", "docker.io"]
    return [host, f"https://{host}", f"https://{host}/", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]


def _entry_login(entry: Mapping[str, object]) -> Login | None:
    """Of an entry of `auths`."""
    identity_token = entry.get("identitytoken")
    if isinstance(identity_token, str) and identity_token:
        return Login(IDENTITY_TOKEN, identity_token)
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            user, _, password = base64.b64decode(auth).decode().partition(":")
        except (binascii.Error, ValueError):
            raise LocalError("an entry of config.json is not base64: log in again") from None
        return Login(user, password.rstrip("\0"))
    name, secret = entry.get("username"), entry.get("password")
    return Login(name, secret) if isinstance(name, str) and isinstance(secret, str) else None


def _from_file(path: Path) -> Login:
    """One line, USER:PASSWORD."""
    try:
        user, colon, password = _read(path).decode().strip().partition(":")
    except UnicodeDecodeError:
        user, colon, password = "", "", ""
    return _login(user, password if colon else None, path)


def _login(user: object, password: object, where: object) -> Login:
    if not isinstance(user, str) or not isinstance(password, str) or not user or not password:
        raise LocalError(f"{where}: expected a user and a password (in a file: one line, USER:PASSWORD)")
    return Login(user, password)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}") from None


def _json_object(content: bytes, where: object) -> dict[str, object]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise LocalError(f"{where}: expected a JSON object")
    return found
