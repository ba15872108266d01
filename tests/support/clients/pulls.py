"""Pulls of one image by any client, alike to tests: begun, to be killed, and to the end, with the content checked."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from tests.support.clients.cri import CriError
from tests.support.clients.go_client import GoClient
from tests.support.clients.podman import Buildah, Mirror, Podman, Skopeo, wrongly_named_files
from tests.support.clients_table import MIRROR, PREFIX, PROXY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.cluster.image import Image
    from tests.support.clients.containerd import Containerd
    from tests.support.clients.docker import DockerDaemon


@dataclass(frozen=True, slots=True)
class Login:
    """What a client is given: a user with a password, an identity token, or nothing."""

    user: str = ""
    password: str = ""
    identity: str = ""

    def __bool__(self) -> bool:
        return bool(self.user or self.identity)

    def auth_entry(self) -> dict[str, str]:
        """As docker's config.json and containers' auth.json have it."""
        if self.identity:
            return {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": self.identity}
        return {"auth": base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}

    def auth_file(self, name: str) -> str:
        """The text of such a file, for a registry as the client names it."""
        return json.dumps({"auths": {name: self.auth_entry()} if self else {}})


@dataclass
class Place:
    """Where clients are: their network namespace, their peer at HOST:PORT, the certificate that it intercepts with."""

    proxy: str
    netns: str
    ca_file: Path
    dockerd: DockerDaemon | None = None
    containerd: Containerd | None = None

    @property
    def proxy_url(self) -> str:
        return f"http://{self.proxy}"

    def proxied(self) -> dict[str, str]:
        """The environment of a client that reaches registries by a proxy, and token services by plain http without."""
        return {"HTTPS_PROXY": self.proxy_url, "SSL_CERT_FILE": str(self.ca_file)}


class Running(Protocol):
    """A pull that has begun."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        ...

    def kill(self) -> None:
        """End it as it is."""
        ...


class Pull(Protocol):
    """One image, by one client."""

    def begin(self) -> Running:
        """Begin to pull `latest`."""
        ...

    def finish(self, name: str, image: Image) -> None:
        """Pull a tag or digest to the end. Raises AssertionError where it is another image."""
        ...


def open_pull(
    client: str, way: str, place: Place, registry: str, repository: str, login: Login
) -> AbstractContextManager[Pull]:
    """That of a row of docs/clients.md. A context manager, which removes what the client keeps."""
    return _PULLS[client](way, place, registry, repository, login)


def reference(base: str, name: str) -> str:
    """Of a tag or a digest."""
    return f"{base}@{name}" if ":" in name else f"{base}:{name}"


class _DockerPull:
    def __init__(self, daemon: DockerDaemon, base: str, login: Path) -> None:
        self._daemon = daemon
        self._base = base
        self._login = login

    def begin(self) -> Running:
        return self._daemon.start_pull(reference(self._base, "latest"), self._login)

    def finish(self, name: str, image: Image) -> None:
        named = reference(self._base, name)
        self._daemon.docker("--config", self._login, "pull", named)
        assert self._daemon.inspect(named)["Id"] == image.config.digest


