"""TLS contexts between nodes of a cluster: version 1.3 only, and only certificates of the cluster's own authority.

Keys go to OpenSSL by memory, never by a file of their own. What certificates say is read elsewhere.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

# What OpenSSL says of a certificate (X509_V_ERR_*).
NOT_YET_VALID: Final = 9
HAS_EXPIRED: Final = 10
OTHER_HOST: Final = 62


def server_context(certificate: bytes, key: bytes, authorities: str) -> ssl.SSLContext:
    """For a server: clients may show a certificate, and if they do it must be by one of `authorities`. All PEM."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    # A session lasts hours: nobody comes back soon enough to need a ticket.
    context.num_tickets = 0
    if authorities:
        context.load_verify_locations(cadata=authorities)
    load_pair(context, certificate, key)
    return context


def member_server_context(certificate: bytes, key: bytes, authorities: str) -> ssl.SSLContext:
    """For a node that serves nodes: who comes must show a certificate by one of `authorities`."""
    context = server_context(certificate, key, authorities)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def member_client_context(certificate: bytes, key: bytes, authorities: str) -> ssl.SSLContext:
    """For a node that asks nodes: whoever serves must be certified, and the caller looks for whom."""
    context = client_context(authorities, certificate, key)
    context.check_hostname = False
    return context


def client_context(authorities: str, certificate: bytes = b"", key: bytes = b"") -> ssl.SSLContext:
    """For a client: the server must be certified by one of `authorities`, for the name that is asked for."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authorities)
    if certificate:
        load_pair(context, certificate, key)
    return context


def unverified_context() -> ssl.SSLContext:
    """For reading what is checked otherwise. Nothing secret may go that way."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Show this certificate. OpenSSL, as Python has it, reads files only: this one is in memory, and nobody else's."""
    descriptor = os.memfd_create("layercast-pair", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(certificate + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
