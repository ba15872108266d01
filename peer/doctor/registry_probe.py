"""Asks a registry from this machine, step by step: its name, a connection, TLS, an answer. No credential goes out."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

from peer.doctor import http_question
from peer.doctor.facts import RegistryFacts
from proto.oci.upstreams import split_authority

if TYPE_CHECKING:
    from collections.abc import Mapping


def probe(upstream: Mapping[str, str | bool], by_peer: int) -> RegistryFacts:
    """`upstream` is UpstreamConfig.facts(); `by_peer` what the peer answered for it."""
    host, url = str(upstream["host"]), str(upstream["url"])
    if upstream["kind"]:
        return _folder(host, str(upstream["place"]), by_peer)
    authority = url.partition("://")[2]
    facts = RegistryFacts(host, authority, by_peer=by_peer)
    if upstream["by_proxy"] or upstream.get("by_certificate"):
        # It is reached by way of a proxy whose password, or with a certificate whose key, is the peer's alone.
        return replace(facts, asked=False)
    name, port = split_authority(authority, 443 if url.startswith("https:") else 80)
    try:
        socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        return replace(facts, step="name", problem=f"the name {name} stands for no address: {why}")
    try:
        with contextlib.closing(socket.create_connection((name, port), http_question.TIMEOUT_S)) as plain:
            return _asked(facts, plain, name, url, str(upstream["ca_file"]))
    except ssl.SSLCertVerificationError as error:
        why = f"its certificate is not believed: {error.verify_message}"
        return replace(facts, step="tls", problem=why)
    except ssl.SSLError as error:
        return replace(facts, step="tls", problem=f"no TLS: {error.reason or error}")
    except (OSError, http.client.HTTPException) as error:
        return replace(facts, step="connect", problem=_text(error))


def _asked(facts: RegistryFacts, plain: socket.socket, name: str, url: str, ca_file: str) -> RegistryFacts:
    """Raises OSError, http.client.HTTPException."""
    if url.startswith("https:"):
        context = ssl.create_default_context()
        if ca_file:
            try:
                context.load_verify_locations(cafile=ca_file)
            except OSError as error:
                return replace(facts, step="tls", problem=f"ca_file {ca_file}: {_text(error)}")
        with context.wrap_socket(plain, server_hostname=name) as connection:
            answer = http_question.get(connection, facts.address, "/v2/")
    else:
        answer = http_question.get(plain, facts.address, "/v2/")
    return replace(facts, status=answer.status, retry_after_s=answer.retry_after_s())


def _folder(host: str, place: str, by_peer: int) -> RegistryFacts:
    try:
        os.listdir(place)
    except OSError as error:
        return RegistryFacts(host, place, "folder", _text(error), by_peer=by_peer)
    return RegistryFacts(host, place, by_peer=by_peer)


def _text(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {http_question.TIMEOUT_S:g} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
