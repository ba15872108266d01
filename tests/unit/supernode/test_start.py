"""What nodes of an earlier process meet while the supernode is not ready yet."""

from __future__ import annotations

import asyncio
import http.client
from typing import TYPE_CHECKING

from peer.transport.wire import pieces_path
from proto.ids import Digest
from supernode import config
from supernode.app import Supernode

if TYPE_CHECKING:
    from pathlib import Path


def ask(address: str) -> int:
    """The status of the answer to a request for a piece."""
    connection = http.client.HTTPConnection(address)
    try:
        connection.request("GET", pieces_path(Digest.of(b"blob"), 0, 0))
        return connection.getresponse().status
    finally:
        connection.close()


def test_pieces_are_asked_for_later_until_it_is_known_which_are_private(tmp_path: Path) -> None:
    async def go() -> None:
        argv = ["--listen", "127.0.0.1:0", "--upload-listen", "127.0.0.1:0", "--data-dir", str(tmp_path), "--open"]
        supernode = Supernode(config.load([*argv, "--store-free-floor", "0"], {}))
        try:
            supernode.open()
            assert await asyncio.to_thread(ask, supernode.upload_address) == 503
            await supernode.start()
            # Now for want of a ticket.
            assert await asyncio.to_thread(ask, supernode.upload_address) == 403
        finally:
            assert await supernode.stop()

    asyncio.run(go())
