"""The rules about nodes, logins and the controller itself."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coxswain.alerts.estate_rules import (
    DeviceCertificate,
    Expiring,
    Stranger,
    audit_broken,
    devices_expiring,
    expiring,
    storage_low,
    strangers,
)
from coxswain.alerts.fleet_health import Health, Judgement, Watched, judge, judge_degraded
from coxswain.alerts.login_rules import AuditFact, judge_log
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.messages.fleet import NodeView
from coxswain.model import LinkState, Node, NodeStatus

NOW = 1_767_225_600.0
SETTINGS = RuleSettings()
DAY = 86_400.0

# -- nodes


def view(status: NodeStatus, link: LinkState, *, enabled: bool = True) -> NodeView:
    return NodeView(Node("nod_1", "ams", region="nl", status=status, enabled=enabled, agent_version="1"), link, "because")


LIVE = view(NodeStatus.ACTIVE, LinkState.LIVE)
DOWN = view(NodeStatus.UNREACHABLE, LinkState.BACKING_OFF)
WRONG = view(NodeStatus.ERROR, LinkState.DEGRADED)
MISSED = view(NodeStatus.ACTIVE, LinkState.BACKING_OFF)


def look(seen: NodeView, before: Watched = Watched(), at: float = NOW) -> Judgement:
    return judge(seen, before, at, SETTINGS)


def test_a_node_that_is_down_is_told_at_once_and_one_that_is_wrong_after_a_while() -> None:
    down = look(DOWN)
    assert down.health is Health.BAD and down.finding is not None
    assert (down.finding.severity, down.finding.key) == (Severity.WARNING, "fleet_health:nod_1")
    assert down.finding.detail["node_status"] == "unreachable" and down.finding.detail["region"] == "nl"
    wrong = look(WRONG)
    assert wrong.health is Health.UNSURE and wrong.due == SETTINGS.error_s
    later = look(WRONG, wrong.watched, NOW + SETTINGS.error_s)
    assert later.finding is not None and later.finding.severity is Severity.CRITICAL and later.finding.at == NOW


def test_a_missed_poll_is_no_alarm() -> None:
    for link in (LinkState.BACKING_OFF, LinkState.CONNECTING, LinkState.SYNCING):
        assert look(view(NodeStatus.ACTIVE, link)).health is Health.UNSURE


def test_what_the_store_remembers_of_a_node_that_was_not_dialled_yet_is_no_alarm() -> None:
    assert look(view(NodeStatus.UNREACHABLE, LinkState.CONNECTING)).health is Health.UNSURE


def test_a_node_whose_agent_nobody_spoke_to_yet_is_not_down() -> None:
    never = dataclasses.replace(DOWN, node=dataclasses.replace(DOWN.node, agent_version=""))
    assert look(never).health is Health.UNSURE


def test_a_node_that_is_not_meant_to_be_up_is_nobodys_alarm() -> None:
    assert look(view(NodeStatus.UNREACHABLE, LinkState.DISABLED, enabled=False)).health is Health.WELL
    for status in (NodeStatus.STOPPED, NodeStatus.PENDING, NodeStatus.PROVISIONING, NodeStatus.ENROLLING):
        assert look(view(status, LinkState.BACKING_OFF)).health is Health.WELL


def test_recovery_takes_longer_for_each_time_that_it_fell() -> None:
    watched, at, waits = Watched(), NOW, []
    for _ in range(5):
        fell = look(DOWN, watched, at)
        assert fell.health is Health.BAD
        up = look(LIVE, fell.watched, at + 1)
        assert up.health is Health.UNSURE and up.due is not None
        waits.append(up.due)
        assert look(LIVE, up.watched, at + 1 + up.due).health is Health.WELL
        watched, at = up.watched, at + 2
    assert waits == [3, 6, 12, 24, 48]
    assert look(DOWN, look(LIVE, watched, at + 3_600).watched, at + 3_601).watched.falls == (at + 3_601,)


def test_evidence_of_one_outage_does_not_move() -> None:
    first = look(DOWN)
    second = look(DOWN, first.watched, NOW + 500)
    assert first.finding is not None and second.finding is not None
    assert first.finding.evidence == second.finding.evidence and first.watched.falls == second.watched.falls


def test_drift_that_cannot_be_mended() -> None:
    degraded = view(NodeStatus.ACTIVE, LinkState.DEGRADED)
    first = judge_degraded(degraded, Watched(), NOW, SETTINGS)
    assert (first.health, first.due) == (Health.UNSURE, 300.0)
    later = judge_degraded(degraded, first.watched, NOW + 300, SETTINGS)
    assert later.finding is not None and later.finding.kind == "node_degraded" and later.finding.at == NOW
    assert judge_degraded(LIVE, later.watched, NOW + 400, SETTINGS).health is Health.WELL


_VIEWS = st.sampled_from([LIVE, DOWN, WRONG, MISSED, view(NodeStatus.STOPPED, LinkState.DISABLED, enabled=False)])


@given(st.lists(st.tuples(_VIEWS, st.floats(0, 100)), max_size=30))
def test_however_it_goes_a_node_is_well_in_the_end_and_memory_is_bounded(way: list[tuple[NodeView, float]]) -> None:
    watched, at = Watched(), NOW
    for seen, wait in way:
        at += wait
        made = look(seen, watched, at)
        watched = made.watched
        assert (made.finding is not None) == (made.health is Health.BAD)
        assert len(watched.falls) <= 16 and (made.due is None or 0 < made.due <= 300)
    watched = look(LIVE, watched, at).watched
    assert look(LIVE, watched, at + 301).health is Health.WELL


# -- logins

_SEQ = iter(range(1, 10**6))


def fact(
    action: str, at: float, actor: str = "anonymous", ip: str = "192.0.2.1", target: str = "", **detail: Any
) -> AuditFact:
    return AuditFact(next(_SEQ), at, actor, action, target, ip, detail, ok=action != "auth.login_failed")


def failed(at: float, username: str = "admin", ip: str = "192.0.2.1") -> AuditFact:
    return fact("auth.login_failed", at, ip=ip, username=username)


def keys(facts: list[AuditFact], settings: RuleSettings = SETTINGS) -> dict[str, Finding]:
    return {finding.key: finding for finding in judge_log(facts, settings)}


def test_passwords_that_are_guessed_through_relays_show_by_account_and_in_the_sum() -> None:
    def guessed(at: float, user: str) -> AuditFact:
        return fact("account.login_failed", at, user or "account", "", user, relay="ferry")

    found = keys([guessed(NOW + n, "usr_a") for n in range(5)])
    assert found.keys() == {"auth_failure_spike:user:usr_a"}
    assert found["auth_failure_spike:user:usr_a"].detail["attempted_usernames"] == ["usr_a"]
    nobodys = [guessed(NOW + n, "") for n in range(49)]
    assert keys(nobodys) == {}
    assert keys([*nobodys, failed(NOW + 60)]).keys() == {"auth_failure_spike:*"}


def test_five_failures_of_one_address_within_ten_minutes() -> None:
    found = keys([failed(NOW + 100 * n, f"user{n}") for n in range(5)])
    assert found.keys() == {"auth_failure_spike:192.0.2.1"}
    finding = found["auth_failure_spike:192.0.2.1"]
    assert (finding.at, finding.detail["failure_count"], finding.detail["window"]) == (NOW + 400, 5, "10m0s")
    assert finding.detail["attempted_usernames"] == [f"user{n}" for n in range(5)]
    assert keys([failed(NOW + 200 * n, f"user{n}") for n in range(5)]) == {}


def test_slow_tries_from_everywhere_show_by_account() -> None:
    found = keys([failed(NOW + 100 * n, "Admin", f"198.51.100.{n}") for n in range(5)])
    assert found.keys() == {"auth_failure_spike:user:admin"}
    assert len(found["auth_failure_spike:user:admin"].source_ips) == 5


def test_tries_at_many_accounts_from_everywhere_show_in_the_sum() -> None:
    assert keys([failed(NOW + n, f"user{n}", f"198.51.100.{n}") for n in range(50)]).keys() == {"auth_failure_spike:*"}


def test_an_address_that_many_share_counts_for_nothing_by_itself() -> None:
    facts = [failed(NOW + n, f"user{n}") for n in range(10)]
    assert keys(facts, RuleSettings(proxies=("192.0.2.1",))) == {}


def test_failures_that_were_only_counted_count() -> None:
    what = {"401 auth.login_failed": 40, "401 GET /api/nodes": 9}
    facts = [failed(NOW), fact("auth.refused_many", NOW + 60, count=49, what=what)]
    assert keys(facts)["auth_failure_spike:192.0.2.1"].detail["failure_count"] == 41


def test_the_newest_spike_is_told() -> None:
    facts = [failed(at + n) for at in (NOW, NOW + 7_200) for n in range(5)]
    assert keys(facts)["auth_failure_spike:192.0.2.1"].evidence == NOW + 7_204


def test_a_login_after_many_failures() -> None:
    login = fact("auth.login", NOW + 60, "admin", target="usr_admin", session="ses_1")
    found = keys([*(failed(NOW + n) for n in range(5)), login])
    finding = found["login_after_failures:usr_admin"]
    assert (finding.severity, finding.user_id, finding.detail["failure_count"]) == (Severity.WARNING, "usr_admin", 5)
    assert "login_after_failures:usr_admin" not in keys([*(failed(NOW + n) for n in range(4)), login])


def test_logins_in_a_long_log_of_failures_are_judged_in_no_time() -> None:
    """A script that logs in all day, and somebody who guesses all day: 10,000 of each."""
    facts = [
        each
        for number in range(10_000)
        for each in (
            failed(NOW + 8 * number, ip="192.0.2.1"),
            fact("auth.login", NOW + 8 * number + 1, actor="script", target="usr_2", ip="192.0.2.2"),
        )
    ]
    began = time.thread_time()
    found = keys(facts)
    assert time.thread_time() - began < 4, "each login against each failure takes ten seconds"
    assert "login_after_failures:usr_2" not in found and "auth_failure_spike:192.0.2.1" in found


def test_new_admins_and_tokens() -> None:
    found = keys([
        fact("admin.add", NOW, "ann", target="usr_2", email="bob"),
        fact("token.create", NOW, "ann", target="tok_1", name="ci", scope="readonly"),
        fact("token.create", NOW, "ann", target="tok_2", name="all", scope="admin"),
    ])  # fmt: skip
    assert {key: finding.severity.value for key, finding in found.items()} == {
        "admin_created:usr_2": "warning", "token_created:tok_1": "info", "token_created:tok_2": "warning",
    }  # fmt: skip
    assert found["token_created:tok_1"].detail == {"by": "ann", "source_ip": "192.0.2.1", "name": "ci", "scope": "readonly"}


# -- the controller itself


def test_what_ends_soon() -> None:
    def told(days: float, life: float = 90, kind: str = "certificate_expiring") -> list[str]:
        until = NOW + days * DAY
        thing = Expiring(kind, "x", "node ams", until - life * DAY, until)
        return [finding.severity.value for finding in expiring([thing], NOW, SETTINGS)]

    assert told(8) == [] and told(6) == ["warning"] and told(2) == told(-1) == ["critical"]
    assert told(2, life=14) == ["warning"] and told(3, life=14) == [], "short-lived ones are renewed late"
    (finding,) = expiring([Expiring("certificate_expiring", "x", "", NOW - 31 * DAY - 2, NOW + DAY)], NOW, SETTINGS)
    assert finding.evidence.is_integer(), "the store keeps microseconds: it must not be newer than what is there"
    assert told(6, kind="token_expiring") == ["info"] and told(-1, kind="token_expiring") == []


def device(number: int, days: float, life: float = 365) -> DeviceCertificate:
    until = NOW + days * DAY
    return DeviceCertificate(f"dev_{number}", f"usr_{number}", f"phone {number}", until - life * DAY, until)


def test_certificates_of_many_devices_are_one_alert_with_those_that_end_first() -> None:
    (finding,) = devices_expiring([device(n, 20 - n / 1_000) for n in range(10_000)], NOW, SETTINGS)
    assert (finding.key, finding.severity) == ("certificate_expiring:devices", Severity.WARNING)
    assert (finding.detail["devices"], finding.detail["ended"], len(finding.detail["first"])) == (10_000, 0, 5)
    assert finding.detail["first"][0].startswith("phone 9999 (dev_9999), 2026-01-")
    assert finding.evidence == NOW - 10 * DAY, "when the last one of them came to it"


def test_which_devices_count() -> None:
    def told(days: float, life: float = 365, **changed: Any) -> int:
        found = list(devices_expiring([device(1, days, life)], NOW, dataclasses.replace(SETTINGS, **changed)))
        return found[0].detail["devices"] + found[0].detail["ended"] if found else 0

    assert told(31) == 0 and told(29) == 1, "existing clients cannot renew: somebody has to send them a link"
    assert told(55, device_expiry_s=90 * DAY) == 1 and told(62, device_expiry_s=90 * DAY) == 0
    assert told(6, life=30) == 0 and told(4, life=30) == 1, "short-lived ones are renewed late"
    assert told(-29) == 2 and told(-31) == 0, "one that ended long ago, nobody missed"
    for allowed in ("dev_1", "usr_1"):
        assert told(29, allow=(("", allowed),)) == told(29, allow=(("certificate_expiring", allowed),)) == 0


def test_a_log_that_is_not_intact() -> None:
    (finding,) = audit_broken(["record 7 is missing"], NOW)
    assert finding.severity is Severity.CRITICAL and finding.detail["findings"] == ["record 7 is missing"]
    assert list(audit_broken([], NOW)) == []


def test_a_full_disk() -> None:
    def told(free: int) -> list[str]:
        return [finding.severity.value for finding in storage_low(free, 100, 5, NOW, SETTINGS)]

    assert told(10) == [] and told(9) == ["warning"] and told(2) == ["critical"]


def test_a_disk_at_the_threshold_is_one_alert() -> None:
    """What is written and cleaned up all the time does not open and end one with each sweep."""
    low = [bool(list(storage_low(free, 100, 5, NOW, SETTINGS, was_low=True))) for free in (9, 10, 11, 12)]
    assert low == [True, True, True, False]


def test_peers_that_nobody_made() -> None:
    one = Stranger("nod_1", "AMNEZIAWG", "key=", "192.0.2.1:5", "192.0.2.1", NOW)
    assert list(strangers([one], NOW + 119, SETTINGS)) == [], "a reconcile takes it away"
    (finding,) = strangers([one], NOW + 120, SETTINGS)
    assert (finding.key, finding.evidence) == ("unknown_peer:nod_1:key=", NOW)


def test_a_stranger_that_comes_and_goes_is_one_alert() -> None:
    def told(now: float, *, known: bool = True, **more: float) -> bool:
        one = Stranger("nod_1", "AMNEZIAWG", "key=", "192.0.2.1:5", "192.0.2.1", NOW, **more)
        return bool(list(strangers([one], now, SETTINGS, known={"unknown_peer:nod_1:key="} if known else ())))

    assert told(NOW + 3_899, gone_at=NOW + 300), "it may come back"
    assert not told(NOW + 3_900, gone_at=NOW + 300)
    assert not told(NOW + 301, gone_at=NOW + 300, known=False), "what is over opens nothing"
    assert told(NOW + 1), "it has come back"
