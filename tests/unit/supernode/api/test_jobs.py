"""The job API of a real supernode: who may do what, what makes no sense, and that its document tells the truth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from proto.wire.messages import Keep, Preheat, PreheatEnded
from supernode.api.openapi import DOCUMENT
from supernode.api.routes import CHANGES, REMOVALS, ROUTES
from tests.support.image_of_fakes import image_at
from tests.unit.supernode.harness import BarePeer, running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from supernode.app import Supernode
    from tests.support.fake_origin import FakeOrigin

NOW = ("--recovery", "0s")
PATH = "/api/v1/jobs"


async def ask(
    supernode: Supernode, method: str, path: str = PATH, body: object = None, content_type: str = "application/json"
) -> tuple[int, Any]:
    """(status, document). What is answered is what the document says."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": content_type} if data is not None else {}
    async with aiohttp.ClientSession() as client:
        url = f"http://{supernode.api_address}{path}"
        async with client.request(method, url, data=data, headers=headers) as answer:
            document = await answer.json()
            check(method, path, answer.status, document)
            return answer.status, document


def check(method: str, path: str, status: int, document: object) -> None:
    """Raises ValidationError, or KeyError for an answer that is not described."""
    template = path if path in DOCUMENT["paths"] else f"{PATH}/{{number}}"
    answers = DOCUMENT["paths"][template][method.lower()]["responses"]
    schema = answers[str(status)]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(document)


def test_the_document_names_every_route_and_no_other() -> None:
    tables = {"get": ROUTES, "post": CHANGES, "delete": REMOVALS}
    routed = {(path, method) for method, table in tables.items() for path, _ in table if path.startswith("/api/")}
    described = {
        (path, method) for path, operations in DOCUMENT["paths"].items() for method in operations if method in tables
    }
    assert described == routed


def test_every_schema_of_the_document_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert {name for name in _references(DOCUMENT)} == {
        f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]
    }


def _references(part: object) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [name for each in part.values() for name in _references(each)]
    return [name for each in part for name in _references(each)] if isinstance(part, list) else []


@pytest.mark.asyncio
async def test_a_job_is_submitted_read_and_listed(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        status, made = await ask(supernode, "POST", body={"image": image.name, "platforms": ["linux/amd64"], "to": 5})
        assert (status, made["number"], made["to"]) == (201, 1, "5")
        told = await peer.expect(Preheat)
        _, running = await ask(supernode, "GET", f"{PATH}/1")
        assert [(node["node"], node["state"]) for node in running["nodes"]] == [(peer.identity.peer.hex(), "running")]
        await peer.send(PreheatEnded(told.digest, "store", "it is full"))
        _, listed = await ask(supernode, "GET")
        assert [job["number"] for job in listed["jobs"]] == [1]
        assert (await ask(supernode, "GET", "/api/v1/openapi.json"))[1] == DOCUMENT


@pytest.mark.asyncio
async def test_a_job_is_cancelled_and_stays_in_the_history(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        await ask(supernode, "POST", body={"image": image.name, "by": "2999-01-01T00:00:00Z"})
        for _ in range(2):
            assert (await ask(supernode, "DELETE", f"{PATH}/1"))[1]["state"] == "cancelled"
        assert (await ask(supernode, "GET", f"{PATH}/1"))[1]["by"] == "2999-01-01T00:00:00+00:00"


@pytest.mark.asyncio
async def test_an_image_is_kept_until_its_job_is_cancelled(tmp_path: Path, origin: FakeOrigin) -> None:
    image = image_at(origin, 100)
    async with running_supernode(tmp_path, origin, *NOW) as supernode, BarePeer.connected(supernode) as peer:
        _, made = await ask(supernode, "POST", body={"image": image.name, "keep": True})
        assert (made["keep"], made["kept"]) == (True, False)
        while not (await peer.expect(Keep)).digests:
            pass  # that there was nothing before
        assert (await ask(supernode, "GET", f"{PATH}/1"))[1]["kept"] is True
        assert (await ask(supernode, "DELETE", f"{PATH}/1"))[1]["kept"] is False


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON object"),
        ([1], "no JSON object"),
        ({}, "image"),
        ({"image": 5}, "image"),
        ({"image": "UPPER/case"}, "UPPER/case"),
        ({"image": "a" * 600}, "512"),
        ({"image": "app:1", "platforms": "linux/amd64"}, "platforms"),
        ({"image": "app:1", "platforms": ["linux"]}, "OS/ARCHITECTURE"),
        ({"image": "app:1", "platforms": [5]}, "OS/ARCHITECTURE"),
        ({"image": "app:1", "to": "everywhere"}, "expected all"),
        ({"image": "app:1", "to": True}, "to:"),
        ({"image": "app:1", "by": "soon"}, "by:"),
        ({"image": "app:1", "by": "2999-01-01T00:00:00"}, "zone"),
        ({"image": "app:1", "by": "2001-01-01T00:00:00Z"}, "over"),
        ({"image": "app:1", "by": "9999-12-31T23:59:59-23:00"}, "calendar"),
        ({"image": "app:1", "after": "2001-01-01T00:00:00Z"}, "after: that time is over"),
        ({"image": "app:1", "after": "2999-01-01T00:00:00Z", "by": "2998-01-01T00:00:00Z"}, "by:"),
        ({"image": "app:1", "colour": 1}, "colour"),
        ({"image": "app:1", "keep": "yes"}, "keep:"),
        ({"image": "app:1", "keep": True, "to": 3}, "keep:"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    tmp_path: Path, origin: FakeOrigin, body: object, said: str
) -> None:
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        status, answer = await ask(supernode, "POST", body=body)
        assert (status, said in answer["error"]) == (400, True), answer
        assert (await ask(supernode, "GET"))[1] == {"jobs": []}


@pytest.mark.asyncio
@pytest.mark.parametrize("number", ["7", "0", "x", "9" * 40])
async def test_a_job_that_is_not_there_is_not_found(tmp_path: Path, origin: FakeOrigin, number: str) -> None:
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        for method in ("GET", "DELETE"):
            assert (await ask(supernode, method, f"{PATH}/{number}"))[0] == 404


@pytest.mark.asyncio
async def test_a_web_page_can_wish_nothing(tmp_path: Path, origin: FakeOrigin) -> None:
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            assert (await ask(supernode, "POST", body={"image": "app:1"}, content_type=content_type))[0] == 415


@pytest.mark.asyncio
async def test_a_stranger_sees_no_jobs_and_a_member_changes_none(
    tmp_path: Path, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_supernode(tmp_path, origin, *NOW) as supernode:
        from supernode.api import operator_request
        from supernode.api.access import Caller, Rank

        monkeypatch.setattr(operator_request, "caller_of", lambda request: Caller(Rank.MEMBER))
        assert (await ask(supernode, "GET"))[0] == 200
        for method, path, body in (("POST", PATH, {"image": "app:1"}), ("DELETE", f"{PATH}/1", None)):
            assert (await ask(supernode, method, path, body))[0] == 403
    monkeypatch.setattr("supernode.api.access._is_local", lambda request: False)
    async with (
        running_supernode(tmp_path / "closed", origin, "--open", "false") as supernode,
        aiohttp.ClientSession() as client,
        client.get(f"http://{supernode.api_address}{PATH}") as answer,
    ):
        assert answer.status == 403
