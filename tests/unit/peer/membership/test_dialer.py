"""A node dials a real supernode: it joins once, stays a member, and says in one line why it does not get in."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import aiohttp
import pytest

from benchmarks.cluster.processes import wait_until
from peer.membership.dialer import MemberDialer, OpenDialer
from peer.membership.record import FILE, read_record, write_record
from peer.membership.refusals import NotAdmitted
from peer.transport.member_tls import MemberTls
from proto.wire.tickets import Identity
from supernode import config
from supernode.app import Supernode
from supernode.membership.authorities import AuthorityFolder
from supernode.membership.certificates import NODE_LIFE_S, certify_node, pem
from supernode.membership.commands import create_token
from supernode.membership.database import MemberDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from proto.wire.join import JoinToken

pytestmark = pytest.mark.asyncio

HOUR_S = 3600.0


@contextlib.asynccontextmanager
async def supernode_at(folder: Path, *flags: str) -> AsyncIterator[Supernode]:
    argv = ["--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--data-dir", str(folder), *flags]
    running = Supernode(config.load(argv, {}))
    try:
        running.open()
        await running.start()
        yield running
    finally:
        assert await running.stop()


class Candidate:
    """A node that would be a member; its folder is there."""

    def __init__(self, folder: Path, supernode: Supernode, join: JoinToken | Path | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / FILE
        self.identity = Identity.load_or_create(folder / "identity.key")
        self.dialer = MemberDialer(f"http://{supernode.api_address}", folder, self.identity, join, MemberTls().use)

    async def asks(self, path: str = "/v1/nodes") -> int:
        """The status of what members may read."""
        async with aiohttp.ClientSession() as client:
            dial = await self.dialer.dial(client)
            async with client.get(dial.url + path, ssl=dial.tls, server_hostname=dial.server_name) as answer:
                return answer.status

    async def refusal(self) -> NotAdmitted:
        """Why it cannot open a session."""
        async with aiohttp.ClientSession() as client:
            try:
                dial = await self.dialer.dial(client)
            except NotAdmitted as error:
                return error
            with pytest.raises((aiohttp.ClientError, OSError)) as failed:
                await client.ws_connect(f"{dial.url}/v1/session", ssl=dial.tls, server_hostname=dial.server_name)
            explained = await self.dialer.explain(client, failed.value)
            assert explained is not None, repr(failed.value)
            return explained


async def becomes(read: Callable[[], Coroutine[None, None, object]], wanted: object) -> None:
    """Wait until it reads so."""
    loop = asyncio.get_running_loop()

    def is_so() -> bool:
        return asyncio.run_coroutine_threadsafe(read(), loop).result() == wanted

    await asyncio.to_thread(wait_until, is_so)


def token_of(folder: Path, uses: int | None = None, ttl_s: float = HOUR_S) -> JoinToken:
    return create_token(AuthorityFolder(folder), ttl_s, uses)


def expire(node: Candidate, folder: AuthorityFolder) -> None:
    """Its certificate ended yesterday."""
    authority, record = folder.load_or_create().current, read_record(node.file)
    assert record is not None
    certificate = certify_node(authority, node.identity.peer, time.time() - NODE_LIFE_S - 24 * HOUR_S)
    write_record(node.file, dataclasses.replace(record, certificate=pem([certificate])))


async def test_a_node_joins_once_and_needs_its_token_never_again(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        node = Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s", uses=1))
        assert await node.asks() == 200
        assert node.file.stat().st_mode & 0o777 == 0o600
        assert await Candidate(tmp_path / "n", supernode).asks() == 200


async def test_a_token_file_is_read_when_it_is_there(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        file = tmp_path / "token"
        node = Candidate(tmp_path / "n", supernode, file)
        assert f"--join-file {file}: No such file" in str(await node.refusal())
        file.write_text("lc1.nonsense")
        assert "expected a join token" in str(await node.refusal())
        file.write_text(token_of(tmp_path / "s").text + "\n")
        assert await node.asks() == 200


async def test_without_a_token_a_node_says_how_to_get_one(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        refusal = await Candidate(tmp_path / "n", supernode).refusal()
        assert refusal.terminal
        assert "run `layercast-supernode token create` at the supernode" in str(refusal)


async def test_a_token_of_another_supernode_is_told_apart_before_anything_is_sent(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        refusal = await Candidate(tmp_path / "n", supernode, token_of(tmp_path / "other")).refusal()
        assert "its authority is not the one that the join token names" in str(refusal)


async def test_an_expired_and_a_used_up_token_are_refused_in_the_supernode_s_words(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        refusal = await Candidate(tmp_path / "a", supernode, token_of(tmp_path / "s", ttl_s=-HOUR_S)).refusal()
        assert "refused (403): the join token" in str(refusal)
        assert "is expired since 1 h: make a new one" in str(refusal)
        token = token_of(tmp_path / "s", uses=1)
        assert await Candidate(tmp_path / "b", supernode, token).asks() == 200
        assert "is used up: make a new one" in str(await Candidate(tmp_path / "c", supernode, token).refusal())


async def test_a_supernode_with_another_authority_is_refused_by_a_member(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        await Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s")).asks()
    async with supernode_at(tmp_path / "other") as another:
        refusal = await Candidate(tmp_path / "n", another).refusal()
        assert "it is not the supernode that this node joined" in str(refusal)


async def test_a_supernode_with_open_is_named_as_such(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        await Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s")).asks()
    async with supernode_at(tmp_path / "s", "--open") as supernode:
        assert "it was started with --open" in str(await Candidate(tmp_path / "n", supernode).refusal())


async def test_an_open_peer_is_refused_before_the_first_frame(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode, aiohttp.ClientSession() as client:
        dialer = OpenDialer(f"http://{supernode.api_address}")
        dial = await dialer.dial(client)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{dial.url}/v1/session", ssl=dial.tls)
        explained = await dialer.explain(client, refused.value)
        assert explained is not None
        assert "refused (403): this supernode admits members only" in str(explained)


async def test_a_revoked_node_is_refused_within_a_look(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        node = Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s"))
        assert await node.asks() == 200
        database = MemberDatabase(AuthorityFolder(tmp_path / "s").path)
        database.revoke_node(node.identity.peer)
        database.close()
        await becomes(node.asks, 403)
        assert "was revoked: to admit this machine again" in str(await node.refusal())


async def test_a_node_renews_by_itself_when_it_is_told_to(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        node = Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s"))
        assert await node.asks() == 200
        before = node.file.read_bytes()

        async def is_renewed() -> bool:
            return node.file.read_bytes() != before

        renewing = asyncio.create_task(node.dialer.keep_renewed())
        node.dialer.renew_within(0.0)
        await becomes(is_renewed, True)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        assert await node.asks() == 200


async def test_a_node_survives_a_rotation_and_the_end_of_the_authority_before(tmp_path: Path) -> None:
    authorities = AuthorityFolder(tmp_path / "s")
    async with supernode_at(tmp_path / "s") as supernode:
        node = Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s"))
        assert await node.asks() == 200
    older = token_of(tmp_path / "s")
    authorities.rotate(HOUR_S)
    async with supernode_at(tmp_path / "s") as supernode:
        late = Candidate(tmp_path / "n", supernode)
        assert await late.asks() == 200
        # Tokens of both authorities admit.
        assert await Candidate(tmp_path / "a", supernode, older).asks() == 200
        assert await Candidate(tmp_path / "b", supernode, token_of(tmp_path / "s")).asks() == 200
        await late.dialer._renew()
    authorities.rotate(0.0)
    async with supernode_at(tmp_path / "s") as supernode:
        refusal = await Candidate(tmp_path / "n", supernode).refusal()
        assert "it is not the supernode that this node joined" in str(refusal)


async def test_a_node_whose_certificate_ended_while_it_was_away_needs_a_token_again(tmp_path: Path) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        await Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s")).asks()
        away = Candidate(tmp_path / "n", supernode)
        expire(away, AuthorityFolder(tmp_path / "s"))
        refusal = await Candidate(tmp_path / "n", supernode).refusal()
        assert "it does not accept this node's certificate, which has expired" in str(refusal)
        back = Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s"))
        assert "it does not accept this node's certificate" in str(await back.refusal())
        assert await back.asks() == 200


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_clock_two_hours_off_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    ours = time.time
    with monkeypatch.context() as wrong:
        # The supernode begins, certifies and makes its token with a clock of its own.
        wrong.setattr("time.time", lambda: ours() + hours * HOUR_S)
        token = token_of(tmp_path / "s", ttl_s=24 * HOUR_S)
        async with supernode_at(tmp_path / "s") as supernode:
            wrong.undo()
            assert await Candidate(tmp_path / "n", supernode, token).asks() == 200


async def test_a_clock_a_month_off_is_named_and_by_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = time.time
    # The supernode's; the node's stays as it is, and is OpenSSL's too.
    monkeypatch.setattr("peer.membership.dialer.time", SimpleNamespace(time=ours, gmtime=time.gmtime))
    monkeypatch.setattr("time.time", lambda: ours() + 30 * 24 * HOUR_S)
    token = token_of(tmp_path / "s")
    async with supernode_at(tmp_path / "s") as supernode:
        refusal = await Candidate(tmp_path / "n", supernode, token).refusal()
    assert "is not good at this machine's time: certificate is not yet valid" in str(refusal)
    assert "this machine's clock is 30.0 days behind the supernode's: set the one that is wrong" in str(refusal)


async def test_a_clock_months_ahead_does_not_renew_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = time.time
    async with supernode_at(tmp_path / "s") as supernode:
        node = Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s"))
        assert await node.asks() == 200
        ahead = SimpleNamespace(time=lambda: ours() + NODE_LIFE_S, gmtime=time.gmtime, strftime=time.strftime)
        monkeypatch.setattr("peer.membership.dialer.time", ahead)

        async def is_told() -> bool:
            return "reason=the new one is to be renewed already" in caplog.text

        renewing = asyncio.create_task(node.dialer.keep_renewed())
        await becomes(is_told, True)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        assert caplog.text.count("certificate_renewed") <= 1


@pytest.mark.parametrize(
    "kept",
    [
        "[]",
        "",
        '{"certificate": "", "authorities": "", "renew_unix_s": 9e9, "expires_unix_s": 9e9}',
        '{"certificate": "x", "authorities": "\\ud800", "renew_unix_s": NaN, "expires_unix_s": 1}',
        "the certificate of another key",
    ],
)
async def test_what_was_kept_and_cannot_be_used_is_told_and_a_token_makes_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: str
) -> None:
    async with supernode_at(tmp_path / "s") as supernode:
        node = Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s"))
        assert await node.asks() == 200
        if kept.startswith("the"):
            (tmp_path / "n" / "identity.key").unlink()
        else:
            node.file.write_text(kept)
        assert "has no join token" in str(await Candidate(tmp_path / "n", supernode).refusal())
        assert sum("membership_damaged" in message for message in caplog.messages) == 1
        assert await Candidate(tmp_path / "n", supernode, token_of(tmp_path / "s")).asks() == 200
