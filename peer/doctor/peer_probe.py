"""Asks the peer of this machine how it is, and finds out who answers in its place. Changes nothing."""

from __future__ import annotations

import fcntl
import http.client
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from peer.doctor import http_question
from peer.doctor.facts import PeerFacts
from peer.doctor.processes import listener

if TYPE_CHECKING:
    from pathlib import Path


def probe(url: str, status_url: str, data_dir: Path) -> PeerFacts:
    """`url` is the mirror's, `status_url` where it tells its status."""
    facts = PeerFacts(url, data_dir=str(data_dir))
    port = urlsplit(url).port or 80
    try:
        answer = _get(status_url, "/v1/status")
        said = answer.json()
        if said.get("program") == "layercast-peer":
            return replace(facts, said=said)
        health = _get(status_url, "/healthz").body
    except TimeoutError:
        return replace(facts, problem="silent", taken_by=listener(port))
    except (ConnectionResetError, BrokenPipeError, http.client.HTTPException):
        return replace(facts, problem="other", taken_by=listener(port))
    except OSError:
        # Nobody is there, or there is no such place.
        return replace(facts, problem="refused", runs_elsewhere=_is_locked(data_dir))
    return replace(facts, problem="old" if b"supernode: " in health else "other", taken_by=listener(port))


def relayed_status(url: str, registry: str) -> int:
    """Of GET /v2/ for a registry, by way of the peer; 0 where the peer does not answer."""
    try:
        return _get(url, f"/v2/?ns={registry}").status
    except (OSError, http.client.HTTPException):
        return 0


def _get(url: str, path: str) -> http_question.Answer:
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    with socket.create_connection(address, http_question.TIMEOUT_S) as connection:
        return http_question.get(connection, parts.netloc, path)


def _is_locked(data_dir: Path) -> bool:
    """Whether another process has this data folder."""
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
