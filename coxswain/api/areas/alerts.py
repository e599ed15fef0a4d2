"""Alerts: what the rules found, and what was done about it (management-plane.md 7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from coxswain.alerts.model import KINDS, Alert, AlertStatus, Severity
from coxswain.alerts.view import alert_view
from coxswain.api.bodies import instant, one_line
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, NUMBER, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.views import called, stamp
from coxswain.errors import InvalidInput
from coxswain.losses import CONTROLLER, NODES
from coxswain.messages import alerts as m
from coxswain.messages.siem import GetSiemCounts, SiemCounts

__all__ = ["ALERT", "ROUTES"]

_STATUSES = tuple(status.value for status in AlertStatus)
_SEVERITIES = tuple(severity.value for severity in Severity)
_CURSOR = re.compile(r"(\d{1,18})-([a-z]{1,8}_[a-z0-9]{1,40})")
_SQLITE = "SQLite serves one controller on one machine; for long histories, or several controllers, use Postgres"

ALERT = shape(
    "Alert",
    obj(
        {
            "id": TEXT,
            "at": STAMP,
            "kind": TEXT,
            "title": TEXT,
            "severity": choice(*_SEVERITIES),
            "status": choice(*_STATUSES),
            "source_ips": array(TEXT),
            "facts": array(obj({"label": TEXT, "text": TEXT})),
            "dedup_key": TEXT,
            "version": INT,
            "created_at": STAMP,
            "updated_at": STAMP,
        },
        {
            "device_id": TEXT,
            "user_id": TEXT,
            "node_id": TEXT,
            "detail": {"type": "object"},
            "snoozed_until": STAMP,
            "handled_by": TEXT,
            "device_name": TEXT,
            "user_name": TEXT,
            "node_name": TEXT,
            "removed": array(choice("device", "user", "node")),
        },
    ),
)
_BACKEND = choice("sqlite", "postgres")
ENVELOPE = shape(
    "AlertsEnvelope", obj({"alerts": array(ALERT), "backend": _BACKEND}, {"backend_warning": TEXT})
)  # fmt: skip
STATUS = shape(
    "AnalyticsStatus",
    obj(
        {
            "backend": _BACKEND,
            "backend_warning": TEXT,
            "siem_events_dropped": INT,
            "enabled": BOOL,
            "sweeps": INT,
            "swept_at": nullable(STAMP),
            "sweep_seconds": NUMBER,
            "rules": array(TEXT),
            "failing": array(obj({"rule": TEXT, "reason": TEXT})),
            "unresolved": array(obj({"status": choice(*_STATUSES), "severity": choice(*_SEVERITIES), "count": INT})),
        },
        {"events_dropped": INT, "dropped": {"type": "object", "additionalProperties": INT}},
    ),
)


def _warning(call: Call) -> str:
    return "" if call.services.identity.store == "postgres" else _SQLITE


def _list(call: Call) -> Any:
    limit = call.limit()
    found = call.ask(
        "alert_engine",
        m.ListAlerts(
            status=_one_of(call, "status", _STATUSES),
            kind=_one_of(call, "kind", KINDS),
            severity=_one_of(call, "severity", _SEVERITIES),
            device_id=call.word("device") or "",
            user_id=call.word("user") or "",
            node_id=call.word("node") or "",
            unresolved=call.flag("unresolved") or False,
            snoozed=call.flag("snoozed"),
            since=call.instant("since"),
            until=call.instant("until"),
            after=_cursor(call),
            limit=limit + 1,
        ),
    )
    page = found[:limit]
    envelope = {"alerts": _views(call, page), "backend": call.services.identity.store}
    warning = _warning(call)
    if warning:
        envelope["backend_warning"] = warning
    return Reply(envelope, after=f"{round(page[-1].at * 1e6)}-{page[-1].id}" if len(found) > limit else None)


def _views(call: Call, found: Sequence[Alert]) -> list[dict[str, Any]]:
    """With the names of what they are about, which are not in the frames of the live stream."""
    names = call.names(key for each in found for key in (each.device_id, each.user_id, each.node_id))
    return [
        alert_view(each)
        | {
            key: value
            for key, value in called(names, device=each.device_id, user=each.user_id, node=each.node_id).items()
            if value
        }
        for each in found
    ]


def _view(call: Call, found: Alert) -> dict[str, Any]:
    return _views(call, [found])[0]


def _show(call: Call) -> Any:
    return _view(call, call.ask("alert_engine", m.GetAlert(_id(call))))


def _ack(call: Call) -> Any:
    return _view(call, call.change("alert_engine", m.AckAlert(call.caller, _id(call), call.body.get("version", int))))


def _resolve(call: Call) -> Any:
    return _view(call, call.change("alert_engine", m.ResolveAlert(call.caller, _id(call), call.body.get("version", int))))


def _snooze(call: Call) -> Any:
    text = call.body.get("until", str)
    until = instant({"until": text}, "until") if text else None
    if until is None and "until" not in call.body:
        raise InvalidInput("until: is missing; an RFC 3339 time is needed, or null to end the snooze")
    seconds = None if until is None else until / 1e6
    message = m.SnoozeAlert(call.caller, _id(call), seconds, call.body.get("version", int))
    return _view(call, call.change("alert_engine", message))


def _siem_dropped(call: Call) -> int:
    """Events that consumers of the SIEM stream missed since the start."""
    if not call.services.setting("siem.listen"):
        return 0
    counts: SiemCounts = call.ask("siem_stream", GetSiemCounts())
    return counts.dropped


def _status(call: Call) -> Any:
    state: m.AnalyticsState = call.ask("alert_engine", m.DescribeAnalytics())
    dropped = sum(count for where, count in state.dropped.items() if where in (NODES, CONTROLLER))
    return {
        "backend": call.services.identity.store,
        "backend_warning": _warning(call),
        "events_dropped": dropped,
        "dropped": state.dropped,
        "siem_events_dropped": _siem_dropped(call),
        "enabled": state.enabled,
        "sweeps": state.sweeps,
        "swept_at": stamp(state.swept_at),
        "sweep_seconds": round(state.took_s, 4),
        "rules": list(state.rules),
        "failing": [{"rule": rule, "reason": reason} for rule, reason in sorted(state.failing.items())],
        "unresolved": [
            {"status": status, "severity": severity, "count": count}
            for (status, severity), count in sorted(state.counts.items())
        ],
    }


def _id(call: Call) -> str:
    return one_line("alert", call.path["id"])


def _one_of(call: Call, name: str, accepted: tuple[str, ...]) -> str:
    word = call.word(name)
    if word is not None and word not in accepted:
        raise InvalidInput(f"{name}: {word[:40]!r} is none of {', '.join(accepted)}")
    return word or ""


def _cursor(call: Call) -> tuple[int, str] | None:
    text = call.word("after")
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidInput(f"after: {text[:40]!r} is no cursor; take it from the Link header of the page before")
    return int(match[1]), match[2]


_VERSION = obj({}, {"version": INT})

ROUTES = (
    Route(
        "GET", "/api/alerts", Scope.MONITOR, "Alerts, newest first.", _list, returns=ENVELOPE,
        query=(
            Param("status", "only those with this status", choice(*_STATUSES)),
            Param("kind", "only those of this rule", choice(*KINDS)),
            Param("device", "only those about the device with this id"),
            Param("user", "only those about the user with this id"),
            Param("node", "only those about the node with this id"),
            Param("severity", "only those that are as severe as this", choice(*_SEVERITIES)),
            Param("unresolved", "true: only those that are not resolved", BOOL),
            Param("snoozed", "true: only those that are snoozed; false: only those that are not", BOOL),
            Param("since", "not before this time", STAMP),
            Param("until", "not after this time", STAMP),
            Param("after", "the cursor of the page before"),
            Param("limit", "how many at most; 0 or absent: 100", limited(0, 1_000)),
        ),
    ),
    Route("GET", "/api/alerts/{id}", Scope.MONITOR, "One alert.", _show, returns=ALERT, also=(404,)),
    Route(
        "POST", "/api/alerts/{id}/ack", Scope.ADMIN, "Somebody takes care of it.", _ack, "alert.ack", "alert", ALERT,
        also=(404, 409), body=_VERSION,
    ),
    Route(
        "POST", "/api/alerts/{id}/resolve", Scope.ADMIN, "It is over; only newer evidence opens another one.", _resolve,
        "alert.resolve", "alert", ALERT, also=(404, 409), body=_VERSION,
    ),
    Route(
        "POST", "/api/alerts/{id}/snooze", Scope.ADMIN, "Not to be told of before a time; null: now again.", _snooze,
        "alert.snooze", "alert", ALERT, also=(404, 409),
        body=obj({"until": nullable(STAMP)}, {"version": INT}),
    ),
    Route(
        "GET", "/api/analytics/status", Scope.MONITOR, "How the alert rules are doing.", _status, returns=STATUS,
    ),
)  # fmt: skip
