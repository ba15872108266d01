"""`layercast pull` against a small registry: what it asks for, what it checks, what it says when it cannot."""

from __future__ import annotations

import json
import random
import re
import threading
from typing import TYPE_CHECKING

import pytest

from peer.cli.contract import CommandError
from peer.cli.main import main
from peer.cli.names import image_named
from proto.ids import Digest
from proto.oci.images import INDEX_TYPES, MANIFEST_TYPES, ImageName, parse_image
from tests.unit.peer.proxy.harness import Reply, Seen, scripted_origin

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = b'{"os": "linux"}'
LAYERS = [random.Random(seed).randbytes(size) for seed, size in ((1, 700_000), (2, 0), (3, 5))]


def entry(content: bytes, media_type: str = "application/octet-stream", **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def image_manifest(*layers: dict[str, object], **more: object) -> bytes:
    document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPES[0], "config": entry(CONFIG), "layers": list(layers)}
    return json.dumps({**document, **more}).encode()


MANIFEST = image_manifest(*(entry(layer) for layer in LAYERS))


class Registry:
    """Answers for one image; `blobs` may be changed to what it should not be."""

    def __init__(self, top: bytes = MANIFEST, media_type: str = MANIFEST_TYPES[0]) -> None:
        self.top, self.media_type = top, media_type
        self.manifests = {str(Digest.of(content)): content for content in (top, MANIFEST)}
        self.blobs = {str(Digest.of(content)): content for content in (CONFIG, *LAYERS)}
        self.cut_at: int | None = None
        self.challenge: str | None = None
        self.lock = threading.Lock()

    def answer(self, seen: Seen) -> Reply:
        path = seen.target.partition("?")[0]
        if path == "/token":
            return Reply(body=b'{"token": "good"}')
        if self.challenge is not None and seen.all("Authorization") != ["Bearer good"]:
            return Reply(401, [("WWW-Authenticate", self.challenge)], b"{}")
        name = path.rpartition("/")[2]
        if "/manifests/" in path:
            content = self.manifests.get(name, self.top if name == "latest" else None)
            if content is None:
                return Reply(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}')
            return Reply(200, [("Content-Type", self.media_type)], content)
        return self._blob(self.blobs[name], seen.all("Range"))

    def _blob(self, content: bytes, asked: list[str]) -> Reply:
        start = int(re.fullmatch(r"bytes=(\d+)-", asked[0])[1]) if asked else 0  # type: ignore[index] # a test's own
        headers = [("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")] if asked else []
        with self.lock:
            cut, self.cut_at = (self.cut_at, None) if len(content) > 1000 else (None, self.cut_at)
        part = content[start:]
        return Reply(206 if asked else 200, headers, part if cut is None else part[:cut], declared=len(part))


