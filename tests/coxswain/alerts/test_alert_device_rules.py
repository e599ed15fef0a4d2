"""The rules about one device: what fires, and what must not (management-plane.md 7.3, 13.2)."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coxswain.alerts.device_case import DeviceCase
from coxswain.alerts.device_rules import evaluate
from coxswain.alerts.history import Event, History, Place, decode, encode, median_volume
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.alerts.stays import OpenStay

T0 = 1_767_225_600.0  # a midnight in UTC
NOW = T0 + 20 * 3600
HOUR, MINUTE, DAY = 3600.0, 60.0, 86_400.0
SETTINGS = RuleSettings()
BERLIN, PARIS, SYDNEY = (
    Place(52.52, 13.405, "Berlin", "Germany", "DE"),
    Place(48.8566, 2.3522, "Paris", "France", "FR"),
    Place(-33.8688, 151.2093, "Sydney", "Australia", "AU"),
)


def on(at: float, ip: str = "192.0.2.1", *, node: str = "nod_a", session: int = 1) -> Event:
    return Event(int(at * 10), at, session, node, "dev_1", "usr_1", ip, None, None)


def off(
    at: float, ip: str = "192.0.2.1", *, node: str = "nod_a", session: int = 1, rx: int | None = 0, why: str = "disconnect"
) -> Event:
    return Event(int(at * 10), at, session, node, "dev_1", "usr_1", ip, why, rx)


def found(kind: str, *events: Event, now: float = NOW, settings: RuleSettings = SETTINGS, **more: Any) -> list[Finding]:
    case = DeviceCase("dev_1", sorted(events, key=lambda e: e.at), **more)
    return [finding for finding in evaluate(case, now, settings)[0] if finding.kind == kind]


def only(kind: str, *events: Event, **more: Any) -> Finding:
    (finding,) = found(kind, *events, **more)
    return finding


# -- leaked_profile


def test_two_networks_at_the_same_time_are_a_leak() -> None:
    at = T0 + 10 * HOUR
    finding = only(
        "leaked_profile",
        on(at, "192.0.2.1", session=1),
        on(at + 2 * MINUTE, "198.51.100.7", node="nod_b", session=2),
        off(at + HOUR, "192.0.2.1", session=1),
        off(at + HOUR, "198.51.100.7", node="nod_b", session=2),
    )
    assert (finding.key, finding.severity) == ("leaked_profile:dev_1", Severity.WARNING)
    assert finding.source_ips == ("192.0.2.1", "198.51.100.7")
    assert finding.detail["networks"] == ["192.0.2.0/24", "198.51.100.0/24"]
    assert finding.detail["window"] == "10m0s" and finding.evidence == at + 2 * MINUTE
    assert finding.user_id == "usr_1"


def test_a_phone_that_goes_from_wifi_to_mobile_and_back_is_no_leak() -> None:
    at = T0 + 10 * HOUR
    way = ["192.0.2.1", "198.51.100.7", "192.0.2.1", "203.0.113.9", "192.0.2.1"]
    events = []
    for number, ip in enumerate(way):
        if number:
            events.append(off(at + number * MINUTE, way[number - 1], why="roamed"))
        events.append(on(at + number * MINUTE, ip))
    assert found("leaked_profile", *events) == []


def test_a_device_that_changes_nodes_and_networks_is_no_leak_though_its_old_session_lingers() -> None:
    at = T0 + 10 * HOUR
    events = (
        on(at, "192.0.2.1", session=1),
        on(at + HOUR, "198.51.100.7", node="nod_b", session=2),
        off(at + HOUR + 175, "192.0.2.1", session=1),  # three minutes after its last handshake
    )
    for kind in ("leaked_profile", "concurrent_sessions"):
        assert found(kind, *events) == [], kind


def test_dual_stack_and_a_providers_pool_are_one_place() -> None:
    at = T0 + 10 * HOUR
    for one, other in (("192.0.2.1", "2001:db8::1"), ("192.0.2.1", "192.0.2.200"), ("2001:db8:1:a::1", "2001:db8:1:b::9")):
        events = (on(at, one, session=1), on(at + MINUTE, other, node="nod_b", session=2))
        assert found("leaked_profile", *events) == [], (one, other)


def test_one_key_on_two_machines_makes_a_session_jump() -> None:
    at = T0 + 10 * HOUR
    events = [on(at + 20 * n, ("192.0.2.1", "198.51.100.7")[n % 2]) for n in range(10)]
    assert only("leaked_profile", *events).evidence == at + 180
    slowly = [on(at + 15 * MINUTE * n, ("192.0.2.1", "198.51.100.7")[n % 2]) for n in range(10)]
    assert found("leaked_profile", *slowly) == []


def test_the_latest_leak_of_the_day_is_told() -> None:
    """So that one which somebody resolved in the morning does not hide that of the evening."""
    events = []
    for at in (T0 + 2 * HOUR, T0 + 15 * HOUR):
        session = int(at)
        events += [
            on(at, session=session),
            on(at + MINUTE, "198.51.100.7", node="nod_b", session=session + 1),
            off(at + HOUR, session=session),
            off(at + HOUR, "198.51.100.7", node="nod_b", session=session + 1),
        ]
    assert only("leaked_profile", *events).evidence == T0 + 15 * HOUR + MINUTE


# -- impossible_travel


PLACES = {"192.0.2.1": BERLIN, "198.51.100.7": SYDNEY, "203.0.113.9": PARIS}


def test_impossible_travel() -> None:
    at = T0 + 10 * HOUR
    finding = only("impossible_travel", on(at), on(at + HOUR + MINUTE, "198.51.100.7", node="nod_b"), places=PLACES)
    assert (finding.severity, finding.node_id) == (Severity.CRITICAL, "nod_b")
    assert finding.source_ips == ("192.0.2.1", "198.51.100.7")
    assert 16_000 < finding.detail["distance_km"] < 16_200
    assert finding.detail["implied_kmh"] == finding.detail["distance_km"], "the tolerated minute is taken off"
    assert finding.detail["minutes"] == 61.0 and finding.detail["max_kmh"] == 900
    assert finding.detail["from"] == {
        "ip": "192.0.2.1", "city": "Berlin", "country": "DE", "lat": 52.52, "lon": 13.405, "at": "2026-01-01T10:00:00Z",
    }  # fmt: skip


def test_travel_that_is_possible_or_that_clocks_explain() -> None:
    at = T0 + 10 * HOUR
    assert found("impossible_travel", on(at), on(at + 2 * HOUR, "203.0.113.9"), places=PLACES) == []
    assert found("impossible_travel", on(at), on(at + 60, "198.51.100.7"), places=PLACES) == []
    assert found("impossible_travel", on(at), on(at + HOUR, "198.51.100.7")) == [], "nobody knows where that is"
    near = PLACES | {"203.0.113.9": BERLIN._replace(latitude=52.6)}
    assert found("impossible_travel", on(at), on(at + 61, "203.0.113.9"), places=near) == []


def test_travel_that_was_handled_does_not_hide_a_slower_one_that_is_newer() -> None:
    at = T0 + 5 * HOUR
    events = (on(at), on(at + 10 * MINUTE, "198.51.100.7"), on(at + 10 * HOUR, "192.0.2.1"))
    first = only("impossible_travel", *events, places=PLACES)
    assert first.at == at + 10 * MINUTE, "the fastest one"
    assert first.evidence == at + 10 * HOUR, "but all of them are evidence"
    second = only("impossible_travel", *events, places=PLACES, handled={first.key: at + 10 * MINUTE})
    assert second.at == at + 10 * HOUR


# -- concurrent_sessions


def test_sessions_on_two_nodes_at_once() -> None:
    at = T0 + 10 * HOUR
    events = (on(at, session=1), on(at + 10 * MINUTE, node="nod_b", session=2), off(at + HOUR, node="nod_b", session=2))
    finding = only("concurrent_sessions", *events)
    assert finding.detail["nodes"] == ["nod_a", "nod_b"] and finding.node_id == "nod_b"
    assert finding.detail["overlap_minutes"] == 47.0, "alive until three minutes before its end was noticed"
    assert (finding.at, finding.source_ips) == (at + 10 * MINUTE, ())


def test_an_open_session_from_before_the_window_counts() -> None:
    still_open = [OpenStay(1, "nod_a", "192.0.2.1", NOW - 9 * DAY)]
    assert only("concurrent_sessions", on(NOW - HOUR, node="nod_b", session=2), still_open=still_open)


def test_what_is_not_sure_yet_is_looked_at_again() -> None:
    events = [on(NOW - HOUR, session=1), on(NOW - 100, node="nod_b", session=2)]
    case = DeviceCase("dev_1", events)
    assert evaluate(case, NOW, SETTINGS) == ([], True)
    assert [f.kind for f in evaluate(case, NOW + 200, SETTINGS)[0]] == ["concurrent_sessions"]
    assert not evaluate(case, NOW + DAY, SETTINGS)[1]
    assert not evaluate(DeviceCase("dev_1", events[1:]), NOW, SETTINGS)[1]


# -- claimed_elsewhere


def test_a_new_device_is_first_seen_where_its_user_never_was() -> None:
    at = T0 + 10 * HOUR
    new = {"places": PLACES, "claimed_at": at - MINUTE, "others": frozenset({"FR"})}
    finding = only("claimed_elsewhere", on(at), **new)
    assert (finding.key, finding.severity) == ("claimed_elsewhere:dev_1", Severity.WARNING)
    assert (finding.detail["country"], finding.detail["known_countries"]) == ("DE", ["FR"])
    assert only("claimed_elsewhere", on(at), on(at + HOUR, "203.0.113.9"), **new).at == at
    assert only("claimed_elsewhere", on(at, "10.0.0.1"), on(at + MINUTE), **new).at == at + MINUTE, "nobody knew the first"


def test_a_new_device_that_is_where_others_are_or_of_whom_nothing_is_known_is_no_alarm() -> None:
    at = T0 + 10 * HOUR
    both = frozenset({"FR", "DE"})
    assert found("claimed_elsewhere", on(at), places=PLACES, claimed_at=at, others=both) == []
    assert found("claimed_elsewhere", on(at), places=PLACES, claimed_at=at) == [], "it is the only one of its user"
    assert found("claimed_elsewhere", on(at), places=PLACES, others=frozenset({"FR"})) == [], "it joined long ago"
    assert found("claimed_elsewhere", on(at), claimed_at=at, others=both) == [], "there is no GeoIP database"
    gone_on = (on(at), on(at + HOUR, "203.0.113.9"))
    new = {"places": PLACES, "claimed_at": at, "others": frozenset({"DE"})}
    assert found("claimed_elsewhere", *gone_on, **new) == [], "a new country of a device is another rule's"
    before = on(at - HOUR, "203.0.113.9")
    assert found("claimed_elsewhere", before, on(at), **new) == [], "whoever had it before it was claimed anew"


# -- new_geo


def test_a_new_country_needs_an_old_one() -> None:
    at = T0 + 10 * HOUR
    assert found("new_geo", on(at), places=PLACES) == [], "the very first country of a device is none"
    finding = only("new_geo", on(at), on(at + HOUR, "203.0.113.9"), places=PLACES)
    assert (finding.key, finding.severity, finding.detail["country_name"]) == ("new_geo:dev_1:FR", Severity.INFO, "France")
    known = History(countries={"FR": 3}, connects=3)
    assert only("new_geo", on(at), on(at + HOUR, "203.0.113.9"), places=PLACES, history=known).key == "new_geo:dev_1:DE"
    assert only("new_geo", on(at), places=PLACES, history=History(connects=10)), "its places were not known so far"


# -- revoked_profile_active


def test_a_revoked_device_that_connects_is_told() -> None:
    at = T0 + 10 * HOUR
    finding = only("revoked_profile_active", on(at), off(at + 5), on(at + HOUR), status="revoked", status_since=at + MINUTE)
    assert (finding.severity, finding.at, finding.detail["device_status"]) == (Severity.CRITICAL, at + HOUR, "revoked")


def test_one_that_connected_before_it_was_revoked_is_nothing_and_one_that_stays_is_told() -> None:
    at = T0 + 10 * HOUR
    gone = (on(at), off(at + HOUR))
    assert found("revoked_profile_active", *gone, status="revoked", status_since=at + 30 * MINUTE) == []
    assert found("revoked_profile_active", on(at), status="", status_since=0.0) == [], "it was deleted"
    stays = [OpenStay(1, "nod_a", "192.0.2.1", at)]
    of = {"still_open": stays, "status": "user suspended", "status_since": NOW - 30}
    assert found("revoked_profile_active", **of) == [], "nodes have a moment to throw it out"
    finding = only("revoked_profile_active", now=NOW + 3 * MINUTE, **of)
    assert finding.detail["still_connected"] is True
    assert only("revoked_profile_active", now=NOW + 9 * MINUTE, **of).evidence == finding.evidence, "nothing new"


# -- dormant_then_active, off_hours_access, data_volume_exfil: what they know outlives retention


def test_a_dormant_device_that_comes_back() -> None:
    history = History(connects=1, last_connect=T0 - 40 * DAY)
    finding = only("dormant_then_active", on(T0 + HOUR), on(T0 + 2 * HOUR), history=history)
    assert (finding.at, finding.detail["dormant_days"]) == (T0 + HOUR, 40)
    assert finding.detail["dormant_duration"] == "961h0m0s"
    assert found("dormant_then_active", on(T0), history=History(connects=1, last_connect=T0 - 30 * DAY)) == []
    assert found("dormant_then_active", on(T0)) == []


def office() -> History:
    history = History()
    for day in range(30):
        for hour in (8, 9, 17):
            history.absorb([on(T0 - (31 - day) * DAY + hour * HOUR)], {})
    return history


def test_a_connect_in_the_middle_of_the_night() -> None:
    finding = only("off_hours_access", on(T0 + 3 * HOUR), on(T0 + 3.5 * HOUR), on(T0 + 8 * HOUR), history=office())
    assert finding.key == "off_hours_access:dev_1:2026-01-01", "one for each day"
    assert finding.detail["typical_hours_utc"] == [8, 9, 17] and finding.detail["hour_utc"] == 3
    assert (finding.detail["baseline_connects"], finding.detail["baseline_days"]) == (90, 30)
    few = dataclasses.replace(SETTINGS, off_hours_connects=91)
    assert found("off_hours_access", on(T0 + 3 * HOUR), history=office(), settings=few) == []


def test_a_huge_upload() -> None:
    history = History()
    history.absorb([off(T0 - n * HOUR, rx=50 * 2**20) for n in range(1, 30)], {})
    finding = only("data_volume_exfil", on(T0), off(T0 + HOUR, rx=2**31), history=history)
    assert finding.detail["rx_bytes"] == 2**31 and finding.key == "data_volume_exfil:dev_1:2026-01-01"
    assert 0.95 < finding.detail["median_rx_bytes"] / (50 * 2**20) < 1.05
    assert found("data_volume_exfil", off(T0, rx=2**30 - 1), history=history) == []
    assert found("data_volume_exfil", off(T0, rx=None), history=history) == [], "unknown is not 0"
    assert found("data_volume_exfil", off(T0, rx=2**31)) == [], "nothing is known of it"


def test_one_a_day_is_one_also_when_the_first_of_that_day_leaves_the_window() -> None:
    """Somebody resolved it at nine; the second event of that night, which was there all the time, is nothing new later."""
    busy = History()
    busy.absorb([off(T0 - n * HOUR, rx=10_000_000) for n in range(1, 30)], {})
    for kind, events, history in (
        ("off_hours_access", [on(T0 + 3 * HOUR), on(T0 + 3.5 * HOUR)], office()),
        ("data_volume_exfil", [off(T0 + 3 * HOUR, rx=2**31), off(T0 + 3.5 * HOUR, rx=2**32)], busy),
    ):
        at_nine = only(kind, *events, history=history, now=T0 + 9 * HOUR)
        tomorrow = only(kind, events[1], history=history, now=T0 + 27.25 * HOUR)
        assert tomorrow.key == at_nine.key and at_nine.at == T0 + 3 * HOUR
        assert tomorrow.evidence <= at_nine.evidence, kind


def test_unknown_bytes_and_parts_of_sessions_do_not_drag_the_usual_down() -> None:
    history = History()
    history.absorb([off(T0, rx=100 * 2**20)] * 20, {})
    before = median_volume(history)
    history.absorb([off(T0, rx=None, why="stream-lost")] * 100 + [off(T0, rx=10, why="roamed")] * 100, {})
    assert median_volume(history) == before and history.sessions == 20


# -- settings


def test_rules_can_be_switched_off_and_told_whom_to_leave_alone() -> None:
    at = T0 + 10 * HOUR
    events = (on(at), on(at + HOUR, "203.0.113.9"))
    for settings in (
        RuleSettings(off=frozenset({"new_geo"})),
        RuleSettings(allow=(("", "dev_1"),)),
        RuleSettings(allow=(("new_geo", "usr_1"),)),
        RuleSettings(allow=(("new_geo", "203.0.113.0/24"),)),
    ):
        assert found("new_geo", *events, places=PLACES, settings=settings) == [], settings
    for settings in (
        RuleSettings(allow=(("leaked_profile", "dev_1"),)),
        RuleSettings(allow=(("", "192.0.2.0/24"),)),
    ):
        assert only("new_geo", *events, places=PLACES, settings=settings)


# -- properties

_ADDRESSES = (
    "",
    "192.0.2.1",
    "192.0.2.9",
    "198.51.100.7",
    "203.0.113.9",
    "2001:db8::1",
    "not an address",
    "::ffff:192.0.2.1",
)


@st.composite
def _events(draw: st.DrawFn) -> list[Event]:
    made = []
    for number in range(draw(st.integers(0, 25))):
        at = NOW - draw(st.floats(0, DAY))
        reason = draw(st.sampled_from([None, "disconnect", "roamed", "stream-lost"]))
        ip, node = draw(st.sampled_from(_ADDRESSES)), draw(st.sampled_from(["nod_a", "nod_b", ""]))
        rx = draw(st.none() | st.integers(0, 2**62))
        made.append(Event(number, at, draw(st.integers(1, 4)), node, "dev_1", "usr_1", ip, reason, rx))
    return sorted(made, key=lambda event: (event.at, event.seq))


@given(_events(), st.sampled_from(["active", "revoked", ""]))
def test_whatever_happened_findings_are_about_it(events: list[Event], status: str) -> None:
    """None of any order of events breaks a rule; evidence is never newer than now; looking twice says the same."""
    case = DeviceCase("dev_1", events, history=office(), places=PLACES, status=status, status_since=NOW - HOUR)
    once, again = evaluate(case, NOW, SETTINGS)
    assert (once, again) == evaluate(case, NOW, SETTINGS)
    assert len({finding.key for finding in once}) == len(once)
    for finding in once:
        assert finding.evidence <= NOW and finding.key.startswith(f"{finding.kind}:dev_1")
        assert set(finding.source_ips) <= {event.source_ip for event in events}


@given(st.lists(st.integers(1, 2**50), min_size=1, max_size=200))
def test_the_median_that_is_kept_is_right_to_within_ten_percent(sizes: list[int]) -> None:
    history = History()
    history.absorb([off(T0, rx=size) for size in sizes], {})
    assert 0.9 < median_volume(history) / statistics.median_low(sizes) < 1.1 or statistics.median_low(sizes) < 12


@given(_events())
def test_a_history_outlives_being_written_down(events: list[Event]) -> None:
    history = History()
    history.absorb(events, PLACES)
    assert decode(encode(history)) == history
    assert len(encode(history)) < 4_000
