"""What operators are told of one piece, by the API and by `layercast story`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from peer.cli.main import main
from proto.wire.join import REFUSAL_HEADER
from tests.support.blobs import some_blob
from tests.unit.supernode.harness import real_peer, running_supernode

if TYPE_CHECKING:
    from pathlib import Path

    from supernode.app import Supernode
    from tests.support.fake_origin import FakeOrigin

pytestmark = pytest.mark.asyncio


async def ask(supernode: Supernode, digest: str, piece: str) -> tuple[int, dict[str, Any], str]:
    """(status, answer, refusal)."""
    url = f"http://{supernode.api_address}/v1/story"
    async with (
        aiohttp.ClientSession() as client,
        client.get(url, params={"digest": digest, "piece": piece}) as answer,
    ):
        said = await answer.json() if answer.status == 200 else {}
        return answer.status, said, answer.headers.get(REFUSAL_HEADER, "")


async def test_a_piece_that_was_pulled_has_its_story(
    tmp_path: Path, origin: FakeOrigin, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = origin.add(some_blob(700_000).content)
    async with (
        running_supernode(tmp_path / "supernode", origin) as supernode,
        real_peer(supernode, tmp_path / "one") as one,
    ):
        await one.announce(origin, digest)
        await one.completed(digest)
        await one.heard()
        found, told, _ = await ask(supernode, str(digest), "1")
        assert (found, told["digest"], told["piece"], told["pieces"]) == (200, str(digest), 1, 3)
        texts = [each["text"] for each in told["happenings"]]
        assert any(text.startswith("piece 1: ") for text in texts)
        assert not any(text.startswith("piece 0: ") for text in texts)
        assert list(told["nodes"].values()) == [f"{one.identity.peer.hex()[:8]} eu/a/r1"]

        digits = str(digest).removeprefix("sha256:")[:8]
        url = f"http://{supernode.api_address}"
        words = ["story", digits, "1", "--supernode", url]
        assert await asyncio.to_thread(main, [*words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["digest"] == str(digest)
        assert await asyncio.to_thread(main, words) == 0
        assert "piece 1: " in capsys.readouterr().out
        assert await asyncio.to_thread(main, ["story", digits, "3", "--supernode", url]) == 1
        assert "the blob has pieces 0 to 2" in capsys.readouterr().err


@pytest.mark.parametrize(("digest", "piece"), [("", "0"), ("abc", "0"), ("sha256:" + "0" * 64, "0")])
async def test_what_is_no_live_swarm_has_none(tmp_path: Path, origin: FakeOrigin, digest: str, piece: str) -> None:
    async with running_supernode(tmp_path, origin) as supernode:
        found, _, refusal = await ask(supernode, digest, piece)
        assert (found, refusal) == (404, "no live swarm of that blob")
