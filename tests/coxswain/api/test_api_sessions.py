"""Sessions through the API of a real controller: the contract's records, whole sessions, totals, pages."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from actors.main import cli
from coxswain.cli.client import RemoteError
from coxswain.cli.sessions import _COLUMNS, _row
from coxswain.ids import ID_PATTERN
from coxswain.messages.sessions import EventBatch, EventKind, NodeEvent
from coxswain.model import Protocol
from tests.fleet import Controller
from tests.support import eventually

AWG = Protocol.AMNEZIAWG
GONE = "nod_gonegonegonegone"


@pytest.fixture(scope="module")
def told(controller: Controller) -> float:
    """A device that roams and leaves, one that stays, one of unknown bytes. Returns when that began."""
    start = time.time() - 600
    node: str = controller.client.post("/api/nodes", {"name": "s1", "control_addr": "192.0.2.1"})["id"]

    def event(kind: EventKind, at: float, node_id: str, peer: str, endpoint: str, rx: int, tx: int) -> NodeEvent:
        return NodeEvent(node_id, start + at, start + at, kind, AWG, peer, "", endpoint, rx, tx)

    up, down = EventKind.PEER_CONNECTED, EventKind.PEER_DISCONNECTED
    events = (
        event(up, 0, node, "roamer", "198.51.100.7:4000", 100, 200),
        event(up, 60, node, "roamer", "[2001:db8::1]:5", 150, 260),
        event(down, 120, node, "roamer", "[2001:db8::1]:5", 151, 360),
        event(up, 130, node, "stayer", "203.0.113.9:1", 5, 5),
        event(up, 140, GONE, "stranger", "203.0.113.9:2", 5, 5),
        event(down, 150, GONE, "stranger", "", 0, 0),
    )
    assert controller.system.tell("session_tracker", EventBatch("test", 1, events))
    eventually(lambda: len(controller.client.get("/api/sessions")) == 7)
    return start


def get(controller: Controller, path: str) -> Any:
    return controller.client.get(path)


def test_records_are_those_of_the_contract(controller: Controller, told: float) -> None:
    found = get(controller, "/api/sessions?node=s1")
    node = controller.node("s1")["id"]
    assert [(r["event_type"], r.get("reason"), r["source_ip"], r["rx_bytes"], r["tx_bytes"]) for r in found] == [
        ("connect", None, "203.0.113.9", 0, 0),
        ("disconnect", None, "2001:db8::1", 1, 100),
        ("connect", None, "2001:db8::1", 0, 0),
        ("disconnect", "roamed", "198.51.100.7", 50, 60),
        ("connect", None, "198.51.100.7", 0, 0),
    ]
    assert all(ID_PATTERN.match(r["id"]) and r["id"].startswith("cev_") for r in found)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", r["at"]) for r in found)
    assert found[0] | {"id": "", "at": ""} == {
        "id": "",
        "at": "",
        "node_id": node,
        "peer_id": "stayer",
        "protocol": "AMNEZIAWG",
        "event_type": "connect",
        "source_ip": "203.0.113.9",
        "source_endpoint": "203.0.113.9:1",
        "rx_bytes": 0,
        "tx_bytes": 0,
        "node_name": "s1",
    }
    order = [(r["at"], r["id"]) for r in get(controller, "/api/sessions")]
    assert order == sorted(order, reverse=True), "newest first, ties by id"


def test_without_a_database_of_places_a_country_is_not_simply_empty(controller: Controller, told: float) -> None:
    for path in ("/api/sessions", "/api/sessions/history", "/api/sessions/active"):
        with pytest.raises(RemoteError, match="country: there is no GeoIP database") as refused:
            get(controller, f"{path}?country=DE")
        assert refused.value.status == 400 and "cox geoip update" in str(refused.value.remedy)
    assert all(session["country"] == "" for session in get(controller, "/api/sessions/history"))


def test_what_is_not_known_is_null(controller: Controller, told: float) -> None:
    newest = get(controller, f"/api/sessions?node={GONE}&event_type=disconnect")
    assert [(r["rx_bytes"], r["tx_bytes"]) for r in newest] == [(None, None)]
    assert get(controller, "/api/sessions/totals?by=node")[-1] | {"seconds": 0} == {
        "id": GONE,
        "opened": 1,
        "closed": 1,
        "unknown": 1,
        "rx_bytes": 0,
        "tx_bytes": 0,
        "seconds": 0,
        "name": None,
        "removed": False,
    }


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("source_ip=203.0.113.9", 3),
        ("source_ip=2001:DB8:0::1", 2),
        ("reason=roamed", 1),
        ("reason=disconnect", 2),
        ("protocol=amneziawg", 7),
        ("protocol=XRAY_REALITY", 0),
        ("event_type=connect&node=s1", 3),
        ("user=usr_nobody", 0),
        ("limit=0", 7),
        ("limit=2", 2),
        ("since=2020-01-01T00:00:00Z", 7),
        ("since=9999-12-31T23:59:59Z", 0),
        ("since=0001-01-01T00:00:00Z&until=0001-01-01T00:00:01Z", 0),
        ("since=2020-01-01T00:00:00.5%2B02:00&until=2020-01-02T00:00:00Z", 0),
    ],
)
def test_filters(controller: Controller, told: float, query: str, count: int) -> None:
    assert len(get(controller, f"/api/sessions?{query}")) == count


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("limit=-1", "limit: "),
        ("limit=x", "limit: "),
        ("since=yesterday", "since: 'yesterday' is not an RFC 3339 time"),
        ("since=2026-01-01", "since: "),
        ("until=2026-01-01T00:00:00", "until: "),
        ("reason=boredom", "reason: 'boredom' is none of disconnect, roamed"),
        ("protocol=ipsec", "protocol: "),
        ("event_type=handshake", "event_type: "),
        ("country=Germany", "country: 'Germany' is no ISO 3166 code"),
        ("country=D%00", "country: "),
        ("after=5", "after: '5' is no cursor"),
        ("after=1-2-3", "after: "),
        ("contry=DE", "'contry': unknown parameter; did you mean country?"),
        ("target_id=x", "'target_id': unknown parameter; accepted are "),
        ("node=nobody", "node: there is no node with the id or name 'nobody', and none that was removed"),
        ("device=nobody", "device: there is no device with the id or name 'nobody'"),
        ("user=nobody", "user: there is no user with the id, name or e-mail 'nobody'"),
    ],
)
def test_bad_filters_are_refused_by_name(controller: Controller, told: float, query: str, complaint: str) -> None:
    with pytest.raises(RemoteError) as caught:
        get(controller, f"/api/sessions?{query}")
    assert caught.value.status == (404 if query.endswith("=nobody") else 400)
    assert complaint in str(caught.value)


def pages(controller: Controller, path: str) -> list[Any]:
    """Follows the Link headers, as a script would."""
    found: list[Any] = []
    while path:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(controller.home / "control.sock"))
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        found.append(json.loads(body))
        link = re.search(rb'\r\nLink: <(\S+)>; rel="next"', head)
        path = link[1].decode() if link else ""
    return found


@pytest.mark.parametrize("path", ["", "/history", "/totals?by=node", "/active"])
def test_pages_hold_together(controller: Controller, told: float, path: str) -> None:
    path = f"/api/sessions{path}"
    whole = get(controller, path)
    found = pages(controller, path + ("&" if "?" in path else "?") + "limit=1")
    assert all(len(page) == 1 for page in found)
    assert [record for page in found for record in page] == whole


def test_whole_sessions(controller: Controller, told: float) -> None:
    stranger, stayer, roamer = get(controller, "/api/sessions/history")
    assert (roamer["rx_bytes"], roamer["tx_bytes"], roamer["roams"], roamer["reason"]) == (51, 160, 1, "disconnect")
    assert [e["endpoint"] for e in roamer["endpoints"]] == ["198.51.100.7:4000", "[2001:db8::1]:5"]
    assert (stranger["rx_bytes"], stayer["rx_bytes"], stayer["closed_at"]) == (None, 0, None)
    assert get(controller, "/api/sessions/active") == [stayer] == get(controller, "/api/sessions/history?active=true")
    assert get(controller, f"/api/sessions/history/{roamer['id']}") == roamer
    assert get(controller, "/api/sessions/history?reason=disconnect&protocol=amneziawg&active=false") == [stranger, roamer]
    assert get(controller, "/api/sessions/history?protocol=xray-reality") == []
    for key in ("999999", "x", "-1", "9" * 30):
        with pytest.raises(RemoteError) as caught:
            get(controller, f"/api/sessions/history/{key}")
        assert caught.value.status == 404


def test_totals(controller: Controller, told: float) -> None:
    node, gone = get(controller, "/api/sessions/totals?by=node")
    assert (node["id"], node["opened"], node["closed"], node["rx_bytes"], node["tx_bytes"], node["seconds"]) == (
        *(controller.node("s1")["id"], 2, 1, 51, 160, 120),
    )
    assert (gone["id"], gone["unknown"]) == (GONE, 1)
    assert [t["id"] for t in get(controller, "/api/sessions/totals")] == [""], "nobody knows these peers"
    assert get(controller, "/api/sessions/totals?by=device&device=dev_x&since=2026-01-01T00:00:00Z") == []


def test_a_series_has_every_stretch_and_no_zero_for_what_nobody_knows(controller: Controller) -> None:
    found = get(controller, "/api/metrics/series?since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z")
    assert (found["node_id"], found["step_seconds"], len(found["points"])) == (None, 300, 288)
    assert (found["since"], found["until"]) == ("2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z")
    assert found["points"][1] == {
        "at": "2026-01-01T00:05:00.000Z",
        "sessions": None,
        "rx_bytes_per_second": None,
        "tx_bytes_per_second": None,
        "availability": None,
    }
    week = get(controller, "/api/metrics/series?since=2026-01-01T00:00:00Z&until=2026-01-08T00:00:00Z")
    assert (week["step_seconds"], len(week["points"])) == (3_600, 168)
    assert len(get(controller, "/api/metrics/series")["points"]) in (288, 289)


def test_a_series_that_cannot_be_is_refused_by_name(controller: Controller) -> None:
    for query, name in (
        ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "since"),
        ("since=2020-01-01T00:00:00Z&step=300", "step"),
        ("step=7", "step"),
        ("node=nobody", "node"),
    ):
        with pytest.raises(RemoteError, match=rf"^{name}"):
            controller.client.get(f"/api/metrics/series?{query}")


def test_an_export_has_every_session_once_whatever_the_pages(
    controller: Controller, told: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coxswain.cli.sessions._PAGE", 2)
    config = str(controller.home.parent / "cox.yaml")

    def export(*options: str) -> str:
        done = CliRunner().invoke(cli, ["sessions", "export", "--config", config, *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    whole = get(controller, "/api/sessions/history?limit=1000")
    assert len(whole) == 3
    assert [json.loads(line) for line in export("--json").splitlines()] == whole
    rows = list(csv.DictReader(io.StringIO(export(), newline="")))
    assert [row["id"] for row in rows] == [str(session["id"]) for session in whole]
    by_peer = {row["peer_key"]: row for row in rows}
    assert by_peer["roamer"]["node"] == "s1" and by_peer["roamer"]["rx_bytes"] == "51"
    assert by_peer["stranger"]["node"] == "" and by_peer["stranger"]["rx_bytes"] == "", "not known, and not 0"
    out = tmp_path / "sessions.csv"
    assert export("--out", str(out), "--active") == ""
    assert [row["peer_key"] for row in csv.DictReader(out.open(newline=""))] == ["stayer"]


_NAMES = ("node_name", "device_name", "user_name")


def test_no_cell_is_a_formula_in_a_spreadsheet() -> None:
    """Endpoints, and keys of protocols that are not known, are whatever a node says."""
    for start in ("=", "+", "-", "@", "\t", "\r"):
        session = dict.fromkeys((*_COLUMNS, *_NAMES), f"{start}HYPERLINK(1)") | {"removed": []}
        assert set(_row(session)) == {f"'{start}HYPERLINK(1)", ""}
    key = "+" + "A" * 42 + "="
    session = dict.fromkeys((*_COLUMNS, *_NAMES), "ams-1") | {"peer_key": key, "roams": 0, "rx_bytes": None}
    session |= {"node_name": "ams", "removed": ["device", "user"]}
    row = dict(zip(_COLUMNS, _row(session), strict=True))
    assert row["peer_key"] == key, "it can do nothing, and is looked for"
    assert (row["node"], row["endpoint"], row["roams"], row["rx_bytes"]) == ("ams", "ams-1", 0, None)
    assert (row["device"], row["removed"]) == ("ams-1", "device user")