def test_an_image_is_kept_as_an_oci_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "image"
    with scripted_origin(Registry().answer) as origin:
        code = main(["pull", "org/app", "--via", f"http://{origin.authority}", "--output", str(out)])
    assert code == 0
    for content in (MANIFEST, CONFIG, *LAYERS):
        assert (out / "blobs" / "sha256" / Digest.of(content).hex).read_bytes() == content
    assert json.loads((out / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    [named] = json.loads((out / "index.json").read_text())["manifests"]
    assert named["digest"] == str(Digest.of(MANIFEST))
    assert named["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    assert not list(out.rglob(".incoming-*"))
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"pulled org/app:latest digest={Digest.of(MANIFEST)} blobs=4 ")


def test_the_registry_of_the_name_is_told_by_ns() -> None:
    with scripted_origin(Registry().answer) as origin:
        assert main(["pull", "quay.io:8443/org/app", "--via", f"http://{origin.authority}"]) == 0
    assert origin.seen[0].target == "/v2/org/app/manifests/latest?ns=quay.io%3A8443"
    assert all(seen.target.endswith("?ns=quay.io%3A8443") for seen in origin.seen)


def test_the_platform_asked_for_is_chosen_of_an_index() -> None:
    other = {**entry(b"x"), "platform": {"os": "linux", "architecture": "s390x"}}
    wanted = {**entry(MANIFEST), "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [other, wanted]}).encode()
    with scripted_origin(Registry(index, INDEX_TYPES[0]).answer) as origin:
        via = ["--via", f"http://{origin.authority}"]
        assert main(["pull", "org/app", *via, "--platform", "linux/arm/v7"]) == 0
        assert main(["pull", "org/app", *via, "--platform", "linux/arm64"]) == 1


def test_a_blob_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    registry = Registry()
    registry.cut_at = 300_000
    with scripted_origin(registry.answer) as origin:
        assert main(["pull", "org/app", "--via", f"http://{origin.authority}", "--output", str(tmp_path)]) == 0
    ranges = [seen.all("Range") for seen in origin.seen if seen.all("Range")]
    assert len(ranges) == 1
    assert (tmp_path / "blobs" / "sha256" / Digest.of(LAYERS[0]).hex).read_bytes() == LAYERS[0]


def test_a_wrong_blob_is_exit_code_3_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry()
    registry.blobs[str(Digest.of(LAYERS[0]))] = LAYERS[0][:-1] + bytes([LAYERS[0][-1] ^ 1])
    with scripted_origin(registry.answer) as origin:
        assert main(["pull", "org/app", "--via", f"http://{origin.authority}", "--output", str(tmp_path)]) == 3
    assert not (tmp_path / "blobs" / "sha256" / Digest.of(LAYERS[0]).hex).exists()
    assert not (tmp_path / "index.json").exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_manifest_under_another_digest_is_exit_code_3() -> None:
    registry = Registry()
    asked = Digest.of(b"another")
    registry.manifests[str(asked)] = MANIFEST
    with scripted_origin(registry.answer) as origin:
        assert main(["pull", f"org/app@{asked}", "--via", f"http://{origin.authority}"]) == 3


def test_an_anonymous_token_is_fetched_where_one_is_asked_for() -> None:
    registry = Registry()
    with scripted_origin(registry.answer) as origin:
        registry.challenge = (
            f'Bearer realm="http://{origin.authority}/token",service="s",scope="repository:org/app:pull"'
        )
        assert main(["pull", "org/app", "--via", f"http://{origin.authority}"]) == 0
    assert any(seen.target.startswith("/token?service=s&scope=repository%3Aorg%2Fapp%3Apull") for seen in origin.seen)


def test_foreign_layers_are_left_out() -> None:
    manifest = image_manifest(entry(LAYERS[2]), entry(b"elsewhere", urls=["https://example.com/x"]))
    with scripted_origin(Registry(manifest).answer) as origin:
        assert main(["pull", "org/app", "--via", f"http://{origin.authority}"]) == 0


def test_a_manifest_that_can_be_read_two_ways_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(Registry(image_manifest(manifests=[])).answer) as origin:
        assert main(["pull", "org/app", "--via", f"http://{origin.authority}"]) == 1
    assert "two ways" in capsys.readouterr().err


def test_an_image_that_wants_a_login_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(lambda _: Reply(401, [("WWW-Authenticate", 'Basic realm="r"')])) as origin:
        assert main(["pull", "org/app", "--via", f"http://{origin.authority}"]) == 1
    assert "mirror answered 401: it wants a login" in capsys.readouterr().err


def test_the_registrys_own_words_are_the_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(Registry().answer) as origin:
        assert main(["pull", "org/app:none", "--via", f"http://{origin.authority}"]) == 1
    assert capsys.readouterr().err.strip().endswith("mirror answered 404 (MANIFEST_UNKNOWN: no such tag)")


@pytest.mark.parametrize("path", ["/token", "/v2/org/app/manifests/latest"])
def test_an_answer_that_nests_too_deep_is_one_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry, deep = Registry(), b"[" * 100_000

    def answer(seen: Seen) -> Reply:
        asked = seen.target.partition("?")[0]
        return Reply(200 if asked == "/token" else 404, body=deep) if asked == path else registry.answer(seen)

    with scripted_origin(answer) as origin:
        if path == "/token":
            registry.challenge = f'Bearer realm="http://{origin.authority}/token"'
        assert main(["pull", "org/app", "--via", f"http://{origin.authority}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_mirror_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_origin(Registry().answer) as origin:
        address = origin.authority
    assert main(["pull", "org/app", "--via", f"http://{address}"]) == 1
    assert f"no mirror answers at http://{address}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "registry", "repository", "reference"),
    [
        ("alpine", None, "library/alpine", "latest"),
        ("alpine:3.20", None, "library/alpine", "3.20"),
        ("org/app:1", None, "org/app", "1"),
        ("docker.io/alpine", "docker.io", "library/alpine", "latest"),
        ("index.docker.io/org/app", "docker.io", "org/app", "latest"),
        ("quay.io/app:1", "quay.io", "app", "1"),
        ("localhost/app", "localhost", "app", "latest"),
        ("host:5000/a/b/c:t", "host:5000", "a/b/c", "t"),
    ],
)
def test_image_names_are_read_as_docker_reads_them(
    text: str, registry: str | None, repository: str, reference: str
) -> None:
    assert parse_image(text) == ImageName(registry, repository, reference)


def test_a_digest_wins_over_a_tag() -> None:
    digest = Digest.of(b"x")
    assert parse_image(f"quay.io/a/b:tag@{digest}") == ImageName("quay.io", "a/b", digest)


@pytest.mark.parametrize("text", ["", "UPPER", "a/b:", "a@sha256:xx", "h.io/", "a b", "h.io:99999/x"])
def test_a_name_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        image_named(text)
    assert refused.value.exit_code == 2
