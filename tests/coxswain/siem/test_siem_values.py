"""Cursors, what may be asked for, and events, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.ids import ID_PATTERN, number_of, ordered_id
from coxswain.live.ring import EventRing, Numbered
from coxswain.messages.hub import Publish
from coxswain.messages.sessions import REASONS, SessionRecord
from coxswain.model import Protocol
from coxswain.siem.cursor import Cursor
from coxswain.siem.events import live_event, record_event, record_number
from coxswain.siem.wanted import CONTRACT, Wanted

NUMBER = st.integers(0, 2**63 - 1)


@given(NUMBER, NUMBER, st.booleans())
def test_a_cursor_comes_back_as_it_was(seq: int, record: int, behind: bool) -> None:
    cursor = Cursor(seq, record, behind)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text(max_size=40) | st.from_regex(r"[0-9.b-]{0,45}", fullmatch=True))
def test_other_texts_are_none(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except InvalidInput:
        pass
    else:
        assert max(cursor.seq, cursor.record) < 2**63


@given(st.integers(0, 2**80 - 1))
def test_an_id_says_its_number(number: int) -> None:
    text = ordered_id("cev", number)
    assert ID_PATTERN.match(text) and number_of(text) == number


def test_what_is_asked_for() -> None:
    assert Wanted.of([]).kinds == Wanted.of(["", ""]).kinds == frozenset(CONTRACT)
    assert Wanted.of(["connect", "nonsense", "session"]) == Wanted(frozenset({"connect"}), ("nonsense", "session"))
    assert Wanted.of(["audit", "tree"]).for_admins == {"audit"}
    some = Wanted.of(["connect", "alert", "tree"])
    assert some.wants("PEER_CONNECTED") and not some.wants("PEER_DISCONNECTED")
    assert some.wants("alert") and not some.wants("alert_updated")
    assert some.wants("tree.restarted") and not some.wants("node.status") and not some.wants("dropped")
    assert not some.wants_from_ring("PEER_CONNECTED"), "the store has it"


@given(st.lists(st.text(max_size=20), max_size=8))
def test_whatever_is_asked_for_is_known_or_said(names: list[str]) -> None:
    wanted = Wanted.of(names)
    asked = {name for name in names if name}
    assert wanted.kinds | set(wanted.unknown) == (asked or set(CONTRACT))


def record(reason: str | None, rx: int | None, tx: int | None) -> SessionRecord:
    return SessionRecord(
        seq=1_767_225_600_000_001,
        at_us=1_767_225_600_123_456,
        received_at=1.0,
        session_id=7,
        node_id="nod_a",
        protocol=Protocol.XRAY_REALITY,
        peer_key="peer",
        device_id=None,
        user_id="usr_1",
        source_ip="2001:db8::1",
        source_endpoint="[2001:db8::1]:5",
        rx_bytes=rx,
        tx_bytes=tx,
        reason=reason,
    )


@pytest.mark.parametrize("reason", [None, *REASONS])
def test_from_the_store_and_live_it_is_the_same_event(reason: str | None) -> None:
    row = record(reason, 5, 6)
    data = {
        "node_id": "nod_a", "protocol": "XRAY_REALITY", "peer_id": "peer", "user": "usr_1", "source_ip": "2001:db8::1",
        "source_endpoint": "[2001:db8::1]:5", "id": ordered_id("cev", row.seq), "session_id": 7,
    }  # fmt: skip
    kind = "PEER_CONNECTED"
    if reason is not None:
        kind = "PEER_DISCONNECTED"
        data |= {"rx_bytes": 5, "tx_bytes": 6} | ({} if reason == "disconnect" else {"reason": reason})
    live = Numbered(9, Publish(kind, row.at_us / 1e6, data))
    assert record_number(live) == row.seq
    assert live_event(live, "9.1") == record_event(row, "9.1")


def test_bytes_that_nobody_knows_are_said_to_be_so_and_none_overflow() -> None:
    unknown = record_event(record("stream-lost", None, 5), "").session
    assert unknown.bytes_unknown and (unknown.rx_bytes, unknown.tx_bytes) == (0, 0)
    large = record_event(record("idle", 2**64 - 1, -4), "").session
    assert (large.rx_bytes, large.tx_bytes, large.bytes_unknown) == (2**63 - 1, 0, False)


def test_an_alert_without_anything_in_it_is_no_failure() -> None:
    event = live_event(Numbered(1, Publish("alert", 1.0, {})), "")
    assert event.type == "alert" and json.loads(event.alert.detail_json) == {}


@given(st.lists(st.sampled_from(["alert", "tree.a", "node.status"]), max_size=40), st.integers(1, 12), st.data())
def test_what_a_reader_missed_can_be_counted_when_it_is_gone(kinds: list[str], capacity: int, data: st.DataObject) -> None:
    ring = EventRing(capacity)
    ring.begin(1_000)
    told: list[str] = []
    wants: Callable[[str], bool] = data.draw(st.sampled_from([lambda k: k == "alert", lambda k: k != "alert"]))
    place = data.draw(st.integers(0, len(kinds)))
    for count, kind in enumerate(kinds):
        if count == place:
            seen = ring.count_up_to(ring.last, wants)
            assert seen == sum(map(wants, told))
        ring.append([Publish(kind, 1.0, {})])
        told.append(kind)
    for seq in range(990, ring.last + 3):
        found = ring.count_up_to(seq, wants)
        in_reach = max(1_000, ring.last - capacity) <= seq <= ring.last
        assert found == (sum(map(wants, told[: seq - 1_000])) if in_reach else None)
    gone = max(1_000, ring.last - capacity)
    assert ring.count_gone(wants) == (gone, sum(map(wants, told[: gone - 1_000])))
