"""TLS contexts of the legs between devices, relays, controller and nodes (relay-contract.md 1.3).

Anchors are intermediates: OpenSSL takes them with ``VERIFY_X509_PARTIAL_CHAIN``. Session tickets are off: a resumed session
would carry on with a certificate that nobody looks at again.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Credentials", "client_context", "server_context"]


@dataclass(frozen=True)
class Credentials:
    """A certificate chain, its key, and the one CA that the other side's certificate must come from. PEM bytes."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    anchor_pem: bytes

    @classmethod
    def read(cls, directory: Path, anchor: str) -> Credentials:
        """Of a relay: ``relay.crt``, ``relay.key``, and ``fleet-ca.crt`` or ``device-ca.crt``. Raises ``OSError``."""
        return cls(*((directory / name).read_bytes() for name in ("relay.crt", "relay.key", anchor)))


def server_context(
    credentials: Credentials, *, client_must: bool = True, tls12: bool = False, alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """For the side that is dialled.

    Args:
        credentials: ours, and the anchor of clients' certificates.
        client_must: False: a client may come without a certificate, but not with a wrong one.
        tls12: accepts TLS 1.2 as well.
        alpn: protocols that are spoken.

    Raises:
        ssl.SSLError: certificate and key do not belong together, or are none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_mode = ssl.CERT_REQUIRED if client_must else ssl.CERT_OPTIONAL
    return _complete(context, credentials, tls12=tls12, alpn=alpn)


def client_context(credentials: Credentials, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """For the side that dials; TLS 1.3, and the server's name is checked. Raises ``ssl.SSLError`` as ``server_context``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _complete(context, credentials, tls12=False, alpn=alpn)


def _complete(context: ssl.SSLContext, credentials: Credentials, *, tls12: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if tls12 else ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=credentials.anchor_pem.decode("ascii"))
    with _as_file(credentials.chain_pem) as chain, _as_file(credentials.key_pem) as key:
        context.load_cert_chain(chain, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A name for bytes in memory, because ``load_cert_chain`` takes nothing else; a key never touches a disk for it."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
