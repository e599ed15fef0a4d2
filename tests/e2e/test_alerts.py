"""Alerts of a running controller: a node is killed and comes back; what somebody handles stays handled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.cli.client import RemoteError
from coxswain.messages.alerts import SweepNow
from tests.fleet import LiveFleet, live_fleet
from tests.live import WebSocket
from tests.support import eventually
from tests.web import Web


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path_factory.mktemp("alerts"), 2, 15_200, web=True) as running:
        yield running


def alerts(fleet: LiveFleet, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.controller.client.get(f"/api/alerts?kind=fleet_health{query}")["alerts"]
    return found


def handled(fleet: LiveFleet) -> list[Any]:
    """Conditions that somebody resolved and that have not ended."""
    with fleet.controller.store.read() as tx:
        return tx.execute("SELECT dedup_key FROM alert_handled")


def kill(fleet: LiveFleet, index: int) -> dict[str, Any]:
    """Kills a node and waits for its alert. One about an earlier fall would go on: it has to be over."""
    eventually(lambda: not alerts(fleet, "&unresolved=true"), timeout=60)
    before = {alert["id"] for alert in alerts(fleet)}
    fleet.nodes.do("kill", node=index)
    (alert,) = eventually(lambda: [a for a in alerts(fleet, "&status=open") if a["id"] not in before], timeout=30)
    return alert


def bring_back(fleet: LiveFleet, index: int, alert: dict[str, Any]) -> dict[str, Any]:
    """And waits until its alert is over."""
    fleet.nodes.do("start", node=index)
    path = f"/api/alerts/{alert['id']}"
    return eventually(lambda: (a := fleet.controller.client.get(path))["status"] == "resolved" and a, timeout=60)


def test_a_killed_node_alerts_and_heals(fleet: LiveFleet) -> None:
    client, socket = fleet.controller.client, str(fleet.controller.home / "control.sock")
    with WebSocket(socket, "?class=alert") as watching:
        alert = kill(fleet, 0)
        assert (alert["severity"], alert["status"], alert["node_id"]) == ("warning", "open", fleet.ids[0])
        assert alert["detail"]["node_name"] == "n0" and alert["detail"]["node_status"] == "unreachable"
        assert {"label": "Node", "text": "n0"} in alert["facts"]
        told = watching.until(type="alert")
        assert (alert | told["alert"], told["node_id"]) == (alert, ""), "the same, but for names"
        acked = client.post(f"/api/alerts/{alert['id']}/ack", {"version": alert["version"]})
        assert (acked["status"], acked["version"]) == ("acknowledged", alert["version"] + 1)
        assert acked | watching.until(type="alert_updated")["alert"] == acked
        over = bring_back(fleet, 0, alert)
        assert over | watching.until(type="alert_updated")["alert"] == over, "one that is acknowledged ends by itself, too"
    assert over["handled_by"] == "system"
    recorded = client.get(f"/api/audit?target_id={alert['id']}")
    assert [(r["action"], r["detail"]["status"]) for r in recorded] == [("alert.ack", "acknowledged")]


def test_one_that_is_resolved_while_the_node_is_down_stays_so_until_the_node_was_up(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    alert = kill(fleet, 1)
    client.post(f"/api/alerts/{alert['id']}/resolve")
    fleet.controller.system.ask("alert_engine", SweepNow(), deadline=10)
    assert alerts(fleet, "&unresolved=true") == []
    assert client.get(f"/api/alerts/{alert['id']}")["version"] == alert["version"] + 1, "nothing wrote to it"
    fleet.nodes.do("start", node=1)
    eventually(lambda: not handled(fleet), timeout=60)
    again = kill(fleet, 1)
    assert again["id"] != alert["id"]
    bring_back(fleet, 1, again)


def test_a_node_that_the_operator_stops_is_nobodys_alarm(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    alert = kill(fleet, 0)
    client.post("/api/nodes/n0/disable")
    path = f"/api/alerts/{alert['id']}"
    eventually(lambda: client.get(path)["status"] == "resolved", timeout=30)
    fleet.controller.system.ask("alert_engine", SweepNow(), deadline=10)
    assert alerts(fleet, "&unresolved=true") == []
    fleet.nodes.do("start", node=0)
    client.post("/api/nodes/n0/enable")
    fleet.controller.until("n0", link_state="live", status="active")


def test_an_alert_is_changed_only_by_who_saw_it_as_it_is(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    alert = kill(fleet, 0)
    path = f"/api/alerts/{alert['id']}"
    for action, body in (("ack", {}), ("resolve", {}), ("snooze", {"until": None})):
        with pytest.raises(RemoteError) as caught:
            client.post(f"{path}/{action}", {"version": 99, **body})
        assert (caught.value.status, caught.value.current) == (409, alert["version"])
    with pytest.raises(RemoteError, match="not within the next 30 days"):
        client.post(f"{path}/snooze", {"until": "2020-01-01T00:00:00Z"})
    with pytest.raises(RemoteError, match="until: is missing"):
        client.post(f"{path}/snooze", {})
    over = bring_back(fleet, 0, alert)
    with pytest.raises(RemoteError, match="nothing to acknowledge"):
        client.post(f"{path}/ack")
    assert client.post(f"{path}/resolve") == over, "once more is no error"


def test_pages_of_alerts(fleet: LiveFleet) -> None:
    """By the cursor of the Link header, each alert once."""
    client = fleet.controller.client
    web = Web(fleet.controller.listen)
    web.token = client.post("/api/tokens", {"name": "pages", "scope": "monitor"})["secret"]
    for index in (0, 1):
        bring_back(fleet, index, kill(fleet, index))
    listed = alerts(fleet)
    ids, path = [], "/api/alerts?kind=fleet_health&limit=1"
    while path:
        answer = web.get(path)
        ids += [alert["id"] for alert in answer.json["alerts"]]
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
    assert ids == [alert["id"] for alert in listed] and len(ids) >= 2
    assert answer.json["backend"] == "sqlite" and "Postgres" in answer.json["backend_warning"]


def test_how_the_rules_are_doing(fleet: LiveFleet) -> None:
    client = fleet.controller.client
    fleet.controller.system.ask("alert_engine", SweepNow(), deadline=10)
    found = client.get("/api/analytics/status")
    assert found["enabled"] and found["sweeps"] >= 2 and found["swept_at"] and found["failing"] == []
    assert "fleet_health" in found["rules"] and found["backend"] == "sqlite"
