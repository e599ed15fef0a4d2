"""Alerts that no test has to wait for: written into the store of a running controller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from coxswain.alerts.model import Alert, AlertStatus, Severity
from coxswain.store import alerts as rows
from tests.fleet import LiveFleet

__all__ = ["some_alerts"]


@contextmanager
def some_alerts(fleet: LiveFleet) -> Iterator[dict[str, str]]:
    """One of each severity, as rules write them, about what is no condition of the fleet. Kind to id; gone afterwards."""
    now = time.time()
    travel = {
        "from": {"ip": "203.0.113.9", "city": "Oslo", "country": "NO", "at": "2026-03-01T10:00:00Z"},
        "to": {"ip": "198.51.100.7", "city": "Sydney", "country": "AU", "at": "2026-03-01T11:00:00Z"},
        "distance_km": 15_948.2, "minutes": 60, "implied_kmh": 16_218.51, "max_kmh": 900,
    }  # fmt: skip
    logins = {"source_ip": "198.51.100.99", "failure_count": 7, "window": "10m0s", "attempted_usernames": ["admin", "root"]}
    made = [
        _alert("impossible_travel", Severity.CRITICAL, now - 60, travel, fleet, ("198.51.100.7", "203.0.113.9")),
        _alert("auth_failure_spike", Severity.WARNING, now - 120, logins, None, ("198.51.100.99",)),
        _alert("new_geo", Severity.INFO, now - 3_700, {"country_name": "Iceland", "city": "Reykjavik"}, fleet),
    ]
    with fleet.controller.store.write() as tx:
        for alert in made:
            rows.insert(tx, alert)
    yield {alert.kind: alert.id for alert in made}
    with fleet.controller.store.write() as tx:
        for alert in made:
            tx.execute("DELETE FROM alerts WHERE id = ?", (alert.id,))
            tx.execute("DELETE FROM alert_handled WHERE dedup_key = ?", (alert.key,))


def _alert(
    kind: str, severity: Severity, at: float, detail: dict[str, Any], fleet: LiveFleet | None, ips: tuple[str, ...] = ()
) -> Alert:
    letters = kind.replace("_", "")[:16].ljust(16, "a")
    about = {"device_id": "dev_0", "user_id": "usr_test", "node_id": fleet.ids[0]} if fleet else {}
    return Alert(
        f"alr_{letters}", at, kind, severity, AlertStatus.OPEN, f"{kind}:of-a-test", at, **about,
        source_ips=ips, detail=detail, created_at=at, updated_at=at,
    )  # fmt: skip
