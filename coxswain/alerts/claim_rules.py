"""The rule about links that were tried again (accounts-profiles.md 10.2-13). Pure.

A link's pin does not bind who stands between: he learns the token, and can redeem it himself. Whoever it was meant for is
then refused, with a link that he has just got. So is somebody who taps it once more, which is no harm and looks the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coxswain.alerts.login_rules import AuditFact
from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import rfc3339

__all__ = ["CLAIM", "link_reused"]

CLAIM = "enroll.claim"
"""A claim that was made is about its device, one that was refused about its ticket, where that is known."""


def link_reused(facts: Sequence[AuditFact], settings: RuleSettings) -> Iterator[Finding]:
    """Links that somebody tried after they had been used, or that were used from two sides.

    Args:
        facts: of ``CLAIM``, in the order of the log.
        settings: whom to leave alone.
    """
    made: dict[str, AuditFact] = {}
    again: dict[str, list[AuditFact]] = {}
    for fact in facts:
        ticket = str(fact.detail.get("ticket_id", "")) if fact.ok else fact.target_id
        if ticket in made:
            again.setdefault(ticket, []).append(fact)
        elif ticket and fact.ok:
            made[ticket] = fact
    for ticket, tries in again.items():
        first, last = made[ticket], tries[-1]
        relays = [str(fact.detail.get("relay", "")) for fact in (first, *tries)]
        finding = Finding(
            "link_reused",
            f"link_reused:{ticket}",
            Severity.WARNING if len(set(relays)) > 1 else Severity.INFO,
            at=last.at,
            evidence=last.at,
            device_id=first.target_id,
            user_id=str(first.detail.get("user_id", "")),
            detail={
                "ticket_id": ticket,
                "claimed_at": rfc3339(first.at),
                "tries_after": len(tries),
                "last_try": rfc3339(last.at),
                "relays": sorted(set(relays) - {""}),
            },
        )
        if settings.lets_pass(finding):
            yield finding
