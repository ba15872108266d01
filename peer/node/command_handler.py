"""What carries out the downloader's commands: one method for each, on a real node and on a simulated one.

See peer.downloader.contract for what each command asks for, and for the one outcome that each has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from peer.downloader import contract

if TYPE_CHECKING:
    from collections.abc import Callable


class CommandHandler(Protocol):
    """Called on the thread that runs the downloader; what takes time is only begun."""

    def send(self, command: contract.Send) -> None: ...

    def open_in_store(self, command: contract.OpenInStore) -> None: ...

    def close_in_store(self, command: contract.CloseInStore) -> None: ...

    def void_in_store(self, command: contract.VoidInStore) -> None: ...

    def check_digest(self, command: contract.CheckDigest) -> None: ...

    def store_content(self, command: contract.StoreContent) -> None: ...

    def start_fetch(self, command: contract.StartFetch) -> None: ...

    def cancel_fetch(self, command: contract.CancelFetch) -> None: ...

    def fetch_upstream(self, command: contract.FetchUpstream) -> None: ...

    def cancel_upstream(self, command: contract.CancelUpstream) -> None: ...

    def check_public(self, command: contract.CheckPublic) -> None: ...

    def ask_holdings(self, command: contract.AskHoldings) -> None: ...

    def answer_reader(self, command: contract.AnswerReader) -> None: ...

    def refuse_reader(self, command: contract.RefuseReader) -> None: ...

    def fail_readers(self, command: contract.FailReaders) -> None: ...

    def piece_held(self, command: contract.PieceHeld) -> None: ...

    def blob_complete(self, command: contract.BlobComplete) -> None: ...

    def source_public(self, command: contract.SourcePublic) -> None: ...

    def forget_blob(self, command: contract.ForgetBlob) -> None: ...


def methods_of(handler: CommandHandler) -> dict[type[contract.Command], Callable[[Any], None]]:
    """The handler's method for each class of command."""
    return {
        contract.Send: handler.send,
        contract.OpenInStore: handler.open_in_store,
        contract.CloseInStore: handler.close_in_store,
        contract.VoidInStore: handler.void_in_store,
        contract.CheckDigest: handler.check_digest,
        contract.StoreContent: handler.store_content,
        contract.StartFetch: handler.start_fetch,
        contract.CancelFetch: handler.cancel_fetch,
        contract.FetchUpstream: handler.fetch_upstream,
        contract.CancelUpstream: handler.cancel_upstream,
        contract.CheckPublic: handler.check_public,
        contract.AskHoldings: handler.ask_holdings,
        contract.AnswerReader: handler.answer_reader,
        contract.RefuseReader: handler.refuse_reader,
        contract.FailReaders: handler.fail_readers,
        contract.PieceHeld: handler.piece_held,
        contract.BlobComplete: handler.blob_complete,
        contract.SourcePublic: handler.source_public,
        contract.ForgetBlob: handler.forget_blob,
    }
