"""Reads ``awg show IFACE dump`` and ``wg show IFACE dump`` (node-contract.md 6.5)."""

from __future__ import annotations

from coxswain.agent.dataplane import DataPlaneFailed, LivePeer

__all__ = ["DumpError", "parse_dump"]

_UINT64_MAX = 2**64 - 1


class DumpError(DataPlaneFailed):
    """A dump cannot be read. Names the line by number only: it could hold a key."""


def parse_dump(text: str) -> dict[str, LivePeer]:
    """Live peers by public key, in the order of the dump.

    The first line is the interface's and ignored, whatever its width; a malformed one after it fails the whole dump.

    Raises:
        DumpError: see above.
    """
    peers: dict[str, LivePeer] = {}
    for number, line in enumerate(text.split("\n")[1:], 2):
        if not line:
            continue
        columns = line.split("\t")
        if len(columns) < 7 or not columns[0]:
            raise DumpError(f"line {number} of the dump has {len(columns)} columns; a peer has at least 7")
        endpoint = "" if columns[2] == "(none)" else columns[2]
        numbers = columns[4:7]
        digits = "".join(numbers)
        if not (digits.isascii() and digits.isdigit() and all(numbers)) or max(map(len, numbers)) > 20:
            raise DumpError(f"line {number} of the dump has a column that is no number")
        handshake, received, sent = map(int, numbers)
        if max(handshake, received, sent) > _UINT64_MAX:
            raise DumpError(f"line {number} of the dump has a number that is too large")
        peers[columns[0]] = LivePeer(columns[0], endpoint, handshake, received, sent)
    return peers
