"""The rules about logins, admins and tokens, from records of the audit log. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from coxswain.alerts.model import Finding, Severity
from coxswain.alerts.settings import RuleSettings
from coxswain.clock import rfc3339

__all__ = ["ACTIONS", "AuditFact", "judge_log"]

_FAILED = "auth.login_failed"
_REFUSED_MANY = "auth.refused_many"
_LOGIN = "auth.login"
_FAILED_SYNC = "account.login_failed"
"""Of somebody who came through a relay with an e-mail address and a password (``accounts.legacy_login``). Which address that
was is not known here: the relay's is not theirs. The record is about the account, if there is one.
"""

ACTIONS = (_FAILED, _FAILED_SYNC, _REFUSED_MANY, _LOGIN, "admin.add", "token.create")
"""The records that ``judge_log`` wants to see."""

_MOST_NAMES = 20


class AuditFact(NamedTuple):
    """One record of the audit log. ``at``: epoch seconds; ``detail``: as it was written."""

    seq: int
    at: float
    actor: str
    action: str
    target_id: str
    source_ip: str
    detail: Mapping[str, Any]
    ok: bool


class _Failure(NamedTuple):
    at: float
    source_ip: str
    username: str
    times: int


@dataclass(frozen=True, slots=True)
class _Span:
    failures: Sequence[_Failure]

    @property
    def count(self) -> int:
        return sum(failure.times for failure in self.failures)


def judge_log(facts: Sequence[AuditFact], settings: RuleSettings) -> list[Finding]:
    """What is to be said of the records of the window.

    Args:
        facts: of ``ACTIONS``, in the order of the log.
        settings: thresholds.
    """
    failures = sorted(_failures(facts))
    found = [*_spikes(failures, settings), *_after_failures(facts, failures, settings), *_created(facts)]
    return [finding for finding in found if settings.lets_pass(finding)]


def _failures(facts: Iterable[AuditFact]) -> Iterator[_Failure]:
    """Also those that are only counted, as there were too many of one address within a minute."""
    for fact in facts:
        if fact.action == _FAILED:
            yield _Failure(fact.at, fact.source_ip, _text(fact.detail.get("username")).casefold()[:100], 1)
        elif fact.action == _FAILED_SYNC:
            yield _Failure(fact.at, "", fact.target_id, 1)
        elif fact.action == _REFUSED_MANY:
            what = fact.detail.get("what")
            counts = what.items() if isinstance(what, Mapping) else ()
            count = sum(n for name, n in counts if _FAILED in str(name) and isinstance(n, int))
            if count > 0:
                yield _Failure(fact.at, fact.source_ip, "", count)


def _spikes(failures: Sequence[_Failure], settings: RuleSettings) -> Iterator[Finding]:
    """By address, by account, and altogether. An address of a proxy is that of everybody behind it, and counts for nothing
    by itself; trying many accounts from many addresses slowly shows by account, or in the sum.
    """
    by_address: dict[str, list[_Failure]] = {}
    by_account: dict[str, list[_Failure]] = {}
    for failure in failures:
        if failure.source_ip and failure.source_ip not in settings.proxies:
            by_address.setdefault(failure.source_ip, []).append(failure)
        if failure.username:
            by_account.setdefault(failure.username, []).append(failure)
    groups = [
        *((f"auth_failure_spike:{ip}", ip, "", part, settings.auth_failures) for ip, part in by_address.items()),
        *((f"auth_failure_spike:user:{name}", "", name, part, settings.auth_failures) for name, part in by_account.items()),
        ("auth_failure_spike:*", "", "", failures, settings.auth_failures_global),
    ]
    for key, address, username, part, least in groups:
        span = _latest_span(part, least, settings.auth_window_s)
        if span is None:
            continue
        addresses = sorted({failure.source_ip for failure in span.failures} - {""})
        first, last = span.failures[0].at, span.failures[-1].at
        yield Finding(
            "auth_failure_spike",
            key,
            Severity.WARNING,
            at=last,
            evidence=last,
            source_ips=tuple(addresses[:64]),
            detail={
                "source_ip": address,
                "username": username,
                "failure_count": span.count,
                "window": f"{round(settings.auth_window_s / 60)}m0s",
                "first_failure": rfc3339(first),
                "last_failure": rfc3339(last),
                "attempted_usernames": sorted({f.username for f in span.failures} - {""})[:_MOST_NAMES],
            },
        )


def _latest_span(failures: Sequence[_Failure], least: int, within_s: float) -> _Span | None:
    """The newest stretch with enough of them; None: there is none."""
    end = len(failures)
    while end > 0:
        start = end - 1
        while start > 0 and failures[end - 1].at - failures[start - 1].at <= within_s:
            start -= 1
        span = _Span(failures[start:end])
        if span.count >= least:
            return span
        end -= 1
    return None


def _after_failures(facts: Sequence[AuditFact], failures: Sequence[_Failure], settings: RuleSettings) -> Iterator[Finding]:
    """Somebody got in after many wrong tries from there, or at that account: a guess that came true looks like this."""
    times = [failure.at for failure in failures]
    for fact in facts:
        if fact.action != _LOGIN or not fact.ok:
            continue
        name = fact.actor.casefold()
        first, end = bisect_left(times, fact.at - settings.auth_window_s), bisect_right(times, fact.at)
        tries = [
            failure
            for failure in failures[first:end]
            if failure.username == name or (failure.source_ip and failure.source_ip == fact.source_ip)
        ]
        count = sum(failure.times for failure in tries)
        if count < settings.auth_failures:
            continue
        yield Finding(
            "login_after_failures",
            f"login_after_failures:{fact.target_id}",
            Severity.WARNING,
            at=fact.at,
            evidence=fact.at,
            user_id=fact.target_id,
            source_ips=(fact.source_ip,) if fact.source_ip else (),
            detail={
                "username": fact.actor,
                "source_ip": fact.source_ip,
                "failure_count": count,
                "first_failure": rfc3339(tries[0].at),
                "last_failure": rfc3339(tries[-1].at),
                "login_at": rfc3339(fact.at),
            },
        )


def _created(facts: Iterable[AuditFact]) -> Iterator[Finding]:
    """Whoever got in makes himself a way to come back."""
    kinds = {"admin.add": "admin_created", "token.create": "token_created"}
    for fact in facts:
        kind = kinds.get(fact.action)
        if kind is None or not fact.ok:
            continue
        detail = {"by": fact.actor, "source_ip": fact.source_ip}
        detail |= {key: _text(fact.detail[key])[:100] for key in ("name", "email", "scope") if key in fact.detail}
        is_admin = kind == "admin_created" or fact.detail.get("scope") == "admin"
        yield Finding(
            kind,
            f"{kind}:{fact.target_id}",
            Severity.WARNING if is_admin else Severity.INFO,
            at=fact.at,
            evidence=fact.at,
            user_id=fact.target_id if kind == "admin_created" else "",
            source_ips=(fact.source_ip,) if fact.source_ip else (),
            detail=detail,
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
