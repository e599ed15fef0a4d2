"""Events as bytes on the wire: WebSocket text frames, or server-sent events. What one client gets, all of its view get."""

from __future__ import annotations

import json
import struct
from typing import Any

from coxswain.live.frames import ADMIN_CLASSES, DROPPED, stamp
from coxswain.live.ring import EventRing, Numbered
from coxswain.live.start import View

__all__ = ["Chunk", "chunk_after", "notice", "sees"]

_CHUNK_EVENTS = 512
_CHUNK_BYTES = 64 * 1024
_TEXT = 0x81
"""FIN, and opcode 1 (RFC 6455, section 5.2)."""


class Chunk:
    """Bytes of some events in a row.

    Attributes:
        data: as they go out; may be empty, where none of them is for this view.
        first, last: the numbers from and up to which this tells.
        missed: see ``Stretch``.
    """

    __slots__ = ("data", "first", "last", "missed")

    def __init__(self, data: bytes, first: int, last: int, missed: int | None) -> None:
        self.data = data
        self.first = first
        self.last = last
        self.missed = missed


def chunk_after(ring: EventRing, seq: int, view: View) -> Chunk:
    """The next events after ``seq``, about 64 KB of them at most."""
    stretch = ring.after(seq, _CHUNK_EVENTS)
    parts: list[bytes] = []
    size, last = 0, stretch.last
    for event in stretch.events:
        if sees(view, event):
            parts.append(_encode(event.text, event.seq, websocket=view.websocket))
            size += len(parts[-1])
            if size >= _CHUNK_BYTES:
                last = event.seq
                break
    return Chunk(b"".join(parts), stretch.first, last, stretch.missed)


def sees(view: View, event: Numbered) -> bool:
    """Whether an event is for this view. That something is missing is for everybody."""
    name = event.event_class
    if name == DROPPED:
        return True
    return (view.admin or name not in ADMIN_CLASSES) and (view.classes is None or name in view.classes)


def notice(view: View, kind: str, seq: int, at: float, **data: Any) -> bytes:
    """A frame for one client, about the stream itself. Its number is the one up to which everything was told."""
    frame = {"seq": seq, "node_id": "", "at": stamp(at), "type": kind, **data}
    return _encode(json.dumps(frame, separators=(",", ":")).encode(), seq, websocket=view.websocket)


def _encode(text: bytes, seq: int, *, websocket: bool) -> bytes:
    if not websocket:
        return b"id: %d\ndata: %b\n\n" % (seq, text)  # one line: JSON has its line ends escaped
    size = len(text)
    if size < 126:
        return struct.pack("!BB", _TEXT, size) + text
    if size < 65_536:
        return struct.pack("!BBH", _TEXT, 126, size) + text
    return struct.pack("!BBQ", _TEXT, 127, size) + text
