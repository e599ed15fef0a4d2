"""The ring: numbers without gaps, and the truth about what is missing. And the bytes that are made of it."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.live.frames import CLASSES, class_of, inventory_of, render
from coxswain.live.ring import EventRing
from coxswain.live.start import View
from coxswain.live.wire import chunk_after, notice
from coxswain.messages.hub import Publish


def ring(count: int, capacity: int = 10, began: int = 1_000) -> EventRing:
    made = EventRing(capacity)
    made.begin(began)
    made.append(Publish("tree.test", 1.0, {"number": number}) for number in range(count))
    return made


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 1_060), st.integers(0, 15))
def test_what_comes_after_a_number(count: int, capacity: int, after: int, limit: int) -> None:
    made = ring(count, capacity)
    found = made.after(after, limit)
    seqs = [event.seq for event in found.events]
    kept = list(range(1_001 + max(0, count - capacity), 1_001 + count))
    assert found.first == (seqs[0] if seqs else found.first)
    if after == 0:
        assert (seqs, found.missed) == (kept[:limit], 0)
    elif 1_000 <= after <= 1_000 + count:
        expected = [seq for seq in kept if seq > after]
        assert seqs == expected[:limit]
        oldest = 1_001 + max(0, count - capacity)
        assert found.missed == max(0, oldest - after - 1)
    else:
        assert (seqs, found.missed) == (kept[:limit], None)
    assert found.last == (seqs[-1] if seqs else found.first - 1) or not limit


def test_only_the_first_beginning_counts() -> None:
    made = ring(3)
    made.begin(5_000)
    assert made.last == 1_003 and made.is_begun


def test_a_text_is_made_once() -> None:
    made = ring(1)
    (one,) = made.after(0, 5).events
    (again,) = made.after(1_000, 5).events
    assert one.text is again.text


def frames(data: bytes) -> list[dict[str, object]]:
    """What a WebSocket client makes of it."""
    found = []
    while data:
        first, size = data[:2]
        assert first == 0x81
        head = 2
        if size == 126:
            (size,), head = struct.unpack("!H", data[2:4]), 4
        elif size == 127:
            (size,), head = struct.unpack("!Q", data[2:10]), 10
        found.append(json.loads(data[head : head + size]))
        data = data[head + size :]
    return found


@pytest.mark.parametrize("length", [0, 20, 30, 100, 60_000, 65_300, 65_500, 70_000])
def test_frames_of_every_length(length: int) -> None:
    made = EventRing()
    made.begin(1)
    made.append([Publish("tree.x", 1.0, {"text": "ü" * (length // 2)})])
    (one,) = frames(chunk_after(made, 1, View(websocket=True, admin=False)).data)
    assert one.get("truncated") or one["text"] == "ü" * (length // 2)
    assert (one["seq"], one["node_id"], one["type"], one["kind"]) == (2, "", "tree", "tree.x")
    assert bool(one.get("truncated")) == (length > 65_400)


def test_a_chunk_ends_somewhere_and_the_next_goes_on_there() -> None:
    made = EventRing()
    made.begin(1)
    made.append(Publish("tree.x", 1.0, {"text": "x" * 9_000, "number": number}) for number in range(50))
    view, seq, seen = View(websocket=True, admin=False), 1, []
    while seq < made.last:
        chunk = chunk_after(made, seq, view)
        assert len(chunk.data) < 80_000
        seen += [frame["number"] for frame in frames(chunk.data)]
        seq = chunk.last
    assert seen == list(range(50))


def test_who_sees_what() -> None:
    made = EventRing()
    made.begin(1)
    kinds = (
        "PEER_CONNECTED",
        "node.link",
        "audit",
        "audit.checkpoint",
        "config.reloaded",
        "alert",
        "dropped",
        "of.tomorrow",
    )
    made.append(Publish(kind, 1.0, {}) for kind in kinds)

    def seen(view: View) -> list[object]:
        return [frame.get("kind", frame["type"]) for frame in frames(chunk_after(made, 1, view).data)]

    base = View(websocket=True, admin=False)
    assert seen(replace(base, admin=True)) == list(kinds)
    assert seen(base) == ["PEER_CONNECTED", "node.link", "alert", "dropped", "of.tomorrow"]
    assert seen(replace(base, classes=frozenset({"session"}))) == ["PEER_CONNECTED", "dropped"]
    assert seen(replace(base, classes=frozenset({"audit"}))) == ["dropped"], "asking for it does not make an admin"
    nothing = chunk_after(made, 1, View(True, False, frozenset({"status"})))
    assert nothing.last == made.last, "what is not for them is behind them all the same"


def test_server_sent_events_are_one_line_each() -> None:
    made = EventRing()
    made.begin(1)
    made.append([Publish("tree.x", 1.0, {"text": "a\n\nid: 7\r\ndata: \u2028"})])
    text = chunk_after(made, 1, View(websocket=False, admin=False)).data.decode()
    head, data, *rest = text.split("\n")
    assert (head, rest) == ("id: 2", ["", ""])
    assert json.loads(data.removeprefix("data: "))["text"] == "a\n\nid: 7\r\ndata: \u2028"
    assert notice(View(websocket=False, admin=False), "dropped", 5, 1.0, count=3).startswith(b"id: 5\ndata: {")


def test_data_cannot_pretend_to_be_another_frame() -> None:
    frame = json.loads(render(9, Publish("tree.x", 1.0, {"seq": 1, "type": "alert", "at": "never", "kind": "alert"})))
    assert (frame["seq"], frame["type"], frame["kind"]) == (9, "tree", "tree.x")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("HANDSHAKE_UP", "node"),
        ("ERROR", "node"),
        ("node.status", "status"),
        ("node.changed", "inventory"),
        ("user.added", "inventory"),
        ("operation.step", "operation"),
        ("tree.hung", "tree"),
        ("alert_updated", "alert"),
        ("audit.broken", "audit"),
    ],
)
def test_classes(kind: str, name: str) -> None:
    assert class_of(kind) == name
    assert name in CLASSES


def test_half_of_a_surrogate_pair_stops_nothing() -> None:
    assert b'"x"' in render(1, Publish("tree.x", 1.0, {"text": "\ud800", "x": 1}))


def test_a_record_of_nothing_changes_no_inventory() -> None:
    record = {"action": "node.add", "target_type": "node", "target_id": "nod_1", "result": "ok"}
    told = inventory_of(Publish("audit", 1.0, record))
    assert told is not None and told.data["node_id"] == "nod_1"
    for change in ({"result": "error"}, {"action": "auth.login"}, {"action": ""}, {"target_id": ""}):
        assert inventory_of(Publish("audit", 1.0, record | change)) is None
