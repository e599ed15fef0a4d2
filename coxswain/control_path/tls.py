"""What the controller shows to relays as hops, and whom it takes for one (relay-contract.md 1.3, row L4)."""

from __future__ import annotations

import os
import ssl

__all__ = ["client_context"]


def client_context(root_pem: bytes, chain_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """TLS 1.3 alone, and the root as the only anchor. The key never touches a disk: OpenSSL reads it from memory that has a
    descriptor.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=root_pem.decode())
    memory = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        os.write(memory, key_pem + chain_pem)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return context
