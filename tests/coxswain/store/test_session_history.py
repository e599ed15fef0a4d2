"""The rows of what sessions were: pages of records under every filter, totals, and forgetting. Both backends."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from coxswain.messages.sessions import REASONS, ListRecords, ListSessions, ListTotals, SessionRecord
from coxswain.model import Protocol
from coxswain.sessions import Boundary, Changes, OpenSession
from coxswain.store import Store, Tx, open_store
from coxswain.store import session_records as records
from coxswain.store import session_totals as totals
from coxswain.store import sessions as rows
from coxswain.store.api import Row, Value

AWG, XRAY = Protocol.AMNEZIAWG, Protocol.XRAY_REALITY
T = 1_800_000_000.0
DAY = 86_400.0


def boundary(rng: random.Random, number: int) -> Boundary:
    who = rng.randrange(6)
    session = OpenSession(number, (f"nod_{rng.randrange(3)}", rng.choice((AWG, AWG, XRAY)), f"key{who}"), T, T)
    session.device_id, session.user_id = (f"dev_{who}", f"usr_{who // 2}") if who else (None, None)
    at = T + rng.randrange(40) * 0.25  # many at once
    endpoint = rng.choice(("198.51.100.7:4000", "[2001:db8::1]:5", ""))
    reason = rng.choice((None, None, *REASONS))
    country = rng.choice(("DE", "DE", "AU", None)) if endpoint else None
    return Boundary(session, at, at + 1, reason, endpoint, rng.choice((None, 0, 7, 2**40)), 5, seq=number, country=country)


@pytest.fixture
def told(store: Store) -> list[Boundary]:
    rng = random.Random(4)
    made = [boundary(rng, number) for number in range(1, 601)]
    with store.write() as tx:
        records.add(tx, made)
    return made


def test_records_after_one_come_in_the_order_in_which_they_were_written(store: Store, told: list[Boundary]) -> None:
    with store.read() as tx:
        assert records.last_seq(tx) == 600
        seen, after = [], 0
        while page := records.records_after(tx, after, 97):
            seen += page
            after = page[-1].seq
        assert [(r.seq, r.reason, r.rx_bytes) for r in seen] == [(b.seq, b.reason, b.rx_bytes) for b in told]
        assert records.records_after(tx, 600, 10) == []


def find(store: Store, query: ListRecords) -> list[SessionRecord]:
    with store.read() as tx:
        return records.list_records(tx, query)


def expected(told: Sequence[Boundary], query: ListRecords) -> list[int]:
    """The same, by looking at every one."""

    def fits(b: Boundary) -> bool:
        node_id, protocol, _ = b.session.key
        return (
            query.device_id in (None, b.session.device_id)
            and query.user_id in (None, b.session.user_id)
            and query.node_id in (None, node_id)
            and query.protocol in (None, protocol)
            and query.reason in (None, b.reason)
            and query.event_type in (None, "connect" if b.reason is None else "disconnect")
            and (query.source_ip is None or (b.endpoint != "" and query.source_ip in b.endpoint))
            and query.country in (None, b.country)
            and (query.since is None or b.at >= query.since)
            and (query.until is None or b.at <= query.until)
        )

    newest = sorted((b for b in told if fits(b)), key=lambda b: (b.at, b.seq), reverse=True)
    return [b.seq for b in newest]


def test_every_combination_of_filters_finds_what_looking_at_all_finds(store: Store, told: list[Boundary]) -> None:
    choices = (
        ("device_id", (None, "dev_3", "dev_none")),
        ("user_id", (None, "usr_1")),
        ("node_id", (None, "nod_2")),
        ("source_ip", (None, "2001:db8::1")),
        ("protocol", (None, XRAY)),
        ("reason", (None, "roamed", "disconnect")),
        ("event_type", (None, "connect")),
        ("country", (None, "DE")),
        ("since", (None, T + 4)),
        ("until", (None, T + 7)),
    )
    found_some = 0
    for chosen in itertools.product(*(values for _, values in choices)):
        query = ListRecords(**dict(zip((name for name, _ in choices), chosen, strict=True)), limit=1000)  # type: ignore[arg-type]
        found = [record.seq for record in find(store, query)]
        assert found == expected(told, query), query
        found_some += bool(found)
    assert found_some > 100


def test_pages_follow_each_other_without_gap_or_repeat(store: Store, told: list[Boundary]) -> None:
    for query in (ListRecords(limit=7), ListRecords(limit=3, node_id="nod_1"), ListRecords(limit=1, device_id="dev_2")):
        seen: list[int] = []
        after = None
        while page := find(
            store, ListRecords(limit=query.limit, node_id=query.node_id, device_id=query.device_id, after=after)
        ):
            seen += [record.seq for record in page]
            after = (page[-1].at_us, page[-1].seq)
        assert seen == expected(told, query)


def test_a_record_is_what_was_written(store: Store, told: list[Boundary]) -> None:
    by_seq = {b.seq: b for b in told}
    for record in find(store, ListRecords(limit=1000)):
        b = by_seq[record.seq]
        assert (record.node_id, record.protocol, record.peer_key) == b.session.key
        assert (record.device_id, record.user_id) == (b.session.device_id, b.session.user_id)
        assert (record.at_us, record.received_at) == (round(b.at * 1e6), b.received_at)
        assert (record.reason, record.rx_bytes, record.tx_bytes) == (b.reason, b.rx_bytes, b.tx_bytes)
        assert (record.source_endpoint, record.country) == (b.endpoint, b.country or "")


@pytest.mark.parametrize("text", ["' OR 1=1 --", '"; DROP TABLE connection_events; --', "%", "_", "\\", "?", "%s", "$1"])
def test_sql_in_a_filter_is_a_value_like_any_other(store: Store, told: list[Boundary], text: str) -> None:
    for name in ("device_id", "user_id", "node_id", "source_ip", "country"):
        assert find(store, ListRecords(**{name: text})) == []  # type: ignore[arg-type]
    assert len(find(store, ListRecords(limit=1000))) == len(told)


def test_what_is_too_old_is_forgotten_bit_by_bit(store: Store, told: list[Boundary]) -> None:
    before = T + 5
    gone = [0]
    while True:
        with store.write() as tx:
            count = records.purge(tx, before, 50)
        if not count:
            break
        assert count <= 50
        gone.append(count)
    assert sum(gone) == sum(1 for b in told if b.at < before)
    assert [r.seq for r in find(store, ListRecords(limit=1000))] == expected(told, ListRecords(since=before))


def session(number: int, who: int, node: str, rx: int, *, closed: bool = False, known: bool = True) -> OpenSession:
    made = OpenSession(number, (node, AWG, f"key{who}"), T, T)
    made.device_id, made.user_id = f"dev_{who}", f"usr_{who // 2}"
    made.begin_count(1000, 1000)
    made.count(1000 + rx, 1001)
    if not known:
        made.rx_last = made.tx_last = None
    if closed:
        made.closed_at, made.reason = T + 60, "idle"
    return made


def changes(*sessions: OpenSession, opened: bool = True) -> Changes:
    mine = Changes()
    mine.dirty = {s.id: s for s in sessions}
    mine.opened = list(sessions) if opened else []
    mine.closed = [s for s in sessions if s.closed_at is not None]
    return mine


def write(store: Store, change: Changes, now: float) -> None:
    with store.write() as tx:
        totals.add(tx, change, now=now)
    totals.totalled(change.dirty.values())


def test_totals_are_what_was_moved_by_whom_where_and_when(store: Store) -> None:
    first, second = session(1, 2, "nod_a", 100), session(2, 3, "nod_b", 50, closed=True)
    write(store, changes(first, second, session(3, 4, "nod_b", 7, closed=True, known=False)), T)
    first.count(1500, 1001)
    write(store, changes(first, opened=False), T + DAY)
    write(store, changes(first, opened=False), T + DAY)

    def find(**query: object) -> dict[str, tuple[int, ...]]:
        with store.read() as tx:
            found = totals.list_totals(tx, ListTotals(**query))  # type: ignore[arg-type]
        return {t.id: (t.opened, t.closed, t.unknown, t.rx_bytes, t.tx_bytes, t.seconds) for t in found}

    assert find(by="user") == {"usr_1": (2, 1, 0, 550, 2, 60), "usr_2": (1, 1, 1, 0, 0, 60)}
    assert find(by="device", user_id="usr_1") == {"dev_2": (1, 0, 0, 500, 1, 0), "dev_3": (1, 1, 0, 50, 1, 60)}
    assert find(by="node") == {"nod_a": (1, 0, 0, 500, 1, 0), "nod_b": (2, 2, 1, 50, 1, 120)}
    assert find(by="user", since=T + DAY) == {"usr_1": (0, 0, 0, 400, 0, 0)}
    assert find(by="user", until=T, node_id="nod_a") == {"usr_1": (1, 0, 0, 100, 1, 0)}
    with store.write() as tx:
        totals.purge(tx, T + DAY)
    assert find(by="node") == {"nod_a": (0, 0, 0, 400, 0, 0)}


def test_totals_come_in_pages_also_where_many_are_equal(store: Store) -> None:
    write(store, changes(*(session(number, number, "nod_a", number // 4) for number in range(1, 31))), T)
    seen: list[tuple[float, str]] = []
    after = None
    while True:
        with store.read() as tx:
            page = totals.list_totals(tx, ListTotals(by="device", limit=7, after=after))
        if not page:
            break
        seen += [(t.moved, t.id) for t in page]
        after = (page[-1].moved, page[-1].id)
    assert len(seen) == 30
    assert seen == sorted(seen, key=lambda pair: (-pair[0], pair[1]))


def test_a_node_that_lies_overflows_nothing(store: Store) -> None:
    liar = session(1, 2, "nod_a", 2**62)
    for _ in range(3):
        liar.totalled_rx = 0
        write(store, changes(liar), T)
    with store.read() as tx:
        [total] = totals.list_totals(tx, ListTotals(by="user"))
    assert total.rx_bytes == 2**53


def test_a_session_is_read_as_it_was_written_with_all_its_addresses(store: Store) -> None:
    made = session(7, 2, "nod_a", 100)
    made.move_to("192.0.2.1:1", T)
    made.move_to("[2001:db8::1]:2", T + 60.25)
    made.told_rx, made.told_tx = 40, 1
    with store.write() as tx:
        rows.save(tx, [made])
    with store.read() as tx:
        [loaded] = rows.load_open(tx)
        view = rows.find_session(tx, 7)
        assert rows.find_session(tx, 8) is None
    for name in OpenSession.__slots__:
        if name not in ("seen_at", "looked_at", "is_blank", "totalled_rx", "totalled_tx", "country_is_new"):
            assert getattr(loaded, name) == getattr(made, name), name
    assert (loaded.totalled_rx, loaded.totalled_tx) == (100, 1)
    assert view is not None
    assert view.endpoints == ((T, "192.0.2.1:1"), (T + 60.25, "[2001:db8::1]:2"))
    assert view.roams == 1


def test_old_sessions_are_forgotten_and_open_ones_never(store: Store) -> None:
    with store.write() as tx:
        rows.save(tx, [session(number, 2, "nod_a", 1, closed=number % 2 == 0) for number in range(1, 21)])
        assert rows.purge(tx, T + 60, 100) == 0
        assert rows.purge(tx, T + 61, 4) == 4
        assert rows.purge(tx, T + 61, 100) == 6
        assert [v.id for v in rows.list_sessions(tx, ListSessions())] == list(range(19, 0, -2))


class Explained:
    """In place of a transaction: says which indexes SQLite would take, and finds nothing."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.indexes: set[str] = set()

    def execute(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        for row in self._tx.execute(f"EXPLAIN QUERY PLAN {sql}", params):
            found = re.search(r"(SEARCH|SCAN) (?:connection_events|peer_sessions)(?:.* INDEX (\w+))?", str(row[3]))
            if found:
                self.indexes.add(found[2] or found[1])
        return []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (ListRecords(country="DE"), "connection_events_country"),
        (ListRecords(country="DE", node_id="nod_1"), "connection_events_country_node"),
        (ListRecords(country="DE", device_id="dev_1"), "connection_events_device"),
        (ListRecords(country="DE", user_id="usr_1", since=T), "connection_events_user"),
        (ListRecords(country="DE", source_ip="192.0.2.1", until=T), "connection_events_source"),
        (ListSessions(country="DE"), "peer_sessions_country"),
        (ListSessions(country="DE", node_id="nod_1"), "peer_sessions_country_node"),
        (ListSessions(country="DE", device_id="dev_1", before=7), "peer_sessions_device"),
        (ListSessions(country="DE", user_id="usr_1"), "peer_sessions_user"),
    ],
)
def test_a_country_is_found_by_an_index_whatever_it_is_asked_with(
    tmp_path: Path, query: ListRecords | ListSessions, index: str
) -> None:
    store = open_store(tmp_path / "app.db")
    with store.read() as tx:
        explained = Explained(tx)
        if isinstance(query, ListRecords):
            records.list_records(cast("Tx", explained), query)
        else:
            rows.list_sessions(cast("Tx", explained), query)
    store.close()
    assert explained.indexes - {"SEARCH"} == {index}


def test_sessions_of_a_country_are_where_they_came_from_last(store: Store) -> None:
    made = [session(number, number % 3, f"nod_{number % 2}", 1) for number in range(1, 13)]
    for one in made[::2]:
        one.country, one.country_is_new = "DE", True
    with store.write() as tx:
        rows.save(tx, made)
    made[0].country = "AU"
    made[2].country, made[2].country_is_new = "AU", False
    with store.write() as tx:
        rows.save(tx, made[:4])
    with store.read() as tx:
        found = {code: [v.id for v in rows.list_sessions(tx, ListSessions(country=code))] for code in ("DE", "AU", "NZ")}
        assert found == {"DE": [11, 9, 7, 5, 3], "AU": [1], "NZ": []}, "what was not said to be new is not written"
        both = rows.list_sessions(tx, ListSessions(country="DE", node_id="nod_1", device_id=made[4].device_id))
        assert [v.id for v in both] == [
            one.id for one in reversed(made) if one.country == "DE" and one.device_id == made[4].device_id and one.id > 1
        ]
        assert {v.country for v in rows.list_sessions(tx, ListSessions())} == {"DE", "AU", ""}
