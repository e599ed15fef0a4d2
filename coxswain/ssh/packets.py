"""What a host may send, before anybody knows who it is and after: paramiko believes every length, and listens for ever."""

from __future__ import annotations

import time

import paramiko

__all__ = ["Bounded"]

_GREETING = 64 * 1024
"""Bytes before the host's version: RFC 4253, section 4.2, allows lines there, and OpenSSH reads as many as these."""

_LONGEST_PACKET = 256 * 1024
"""OpenSSH's limit too; a packet's first four bytes could announce 4 GB."""

_MOST = 64 * 1024 * 1024
"""Bytes in one connection. Outputs are cut to a fraction of that, and programs go the other way. So it bounds memory as
well: paramiko keeps what nobody has read yet, whether the host kept to the window or not.
"""


class Bounded(paramiko.Packetizer):  # type: ignore[misc]  # paramiko has no types
    """For ``paramiko.Transport``. What goes too far ends the connection, with the reason as its exception."""

    _greeting = 0
    _greeting_until = 0.0
    _received = 0

    def _read_timeout(self, timeout: float) -> bytes:
        """The next bytes of a greeting; the first call's ``timeout`` is that of all of it."""
        now = time.monotonic()
        self._greeting_until = self._greeting_until or now + timeout
        if self._greeting > _GREETING or now > self._greeting_until:
            raise paramiko.SSHException(": it greets without end")
        block: bytes = super()._read_timeout(timeout)
        self._greeting += len(block)
        return block

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: FBT001, FBT002 - as it is called
        if n > _LONGEST_PACKET:
            raise paramiko.SSHException(f"it announced a packet of {n} bytes")
        self._received += max(0, n)
        if self._received > _MOST:
            raise paramiko.SSHException(f"it sent more than {_MOST // 1024 // 1024} MB")
        block: bytes = super().read_all(n, check_rekey)
        return block
