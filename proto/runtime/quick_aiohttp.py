"""Imports aiohttp without the machine's certificates. Nothing else is about TLS here.

aiohttp makes two TLS contexts while it is imported, which reads every certificate twice: a sixth of a peer's start. Who
connects with TLS here makes a context of its own (peer.node.session, peer.registry), so those two are never used.
"""

from __future__ import annotations

import importlib
import os
from typing import Final

# Where OpenSSL looks for a file of certificates, instead of its default.
_FILE_VARIABLE: Final = "SSL_CERT_FILE"


def import_quickly() -> None:
    """Import aiohttp, unless it is imported already. Before any thread runs: the environment changes for a moment."""
    before = os.environ.get(_FILE_VARIABLE)
    os.environ[_FILE_VARIABLE] = os.devnull
    try:
        importlib.import_module("aiohttp")
    finally:
        if before is None:
            del os.environ[_FILE_VARIABLE]
        else:
            os.environ[_FILE_VARIABLE] = before
