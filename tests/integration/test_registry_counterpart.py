"""The real docker-registry as origins have it: with a password, with tokens, stopped and started."""

from __future__ import annotations

import base64
import http.client
import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.cluster.image import Image, make_random_image
from benchmarks.cluster.processes import WAIT_S
from benchmarks.cluster.registry import Registry
from tests.support.passwords import PASSWORD, USER, basic_authorization, password_auth
from tests.support.tls import Authority
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.client("docker-registry")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return make_random_image(tmp_path_factory.mktemp("image"), [500, 70_000], seed=1)


def get(address: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(address, timeout=WAIT_S)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_a_password_is_asked_for(tmp_path: Path, image: Image) -> None:
    with Registry(tmp_path, auth=password_auth(tmp_path)) as registry:
        registry.push(image, "private/app", headers=basic_authorization())
        path = f"/v2/private/app/blobs/{image.layers[0].digest}"
        status, headers, _ = get(registry.address, path)
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="test"')
        assert get(registry.address, path, basic_authorization())[0] == 200


def test_tokens_open_what_they_were_given_for(tmp_path: Path, image: Image) -> None:
    signer = Authority(tmp_path).issue(["token.test"])
    with (
        TokenServer(signer, {USER: PASSWORD}, {"public/app"}) as tokens,
        Registry(tmp_path / "registry", auth=tokens.registry_auth()) as registry,
    ):
        for repository in ("public/app", "private/app"):
            writer = tokens.token(USER, [f"repository:{repository}:pull,push"])
            registry.push(image, repository, headers={"Authorization": f"Bearer {writer}"})
        anonymous = fetch_token(tokens, "repository:public/app:pull repository:private/app:pull")
        statuses = {
            repository: get(registry.address, f"/v2/{repository}/blobs/{image.layers[0].digest}", anonymous)[0]
            for repository in ("public/app", "private/app")
        }
        assert statuses == {"public/app": 200, "private/app": 401}
        status, headers, _ = get(registry.address, "/v2/")
        assert status == 401
        assert headers["WWW-Authenticate"].startswith(f'Bearer realm="{tokens.realm}"')


def fetch_token(tokens: TokenServer, scope: str) -> dict[str, str]:
    address = tokens.realm.removeprefix("http://").partition("/")[0]
    status, _, body = get(address, f"/token?scope={scope.replace(' ', '%20')}")
    assert status == 200
    return {"Authorization": f"Bearer {json.loads(body)['token']}"}


def test_a_wrong_password_gets_no_token(tmp_path: Path) -> None:
    signer = Authority(tmp_path).issue(["token.test"])
    with TokenServer(signer, {USER: PASSWORD}) as tokens:
        address = tokens.realm.removeprefix("http://").partition("/")[0]
        wrong = base64.b64encode(f"{USER}:wrong".encode()).decode()
        assert get(address, "/token", {"Authorization": f"Basic {wrong}"})[0] == 401


def test_it_keeps_address_and_images_over_a_restart(tmp_path: Path, image: Image) -> None:
    with Registry(tmp_path) as registry:
        registry.push(image, "app")
        address = registry.address
        registry.stop()
        with pytest.raises(ConnectionRefusedError):
            get(address, "/v2/")
        registry.start()
        assert registry.address == address
        assert get(address, f"/v2/app/blobs/{image.layers[1].digest}")[2] == image.layers[1].path.read_bytes()


def test_a_blob_can_be_lost_behind_its_back(tmp_path: Path, image: Image) -> None:
    with Registry(tmp_path) as registry:
        registry.push(image, "app")
        registry.forget_blob(image.layers[0].digest)
        assert get(registry.address, f"/v2/app/blobs/{image.layers[0].digest}")[0] == 404
