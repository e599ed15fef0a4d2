"""Links that were tried after they had been used (accounts-profiles.md 10.2-13)."""

from __future__ import annotations

from coxswain.alerts.claim_rules import CLAIM, link_reused
from coxswain.alerts.login_rules import AuditFact
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings

NOW = 1_767_225_600.0


def made(seq: int, ticket: str, relay: str = "7", device: str = "dev_1") -> AuditFact:
    detail = {"ticket_id": ticket, "user_id": "usr_1", "relay": relay}
    return AuditFact(seq, NOW + seq, "usr_1", CLAIM, device, "", detail, ok=True)


def refused(seq: int, ticket: str, relay: str = "7") -> AuditFact:
    return AuditFact(seq, NOW + seq, "usr_1", CLAIM, ticket, "", {"relay": relay}, ok=False)


def told(*facts: AuditFact, settings: RuleSettings = RuleSettings()) -> list[Finding]:
    return list(link_reused(facts, settings))


def test_a_link_that_is_tried_after_it_was_used_is_told_and_harder_from_another_side() -> None:
    (finding,) = told(made(1, "tkt_a"), refused(2, "tkt_a"), refused(9, "tkt_a"))
    assert (finding.key, finding.severity, finding.evidence) == ("link_reused:tkt_a", Severity.INFO, NOW + 9)
    assert (finding.device_id, finding.user_id, finding.detail["tries_after"]) == ("dev_1", "usr_1", 2)
    (finding,) = told(made(1, "tkt_a", "7"), refused(2, "tkt_a", "8"))
    assert (finding.severity, finding.detail["relays"]) == (Severity.WARNING, ["7", "8"])
    (finding,) = told(made(1, "tkt_a", "7"), made(2, "tkt_a", "8", "dev_1"))
    assert finding.severity == Severity.WARNING, "used again, from another side"


def test_links_that_never_worked_or_worked_once_are_nobodys_alarm() -> None:
    assert told(made(1, "tkt_a"), made(2, "tkt_b", device="dev_2")) == []
    assert told(refused(1, "tkt_a"), refused(2, "tkt_a"), made(3, "tkt_a")) == [], "it was refused before it was used"
    assert told(refused(1, "tkt_expired"), refused(2, "tkt_expired", "8")) == []
    alone = RuleSettings(allow=(("link_reused", "usr_1"),))
    assert told(made(1, "tkt_a"), refused(2, "tkt_a"), settings=alone) == []
