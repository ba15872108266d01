"""Asks the supernode, as this node would: by mutual TLS with the node's certificate, or plainly with --open."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from peer.doctor import http_question
from peer.doctor.facts import SupernodeFacts
from peer.membership.record import FILE, read_record
from proto.errors import ConfigError
from proto.runtime import tls
from proto.wire.join import REFUSAL_HEADER, SUPERNODE_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from peer.membership.record import Record

_PORT = 65000


def probe(url: str, data_dir: Path, *, is_open: bool, peer: str) -> SupernodeFacts:
    """`peer` is the node's id in hex, as it told it; empty where it was not asked."""
    facts = SupernodeFacts(url)
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or _PORT)
    path = f"/v1/check?peer={peer}"
    record, skipped = (None, "") if is_open else _record(data_dir)
    if record is not None:
        facts = replace(facts, expires_unix_s=record.expires_unix_s)
    try:
        with contextlib.closing(socket.create_connection(address, http_question.TIMEOUT_S)) as connection:
            if is_open and parts.scheme == "http":
                return _judged(facts, http_question.get(connection, parts.netloc, path))
            if record is None:
                return replace(facts, skipped=skipped or "reached; opened by --open, so nothing more was asked")
            return _ask(facts, connection, record, data_dir, path)
    except socket.gaierror as error:
        return replace(facts, unreachable=f"its name {address[0]} is not known: {error.strerror}")
    except TimeoutError:
        return replace(facts, unreachable=f"no answer within {http_question.TIMEOUT_S:g} s")
    except ssl.SSLError as error:
        return replace(facts, refused=_explained(error), ahead_s=_ahead_s(address) if _is_about_time(error) else 0.0)
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return replace(facts, unreachable=f"{address[0]}:{address[1]}: {said}")


def _ask(facts: SupernodeFacts, plain: socket.socket, record: Record, data_dir: Path, path: str) -> SupernodeFacts:
    """As the member that this node is. Raises OSError, http.client.HTTPException."""
    from peer.membership.refusals import NOT_BELIEVED
    from proto.wire.tickets import Identity

    try:
        key = Identity.load_or_create(data_dir / "identity.key").private_pem()
        context = tls.client_context(record.authorities, record.certificate.encode(), key)
    except (ConfigError, ssl.SSLError, ValueError):
        return replace(facts, refused="membership.json is not of this node's key, or a disk has changed it")
    with context.wrap_socket(plain, server_hostname=SUPERNODE_NAME) as connection:
        try:
            # A server that does not accept a certificate hangs up after the handshake, with or without a word.
            return _judged(facts, http_question.get(connection, SUPERNODE_NAME, path))
        except (ssl.SSLError, ConnectionError, http.client.HTTPException):
            return replace(facts, refused=NOT_BELIEVED)


def _judged(facts: SupernodeFacts, answer: http_question.Answer) -> SupernodeFacts:
    facts = replace(facts, ahead_s=answer.ahead_s())
    if answer.status == 200 and answer.json():
        return replace(facts, check=answer.json())
    if answer.status == 404:
        return replace(facts, old=True)
    said = answer.headers.get(REFUSAL_HEADER.lower(), "") or "it is no supernode"
    return replace(facts, refused=f"refused ({answer.status}): {said}")


def _record(data_dir: Path) -> tuple[Record | None, str]:
    """This node's certificate, or why it was not used."""
    if not (data_dir / "identity.key").exists():
        return None, "reached; this node has no key yet: it never ran here"
    try:
        record = read_record(data_dir / FILE)
    except ConfigError:
        return None, "reached; to ask as this node, run this as root, or as the peer's user"
    return record, "" if record is not None else "reached; this node has no certificate yet"


def _explained(error: ssl.SSLError) -> str:
    from peer.membership.refusals import refusal_of

    return str(refusal_of(error) or error.reason or error)


def _is_about_time(error: ssl.SSLError) -> bool:
    found = getattr(error, "verify_code", 0)
    return found in (tls.NOT_YET_VALID, tls.HAS_EXPIRED)


def _ahead_s(address: tuple[str, int]) -> float:
    """By how much its clock is ahead, where certificates are not good by ours; nothing else of that is believed."""
    try:
        with (
            contextlib.closing(socket.create_connection(address, http_question.TIMEOUT_S)) as plain,
            tls.unverified_context().wrap_socket(plain, server_hostname=SUPERNODE_NAME) as connection,
        ):
            return http_question.get(connection, SUPERNODE_NAME, "/healthz").ahead_s()
    except (OSError, http.client.HTTPException):
        return 0.0
