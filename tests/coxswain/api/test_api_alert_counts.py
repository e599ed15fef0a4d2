"""How many alerts there are and were, through the API of a real controller."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from coxswain.alerts.model import Alert, AlertStatus, Severity
from coxswain.cli.client import RemoteError
from coxswain.store import alerts as rows
from tests.fleet import Controller

_KINDS = ((Severity.CRITICAL, 60), (Severity.INFO, 60), (Severity.INFO, 90_000))


@pytest.fixture
def counted(controller: Controller) -> Iterator[Controller]:
    """With three alerts of one kind; the second one is snoozed. Gone afterwards."""
    now = time.time()
    with controller.store.write() as tx:
        for number, (severity, ago) in enumerate(_KINDS):
            at = now - ago
            snoozed = now + 1_000 if number == 1 else 0.0
            alert = Alert(
                f"alr_{number:016d}", at, "leaked_profile", severity, AlertStatus.OPEN, f"leaked_profile:{number}", at,
                snoozed_until=snoozed, created_at=at, updated_at=at,
            )  # fmt: skip
            rows.insert(tx, alert)
    yield controller
    with controller.store.write() as tx:
        tx.execute("DELETE FROM alerts WHERE kind = 'leaked_profile'")


def test_what_waits_for_somebody_is_counted(controller: Controller, request: pytest.FixtureRequest) -> None:
    client = controller.client
    before = client.get("/api/alerts/summary")
    request.getfixturevalue("counted")
    after = client.get("/api/alerts/summary")
    assert {key: after[key] - before[key] for key in after} == {"open": 2, "critical": 1, "warning": 0, "info": 1}
    listed = "/api/alerts?kind=leaked_profile&snoozed"
    assert [alert["severity"] for alert in client.get(f"{listed}=true")["alerts"]] == ["info"]
    assert len(client.get(f"{listed}=false")["alerts"]) == 2


def test_what_was_opened_is_counted_by_stretch(counted: Controller) -> None:
    day = counted.client.get("/api/alerts/series")
    assert day["step_seconds"] == 1_800
    assert len(day["points"]) in (48, 49)
    assert sum(point["critical"] for point in day["points"]) == 1
    week = counted.client.get("/api/alerts/series?since=2026-01-01T00:00:00Z&step=604800")
    assert week["since"] == week["points"][0]["at"] <= "2026-01-01T00:00:00Z"
    assert sum(point["info"] for point in week["points"]) >= 2
    assert counted.client.get("/api/alerts/series?since=2500-01-01T00:00:00Z")["points"] == []
    assert counted.client.get("/api/alerts/series?since=1970-01-01T00:00:00Z")["points"][0]["at"] == "1970-01-01T00:00:00Z"
    with pytest.raises(RemoteError, match=r"^step: 60 s"):
        counted.client.get("/api/alerts/series?since=2026-01-01T00:00:00Z&step=60")
