"""What becomes of findings: one alert for each key, escalation, watermarks, snoozing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.alerts.facts import TITLES, facts
from coxswain.alerts.lifecycle import FOREVER, acknowledge, escalates, handled_with, resolve, snooze, take, wake
from coxswain.alerts.model import CONDITIONS, KINDS, Alert, AlertStatus, Finding, Handled, Severity
from coxswain.alerts.settings import is_allowance
from coxswain.alerts.view import alert_frame, alert_view
from coxswain.errors import Conflict, InvalidInput, StaleVersion

NOW = 1_767_225_600.0


def finding(kind: str = "new_geo", severity: Severity = Severity.INFO, at: float = NOW, **more: Any) -> Finding:
    return Finding(kind, f"{kind}:x", severity, at, at, **more)


def opened(found: Finding) -> Alert:
    alert = take(found, None, None, new_id="alr_1", now=NOW)
    assert alert is not None
    return alert


def test_the_same_evidence_says_nothing_new() -> None:
    alert = opened(finding())
    assert take(finding(), alert, None, new_id="", now=NOW + 60) is None


def test_newer_evidence_goes_into_the_alert_that_is_there() -> None:
    alert = opened(finding(source_ips=("192.0.2.1",), detail={"a": 1, "b": 1}))
    newer = finding(at=NOW + 5, source_ips=("192.0.2.0",), detail={"b": 2})
    after = take(newer, alert, None, new_id="", now=NOW + 60)
    assert after is not None and after.id == "alr_1" and after.at == after.evidence == NOW + 5
    assert after.source_ips == ("192.0.2.0", "192.0.2.1")
    assert after.detail == {"a": 1, "b": 2, "last_seen": "2026-01-01T00:01:00Z"}
    assert not escalates(alert, after)


def test_one_that_is_acknowledged_keeps_its_key() -> None:
    alert = acknowledge(opened(finding()), "ann", version=None, now=NOW)
    after = take(finding(at=NOW + 5), alert, None, new_id="alr_2", now=NOW + 60)
    assert after is not None and (after.id, after.status) == ("alr_1", AlertStatus.ACKNOWLEDGED)


def test_what_becomes_worse_is_told_again_whoever_acknowledged_or_snoozed_it() -> None:
    alert = acknowledge(opened(finding("fleet_health", Severity.WARNING)), "ann", version=None, now=NOW)
    alert = snooze(alert, NOW + 3600, "ann", version=None, now=NOW)
    after = take(finding("fleet_health", Severity.CRITICAL), alert, None, new_id="", now=NOW + 60)
    assert after is not None and escalates(alert, after)
    assert (after.severity, after.status, after.snoozed_until) == (Severity.CRITICAL, AlertStatus.OPEN, 0.0)
    milder = take(finding("fleet_health", Severity.WARNING, NOW + 9), after, None, new_id="", now=NOW + 60)
    assert milder is not None and milder.severity is Severity.CRITICAL


def test_what_was_resolved_comes_back_only_with_something_new() -> None:
    done = resolve(opened(finding()), "ann", now=NOW)
    known = handled_with(done)
    assert take(finding(), None, known, new_id="alr_2", now=NOW + 60) is None
    again = take(finding(at=NOW + 1), None, known, new_id="alr_2", now=NOW + 60)
    assert again is not None and again.id == "alr_2"


def test_of_a_condition_everything_is_handled_until_it_ends() -> None:
    for kind in CONDITIONS:
        known = handled_with(resolve(opened(finding(kind)), "ann", now=NOW))
        assert known == Handled(FOREVER, Severity.INFO)
        assert take(finding(kind, at=NOW + 1e6), None, known, new_id="", now=NOW + 1e6) is None


@pytest.mark.parametrize("kind", ["certificate_expiring", "new_geo"])
def test_what_becomes_worse_after_it_was_resolved_is_a_new_alert(kind: str) -> None:
    known = handled_with(resolve(opened(finding(kind, Severity.WARNING)), "ann", now=NOW))
    assert take(finding(kind, Severity.INFO), None, known, new_id="alr_2", now=NOW) is None
    worse = take(finding(kind, Severity.CRITICAL), None, known, new_id="alr_2", now=NOW)
    assert worse is not None and (worse.id, worse.status) == ("alr_2", AlertStatus.OPEN)
    known = handled_with(resolve(worse, "ann", now=NOW))
    assert take(finding(kind, Severity.CRITICAL), None, known, new_id="alr_3", now=NOW) is None


def test_versions_and_states_that_do_not_fit() -> None:
    alert = opened(finding())
    for change in (
        lambda: acknowledge(alert, "ann", version=2, now=NOW),
        lambda: resolve(alert, "ann", version=2, now=NOW),
        lambda: snooze(alert, None, "ann", version=2, now=NOW),
    ):
        with pytest.raises(StaleVersion):
            change()
    done = resolve(alert, "ann", now=NOW)
    assert resolve(done, "bob", now=NOW + 1) is done
    with pytest.raises(Conflict):
        acknowledge(done, "ann", version=None, now=NOW)
    with pytest.raises(Conflict):
        snooze(done, NOW + 1, "ann", version=None, now=NOW)
    for until in (NOW, NOW - 1, NOW + 31 * 86_400):
        with pytest.raises(InvalidInput, match="30 days"):
            snooze(alert, until, "ann", version=None, now=NOW)


def test_one_that_was_snoozed_comes_back() -> None:
    alert = acknowledge(opened(finding()), "ann", version=None, now=NOW)
    asleep = snooze(alert, NOW + 60, "ann", version=None, now=NOW)
    assert snooze(asleep, None, "ann", version=None, now=NOW).snoozed_until == 0
    back = wake(asleep, now=NOW + 61)
    assert (back.status, back.snoozed_until) == (AlertStatus.OPEN, 0.0)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_KEYS = st.sampled_from(["from", "rx_bytes", "hour_share", "typical_hours_utc", "source_ips", "node_name", "odd key", ""])


@given(st.sampled_from([*KINDS, "of_tomorrow"]), st.dictionaries(_KEYS, _JSON, max_size=6))
def test_any_evidence_can_be_shown(kind: str, detail: dict[str, Any]) -> None:
    alert = dataclasses.replace(opened(finding()), kind=kind, detail=detail)
    for line in facts(alert):
        assert line.keys() == {"label", "text"} and len(line["text"]) <= 400
    assert json.loads(json.dumps(alert_view(alert)))["id"] == "alr_1"


def test_every_rule_has_a_title() -> None:
    assert TITLES.keys() == set(KINDS)


def test_frames() -> None:
    alert = opened(finding(device_id="dev_1", user_id="usr_1", node_id="nod_1"))
    frame = alert_frame(alert, new=True)
    assert (frame.kind, frame.at, frame.data["node_id"]) == ("alert", alert.at, "")
    assert (frame.data["device_id"], frame.data["user"]) == ("dev_1", "usr_1")
    assert frame.data["alert"]["node_id"] == "nod_1"
    assert alert_frame(alert, new=False).kind == "alert_updated"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("dev_k3v7q2m5x4a6b2c7", True), ("192.0.2.0/24", True), ("2001:db8::/32", True), ("192.0.2.7", True),
        ("new_geo:192.0.2.0/24", True), ("fleet_health:nod_a", True), ("nope:dev_a", False), ("", False), ("a b", False),
        ("192.0.2.0/99", False),
    ],
)  # fmt: skip
def test_what_may_be_left_alone(text: str, good: bool) -> None:
    assert is_allowance(text) is good
