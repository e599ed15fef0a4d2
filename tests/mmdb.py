"""Writes small GeoIP databases, in MaxMind's file format (https://maxmind.github.io/MaxMind-DB/), for tests."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARKER = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR = 16
_UINT16, _UINT32, _MAP, _UINT64, _ARRAY = 5, 6, 7, 9, 11
_STRING, _DOUBLE = 2, 3


def city(latitude: float, longitude: float, name: str = "", country: str = "", code: str = "") -> dict[str, Any]:
    """A record as city databases have it."""
    record: dict[str, Any] = {"location": {"latitude": latitude, "longitude": longitude}}
    if name:
        record["city"] = {"names": {"en": name}}
    if code:
        record["country"] = {"iso_code": code, "names": {"en": country}}
    return record


def write_mmdb(path: Path, records: Mapping[str, Any], kind: str = "DBIP-City-Lite") -> None:
    """``records``: by network, such as ``198.51.100.0/24``; IPv4 ones lie where IPv6 trees have them, below ``::/96``."""
    data, places = b"", {}
    for network, record in records.items():
        places[network] = len(data)
        data += _encode(record)
    nodes: list[list[int | tuple[str, int]]] = [[-1, -1]]
    for network, place in places.items():
        parsed = ipaddress.ip_network(network)
        bits = parsed.prefixlen + (96 if parsed.version == 4 else 0)
        number = int(parsed.network_address)
        at = 0
        for depth in range(bits):
            side = number >> (127 - depth) & 1
            if depth == bits - 1:
                nodes[at][side] = ("data", place)
                break
            if nodes[at][side] == -1:
                nodes.append([-1, -1])
                nodes[at][side] = len(nodes) - 1
            below = nodes[at][side]
            assert isinstance(below, int)
            at = below
    count = len(nodes)
    tree = b"".join(_pointer(side, count) for node in nodes for side in node)
    described = {
        "node_count": (_UINT32, count),
        "record_size": 32,
        "ip_version": 6,
        "database_type": kind,
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": (_UINT64, 1_780_000_000),
        "description": {"en": "made by a test"},
    }
    whole = tree + bytes(_SEPARATOR) + data + _MARKER + _encode(described)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(whole)
    fresh.rename(path)


def _pointer(side: int | tuple[str, int], count: int) -> bytes:
    value = side[1] + count + _SEPARATOR if isinstance(side, tuple) else count if side == -1 else side
    return struct.pack(">I", value)


def _encode(value: Any) -> bytes:
    match value:
        case str():
            raw = value.encode()
            return _head(_STRING, len(raw)) + raw
        case float():
            return _head(_DOUBLE, 8) + struct.pack(">d", value)
        case (int(kind), int(number)):  # readers want each number of the description to be of its own size
            raw = number.to_bytes(8, "big").lstrip(b"\0")
            return _head(kind, len(raw)) + raw
        case int():
            return _encode((_UINT16, value))
        case list():
            return _head(_ARRAY, len(value)) + b"".join(map(_encode, value))
        case dict():
            return _head(_MAP, len(value)) + b"".join(_encode(k) + _encode(v) for k, v in value.items())
    raise TypeError(value)


def _head(kind: int, size: int) -> bytes:
    assert size < 29 + 256
    length, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return bytes([kind << 5 | length]) + more if kind < 8 else bytes([length, kind - 7]) + more