@contextlib.contextmanager
def _docker(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    assert place.dockerd is not None
    folder = place.dockerd.directory / repository.replace("/", "-")
    folder.mkdir()
    name = "https://index.docker.io/v1/" if way == MIRROR else registry
    (folder / "config.json").write_text(login.auth_file(name))
    yield _DockerPull(place.dockerd, repository if way == MIRROR else f"{registry}/{repository}", folder)


class _CtrPull:
    def __init__(self, daemon: Containerd, base: str, login: Login) -> None:
        self._daemon = daemon
        self._base = base
        self._login = ("--refresh", login.identity) if login.identity else ("--user", f"{login.user}:{login.password}")

    def begin(self) -> Running:
        return self._daemon.start_pull(reference(self._base, "latest"), *self._login)

    def finish(self, name: str, image: Image) -> None:
        self._daemon.pull(reference(self._base, name), *self._login)
        assert {blob.digest for blob in image.blobs} <= self._daemon.content()


@contextlib.contextmanager
def _ctr(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    assert place.containerd is not None
    yield _CtrPull(place.containerd, f"{registry}/{repository}", login)


class _CriCall:
    """PullImage in a thread; it is called off when the connection is closed."""

    def __init__(self, daemon: Containerd, named: str, login: Login) -> None:
        self._service = daemon.cri()
        self._thread = threading.Thread(target=self._run, args=(named, login), name="PullImage")
        self._thread.start()

    def _run(self, named: str, login: Login) -> None:
        with contextlib.suppress(CriError):
            self._service.pull(named, username=login.user, password=login.password, identity_token=login.identity)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def kill(self) -> None:
        self._service.close()
        self._thread.join()


class _CriPull:
    def __init__(self, daemon: Containerd, base: str, login: Login) -> None:
        self._daemon = daemon
        self._base = base
        self._login = login

    def begin(self) -> Running:
        return _CriCall(self._daemon, reference(self._base, "latest"), self._login)

    def finish(self, name: str, image: Image) -> None:
        login = self._login
        with self._daemon.cri() as cri:
            pulled = cri.pull(
                reference(self._base, name),
                username=login.user,
                password=login.password,
                identity_token=login.identity,
            )
        assert pulled == image.config.digest


@contextlib.contextmanager
def _cri(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    assert place.containerd is not None
    yield _CriPull(place.containerd, f"{registry}/{repository}", login)


class _StoragePull:
    """By podman or buildah."""

    def __init__(self, tool: Podman | Buildah, base: str) -> None:
        self._tool = tool
        self._base = base
        self._words = ("pull", "--quiet", "--signature-policy", tool.directory / "policy.json")

    def begin(self) -> Running:
        return self._tool.start(*self._words, reference(self._base, "latest"))

    def finish(self, name: str, image: Image) -> None:
        pulled = self._tool.run(*self._words, reference(self._base, name))
        assert f"sha256:{pulled.split()[-1]}" == image.config.digest


def _mirrored(place: Place, registry: str) -> list[Mirror]:
    return [Mirror(registry, f"{place.proxy}/{registry}")]


@contextlib.contextmanager
def _podman(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    with Podman(_mirrored(place, registry), netns=place.netns) as podman:
        (podman.directory / "auth.json").write_text(login.auth_file(f"{place.proxy}/{registry}"))
        yield _StoragePull(podman, f"{registry}/{repository}")


@contextlib.contextmanager
def _buildah(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    with Buildah(_mirrored(place, registry), netns=place.netns) as buildah:
        (buildah.directory / "auth.json").write_text(login.auth_file(f"{place.proxy}/{registry}"))
        yield _StoragePull(buildah, f"{registry}/{repository}")


class _SkopeoPull:
    def __init__(self, skopeo: Skopeo, base: str) -> None:
        self._skopeo = skopeo
        self._base = base

    def begin(self) -> Running:
        folder = self._skopeo.directory / "killed"
        return self._skopeo.start("copy", f"docker://{reference(self._base, 'latest')}", f"dir:{folder}")

    def finish(self, name: str, image: Image) -> None:
        folder = self._skopeo.pull(reference(self._base, name))
        assert wrongly_named_files(folder) == []
        names = {path.name for path in folder.iterdir()}
        assert {blob.digest.removeprefix("sha256:") for blob in image.blobs} <= names


@contextlib.contextmanager
def _skopeo(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    with Skopeo(_mirrored(place, registry) if way == PREFIX else [], netns=place.netns) as skopeo:
        name = f"{place.proxy}/{registry}" if way == PREFIX else registry
        (skopeo.directory / "auth.json").write_text(login.auth_file(name))
        skopeo.environment |= place.proxied() if way == PROXY else {}
        yield _SkopeoPull(skopeo, f"{registry}/{repository}")


class _CranePull:
    """By crane, into an OCI layout."""

    def __init__(self, tool: GoClient, base: str) -> None:
        self._tool = tool
        self._base = base

    def _words(self, name: str, folder: Path) -> list[str | Path]:
        return ["crane", "pull", "--insecure", "--format", "oci", reference(self._base, name), folder]

    def begin(self) -> Running:
        return self._tool.start(*self._words("latest", self._tool.directory / "killed"))

    def finish(self, name: str, image: Image) -> None:
        folder = self._tool.directory / f"pulled-{name.partition(':')[0]}"
        self._tool.run(*self._words(name, folder))
        assert_layout_has(folder, image)


class _OrasPull(_CranePull):
    """By oras, into an OCI layout."""

    def _words(self, name: str, folder: Path) -> list[str | Path]:
        target = f"{folder}:latest"
        return ["oras", "copy", "--from-plain-http", reference(self._base, name), "--to-oci-layout", target]


def assert_layout_has(folder: Path, image: Image) -> None:
    """All blobs of the image, each by its name."""
    blobs = folder / "blobs" / "sha256"
    assert wrongly_named_files(blobs) == []
    assert {blob.digest.removeprefix("sha256:") for blob in image.blobs} <= {path.name for path in blobs.iterdir()}


@contextlib.contextmanager
def _crane(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    with GoClient(login.auth_file(place.proxy), netns=place.netns) as tool:
        yield _CranePull(tool, f"{place.proxy}/{registry}/{repository}")


@contextlib.contextmanager
def _oras(way: str, place: Place, registry: str, repository: str, login: Login) -> Iterator[Pull]:
    with GoClient(login.auth_file(place.proxy), netns=place.netns) as tool:
        yield _OrasPull(tool, f"{place.proxy}/{registry}/{repository}")


_PULLS: Final = {
    "dockerd": _docker,
    "containerd, ctr": _ctr,
    "containerd, CRI": _cri,
    "podman": _podman,
    "buildah": _buildah,
    "skopeo": _skopeo,
    "crane": _crane,
    "oras": _oras,
}
