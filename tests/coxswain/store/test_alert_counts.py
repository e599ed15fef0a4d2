"""Alerts counted in the database, on both backends."""

from __future__ import annotations

from coxswain.alerts.model import Alert, AlertStatus, Severity
from coxswain.store import Store, alert_counts
from coxswain.store import alerts as rows

HOUR = 3_600_000_000
BASE = 1_800_000_000.0


def put(store: Store, *alerts: tuple[Severity, AlertStatus, float, float]) -> None:
    """Severity, status, hours after the base, snoozed until."""
    with store.write() as tx:
        for number, (severity, status, hours, snoozed) in enumerate(alerts):
            at = BASE + 3_600 * hours
            alert = Alert(
                f"alr_{number:016d}", at - 600, "new_geo", severity, status, f"new_geo:{number}", at,
                snoozed_until=snoozed, created_at=at, updated_at=at,
            )  # fmt: skip
            rows.insert(tx, alert)


def test_those_that_wait_for_somebody(store: Store) -> None:
    put(
        store,
        (Severity.CRITICAL, AlertStatus.OPEN, 0, 0),
        (Severity.WARNING, AlertStatus.OPEN, 1, 0),
        (Severity.WARNING, AlertStatus.OPEN, 2, 0),
        (Severity.WARNING, AlertStatus.OPEN, 3, BASE + 90_000),
        (Severity.INFO, AlertStatus.ACKNOWLEDGED, 4, 0),
        (Severity.INFO, AlertStatus.RESOLVED, 5, 0),
    )
    with store.read() as tx:
        assert alert_counts.open_now(tx) == {"critical": 1, "warning": 2}


def test_those_that_were_opened_by_stretch(store: Store) -> None:
    """By when they were opened, whatever became of them, and however long before it happened what they are about."""
    put(
        store,
        (Severity.CRITICAL, AlertStatus.OPEN, 0, 0),
        (Severity.WARNING, AlertStatus.RESOLVED, 3, 0),
        (Severity.WARNING, AlertStatus.OPEN, 3.9, 0),
        (Severity.WARNING, AlertStatus.OPEN, 4, 0),
    )
    first = int(BASE * 1e6) // HOUR
    with store.read() as tx:
        assert alert_counts.opened(tx, first * HOUR, HOUR) == {
            (first, "critical"): 1,
            (first + 3, "warning"): 2,
            (first + 4, "warning"): 1,
        }
        assert alert_counts.opened(tx, (first + 4) * HOUR, HOUR) == {(first + 4, "warning"): 1}
