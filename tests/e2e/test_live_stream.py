"""The live stream of a real controller, over its real doors: what travels, resuming, who may, and who misbehaves."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.supervision import Harm
from coxswain.messages.hub import GetLiveCounts, LastEvent, LiveCounts, Publish, PublishAll
from coxswain.messages.sessions import EventBatch, EventKind, NodeEvent
from coxswain.model import Protocol
from tests.fleet import PERSONAL, Controller, lone_controller
from tests.live import ServerSent, WebSocket, request
from tests.support import an_addr, eventually


@contextmanager
def running(**more: Any) -> Iterator[Controller]:
    with lone_controller(config=PERSONAL, web=True, **more) as made:
        eventually(partial(serves, made))
        yield made


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    with running() as made:
        yield made


@pytest.fixture
def own() -> Iterator[Controller]:
    """One that the test may harm."""
    with running() as made:
        yield made


def serves(controller: Controller) -> bool:
    try:
        return request(controller.listen, "/healthz")[0] == 200
    except (OSError, IndexError):
        return False


def token(controller: Controller, scope: str, name: str = "t") -> tuple[str, str]:
    """Returns id and Authorization of a new token."""
    made = controller.client.post("/api/tokens", {"name": name, "scope": scope})
    return made["id"], f"Bearer {made['secret']}"


@pytest.fixture(scope="module")
def admin(controller: Controller) -> str:
    return token(controller, "admin")[1]


@pytest.fixture(scope="module")
def monitor(controller: Controller) -> str:
    return token(controller, "monitor")[1]


def publish(controller: Controller, *numbers: int, kind: str = "tree.test", **more: Any) -> None:
    """They are in the ring when this returns: who connects then comes after them."""
    events = tuple(Publish(kind, 1.0, {"number": number} | more) for number in numbers)
    assert controller.system.tell("event_hub", PublishAll(events))
    controller.system.ask("event_hub", LastEvent(), deadline=30)


def counts(controller: Controller) -> LiveCounts:
    found: LiveCounts = controller.system.ask("live_streams", GetLiveCounts(), deadline=30)
    return found


def test_the_handshake_is_that_of_rfc_6455(controller: Controller, monitor: str) -> None:
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        assert ws.status == 101
        digest = hashlib.sha1(f"{ws.key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        assert ws.headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
        assert ws.headers["upgrade"] == "websocket"
        assert "x-content-type-options" in ws.headers and "content-length" not in ws.headers


def test_node_events_come_as_the_contract_has_them(controller: Controller, monitor: str) -> None:
    now = time.time()

    def event(kind: EventKind, endpoint: str = "", rx: int = 0, message: str = "") -> NodeEvent:
        return NodeEvent("nod_a", now, now, kind, Protocol.AMNEZIAWG, "peer", message, endpoint, rx, 2 * rx)

    batch = (
        event(EventKind.HANDSHAKE_UP, "198.51.100.7:4000"),
        event(EventKind.PEER_CONNECTED, "198.51.100.7:4000", 100),
        event(EventKind.PEER_CONNECTED, "[2001:db8::1]:5", 150),
        event(EventKind.HANDSHAKE_DOWN),
        event(EventKind.PEER_DISCONNECTED, "[2001:db8::1]:5", 175, "node-shutdown"),
        NodeEvent("nod_a", now, now, EventKind.ERROR, Protocol.AMNEZIAWG, "", "awg show awg0 dump: exit status 1"),
    )
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        controller.system.tell("session_tracker", EventBatch("live", 1, batch))
        told = [ws.until(node_id="nod_a") for _ in range(7)]
    assert [e["type"] for e in told] == [
        *("HANDSHAKE_UP", "PEER_CONNECTED", "PEER_DISCONNECTED", "PEER_CONNECTED"),
        *("HANDSHAKE_DOWN", "PEER_DISCONNECTED", "ERROR"),
    ]
    assert all(e["node_id"] == "nod_a" and e["at"].endswith("Z") for e in told)
    seqs = [e["seq"] for e in told]
    assert seqs == list(range(seqs[0], seqs[0] + 7)) and seqs[-1] < 2**53
    roamed, ended = told[2], told[5]
    assert (roamed["reason"], roamed["rx_bytes"], roamed["tx_bytes"]) == ("roamed", 50, 100)
    assert (roamed["source_ip"], roamed["source_endpoint"]) == ("198.51.100.7", "198.51.100.7:4000")
    assert (ended["reason"], ended["message"], ended["rx_bytes"]) == ("node-shutdown", "node-shutdown", 25)
    assert (ended["protocol"], ended["peer_id"]) == ("AMNEZIAWG", "peer")
    assert told[6]["message"].startswith("awg show") and "peer_id" not in told[6]
    record = controller.client.get("/api/sessions?limit=1")[0]
    assert record["id"] == ended["id"], "the live event and the record are the same thing"


def test_a_change_reaches_every_dashboard_but_who_made_it_only_admins(
    controller: Controller, monitor: str, admin: str
) -> None:
    with (
        WebSocket(controller.listen, Authorization=monitor) as ws,
        WebSocket(controller.listen, Authorization=admin) as boss,
    ):
        controller.client.post("/api/nodes", {"name": "watched", "control_addr": an_addr()})
        node_id = controller.node("watched")["id"]
        told = ws.until(type="inventory", object="node")
        assert (told["id"], told["action"]) == (node_id, "node.add")
        record = boss.until(type="audit", action="node.add")
        assert record["target_id"] == node_id and record["actor"]
        controller.client.post("/api/nodes/watched/disable")
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1].get("action") != "node.disable":
            seen.append(ws.event())
        assert not [e for e in seen if e["type"] in ("audit", "config")]
        assert boss.until(type="audit")["action"] == "node.disable"


def test_a_connection_that_broke_goes_on_where_it_was(controller: Controller, monitor: str) -> None:
    with WebSocket(controller.listen, "?after=", Authorization=monitor) as ws:
        hello = ws.event()
        assert (hello["type"], hello["node_id"], hello["seq"]) == ("hello", "", hello["last_seq"])
        publish(controller, 1, 2)
        assert [ws.until(type="tree")["number"] for _ in range(2)] == [1, 2]
    publish(controller, 3, 4)
    with WebSocket(controller.listen, f"?after={hello['seq']}", Authorization=monitor) as ws:
        assert ws.event()["seq"] == hello["seq"]
        told = [ws.until(type="tree") for _ in range(4)]
        assert [e["number"] for e in told] == [1, 2, 3, 4]
    with WebSocket(controller.listen, f"?after={told[2]['seq']}", Authorization=monitor) as ws:
        ws.event()
        assert ws.event() == told[3], "the same bytes again"


def test_without_after_it_begins_now_and_says_nothing_else(controller: Controller, monitor: str) -> None:
    publish(controller, 1)
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        publish(controller, 77)
        told = [ws.event()]
        while told[-1]["type"] != "tree":  # what this controller does by itself may come between
            told.append(ws.event())
        assert told[-1]["number"] == 77
        assert "hello" not in [event["type"] for event in told]


@pytest.mark.parametrize("after", ["5", str(2**52)])
def test_a_number_of_another_run_is_answered_with_a_gap_and_all_there_is(
    controller: Controller, monitor: str, after: str
) -> None:
    publish(controller, 1)
    with WebSocket(controller.listen, f"?after={after}", Authorization=monitor) as ws:
        assert ws.event()["type"] == "hello"
        gap = ws.event()
        assert (gap["type"], gap["count"], gap["reason"]) == ("dropped", None, "unknown")
        assert ws.event()["seq"] > gap["seq"], "from the oldest that is there"


def test_who_comes_back_too_late_is_told_how_many_are_gone(controller: Controller, monitor: str) -> None:
    with WebSocket(controller.listen, "?after=", Authorization=monitor) as ws:
        start = ws.event()["seq"]
    for _ in range(11):
        publish(controller, *range(1_000))
    eventually(lambda: controller.client.get(f"/api/events/recent?after={start}&limit=1")["dropped"])
    with WebSocket(controller.listen, f"?after={start}", Authorization=monitor) as ws:
        ws.event()
        gap = ws.event()
        assert gap["type"] == "dropped" and gap["count"] >= 1_000
        assert ws.event()["seq"] == start + gap["count"] + 1


def test_server_sent_events_are_the_same(controller: Controller, monitor: str) -> None:
    with (
        ServerSent(controller.listen, Authorization=monitor) as sse,
        WebSocket(controller.listen, Authorization=monitor) as ws,
    ):
        assert sse.status == 200
        assert sse.headers["content-type"] == "text/event-stream" and sse.headers["cache-control"] == "no-store"
        publish(controller, 1, text="a\nb\r\n\u2028ü")
        one = sse.until(type="tree")
        assert one == ws.until(type="tree")
        assert one["text"] == "a\nb\r\n\u2028ü" and sse.last_id == str(one["seq"])
    publish(controller, 2)
    with ServerSent(controller.listen, Authorization=monitor, Last_Event_ID=sse.last_id) as sse:
        assert sse.until(type="tree")["number"] == 2
    with ServerSent(controller.listen, f"?after={one['seq']}", Authorization=monitor) as sse:
        assert sse.until(type="tree")["number"] == 2


def test_only_the_classes_that_were_asked_for(controller: Controller, admin: str) -> None:
    with WebSocket(controller.listen, "?class=audit,alert", Authorization=admin) as ws:
        publish(controller, 1)
        publish(controller, 2, kind="alert", alert={"id": "alr_1"})
        controller.system.tell("event_hub", Publish("dropped", 1.0, {"count": 3}))
        told = [ws.event(), ws.event()]
    assert [e["type"] for e in told] == ["alert", "dropped"], "that something is missing is for everybody"
    recent = controller.client.get(f"/api/events/recent?class=alert&after={told[0]['seq'] - 1}")
    assert recent["events"] == [told[0], told[1]]


def test_the_control_socket_has_both_too(controller: Controller) -> None:
    path = str(controller.home / "control.sock")
    with WebSocket(path) as ws, ServerSent(path) as sse:
        publish(controller, 5, kind="audit", result="error")
        assert ws.until(number=5)["type"] == sse.until(number=5)["type"] == "audit", "it may do everything"


# -- who may


def test_nobody_comes_in_without_a_good_credential(controller: Controller) -> None:
    _, readonly = token(controller, "readonly")
    revoked_id, revoked = token(controller, "monitor")
    controller.client.call("DELETE", f"/api/tokens/{revoked_id}")
    for credential, status in (({}, 401), ({"Authorization": revoked}, 401), ({"Authorization": readonly}, 403)):
        answer = request(controller.listen, "/api/events", **credential)
        assert answer[0] == status and b'"error"' in answer[2]
        with WebSocket(controller.listen, **credential) as ws:
            assert ws.status == status
            assert ws.headers["content-type"] == "application/problem+json"


def test_a_token_in_the_query_is_refused(controller: Controller, monitor: str) -> None:
    """It would stand in every log on the way."""
    secret = monitor.removeprefix("Bearer ")
    for name in ("token", "access_token", "authorization"):
        status, _, body = request(controller.listen, f"/ws/events?{name}={secret}")
        assert status == 401
        status, _, body = request(controller.listen, f"/api/events?{name}={secret}", Authorization=monitor)
        assert status == 400 and b"unknown parameter" in body and secret.encode() not in body


def test_a_page_of_another_site_gets_nothing(own: Controller) -> None:
    monitor = token(own, "monitor")[1]
    page = f"http://{own.listen}"
    with WebSocket(own.listen, Authorization=monitor, Origin=page) as ws:
        assert ws.status == 101
    port = own.listen.rpartition(":")[2]
    for origin in ("http://evil.example", f"https://{own.listen}", "null", f"http://localhost:{port}", page + "0"):
        with WebSocket(own.listen, Authorization=monitor, Origin=origin) as ws:
            assert ws.status == 403, origin
            assert ws.headers["content-type"] == "application/problem+json"
    with WebSocket(own.listen, Cookie="cox_session=" + "A" * 43) as ws:
        assert ws.status == 401, "without an Origin it is a script, which needs a cookie that is good"
    refused = own.client.get("/api/audit?limit=50")
    assert any("Origin" in r.get("error", "") for r in refused), "and it is in the audit log"


def test_a_name_that_is_not_ours_is_refused(controller: Controller, monitor: str) -> None:
    """DNS rebinding: the attacker's name points at the loopback address."""
    for host in ("evil.example", "127.0.0.1.evil.example", "a b"):
        with WebSocket(controller.listen, Authorization=monitor, Host=host) as ws:
            assert ws.status in (400, 403), host
        assert request(controller.listen, "/api/events", Authorization=monitor, Host=host)[0] in (400, 403)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"Upgrade": ""}, "Upgrade"),
        ({"Connection": "close"}, "Upgrade"),
        ({"Sec_WebSocket_Version": "8"}, "Sec-WebSocket-Version"),
        ({"Sec_WebSocket_Key": "short"}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": ""}, "Sec-WebSocket-Key"),
    ],
)
def test_half_a_handshake_is_refused_in_words(
    controller: Controller, monitor: str, changed: dict[str, str], complaint: str
) -> None:
    with WebSocket(controller.listen, Authorization=monitor, **changed) as ws:
        assert ws.status == 400


@pytest.mark.parametrize(
    "query", ["?after=x", "?after=-1", "?after=99999999999999999999", "?class=secrets", "?after=1&after=2"]
)
def test_bad_parameters_are_refused(controller: Controller, monitor: str, query: str) -> None:
    with WebSocket(controller.listen, query, Authorization=monitor) as ws:
        assert ws.status == 400
    assert request(controller.listen, f"/api/events{query}", Authorization=monitor)[0] == 400
    assert request(controller.listen, "/api/events", Authorization=monitor, Last_Event_ID="x; DROP")[0] == 400


def test_a_stream_ends_with_the_credential_it_was_granted_for() -> None:
    with running(live_recheck_s=0.3) as own:
        token_id, monitor = token(own, "monitor")
        _, other = token(own, "monitor")
        with (
            WebSocket(own.listen, Authorization=monitor) as ws,
            ServerSent(own.listen, Authorization=monitor) as sse,
            WebSocket(own.listen, Authorization=other) as stays,
            WebSocket(str(own.home / "control.sock")) as local,
        ):
            own.client.call("DELETE", f"/api/tokens/{token_id}")
            assert ws.closing() == (1008, "the credential is not good any more")
            assert ws.is_gone() and sse.is_gone()
            publish(own, 1)
            assert stays.until(number=1) and local.until(number=1)


def test_a_stream_ends_when_its_token_expires() -> None:
    with running(live_recheck_s=0.3) as own:
        made = own.client.post("/api/tokens", {"name": "brief", "scope": "monitor", "expires": "5s"})
        with WebSocket(own.listen, Authorization=f"Bearer {made['secret']}") as ws:
            assert ws.closing()[0] == 1008


def test_while_nobody_can_say_whether_a_credential_is_good_its_stream_goes_on() -> None:
    with running(live_recheck_s=0.3) as own:
        _, monitor = token(own, "monitor")
        with WebSocket(own.listen, Authorization=monitor) as ws:
            for life in range(2):
                own.system.harm("access", Harm.RAISE, 0)
                ws.until(kind="tree.restarted", actor="access")
                publish(own, life)
                assert ws.until(number=life)


# -- who misbehaves


def test_a_client_that_talks_too_much_is_shown_out(controller: Controller, monitor: str) -> None:
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        ws.send(1, b"hello")  # read and forgotten
        ws.send(9, b"still there?")
        while (frame := ws.frame())[0] == 1:
            pass
        assert frame == (10, b"still there?")
        ws.send(2, b"", size=5_000)
        assert ws.closing()[0] == 1009
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        for _ in range(32):
            ws.send(1, b"x" * 2_000)
        ws.send(1, b"x" * (64 * 1024 + 1 - 32 * 2_008 - 8))  # the last byte is one too many, and none is left
        assert ws.closing() == (1008, "this stream goes one way")
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        ws.send(8, b"\x03\xe8bye")
        assert ws.closing()[0] == 1000
        assert ws.is_gone()
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        ws.sock.sendall(b"\x81\x05hello")  # not masked
        assert ws.closing()[0] == 1002
    with ServerSent(controller.listen, Authorization=monitor) as sse:
        with suppress(OSError):
            for _ in range(200):
                sse.sock.sendall(b"GET / HTTP/1.1\r\n" * 100)
        eventually(lambda: counts(controller).clients == 0)


def test_bytes_of_every_kind_hurt_nobody(controller: Controller, monitor: str) -> None:
    with WebSocket(controller.listen, Authorization=monitor) as calm:
        for seed in range(40):
            with WebSocket(controller.listen, Authorization=monitor) as ws:
                ws.sock.sendall(hashlib.shake_128(bytes([seed])).digest(200))
        publish(controller, 31)
        assert calm.until(type="tree")["number"] == 31
    eventually(lambda: counts(controller).clients == 0)


def test_half_a_head_holds_no_worker_and_a_large_one_is_refused(controller: Controller, monitor: str) -> None:
    halves = []
    for _ in range(50):
        sock = socket.create_connection(controller.listen.split(":"), timeout=10)  # type: ignore[arg-type]
        sock.sendall(b"GET /ws/events HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: web")
        halves.append(sock)
    assert request(controller.listen, "/healthz")[0] == 200
    with WebSocket(controller.listen, Authorization=monitor) as ws:
        publish(controller, 8)
        assert ws.until(type="tree")["number"] == 8
    for sock in halves:
        sock.close()
    with suppress(ConnectionResetError):  # it may not even wait for the end
        assert request(controller.listen, "/ws/events", Authorization=monitor, X="y" * 100_000)[0] == 431


def test_a_head_that_comes_in_pieces_is_a_head(controller: Controller, monitor: str) -> None:
    head = (
        f"GET /ws/events HTTP/1.1\r\nHost: {controller.listen}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
        f"Authorization: {monitor}\r\n\r\n"
    ).encode()
    host, _, port = controller.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        for i in range(0, len(head), 37):
            sock.sendall(head[i : i + 37])
        assert sock.recv(1000).startswith(b"HTTP/1.1 101 ")


def test_who_does_not_read_delays_nobody_and_costs_little(controller: Controller, monitor: str) -> None:
    with (
        WebSocket(controller.listen, Authorization=monitor) as lazy,
        WebSocket(controller.listen, Authorization=monitor) as keen,
    ):
        total = 0
        for _ in range(30):
            publish(controller, *range(1_000), filler="x" * 200)
            for number in range(1_000):
                assert keen.until(type="tree")["number"] == number
            total += 1_000
        assert counts(controller).clients == 2
        # It reads again: first what the kernel still has, then how much it missed, then on from there.
        seen, missed, last = 0, 0, None
        while seen + missed < total:
            event = lazy.event()
            if event["type"] == "dropped":
                assert event["reason"] == "behind"
                missed += event["count"]
            elif event["type"] == "tree":
                seen += 1
            last = event["seq"]
        assert missed > 10_000 and seen + missed == total and last is not None
        status = controller.client.get("/api/analytics/status")
        assert status["dropped"] == {"live": missed}, "and the rules know of it"
        publish(controller, 4711)
        assert lazy.until(number=4711)["seq"] > last


def test_who_does_not_answer_is_given_up_and_who_does_stays_however_busy_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.live.client.PING_S", 0.2)
    monkeypatch.setattr("actors.live.client.SILENT_S", 3.0)  # longer than we keep it waiting on a busy machine
    monkeypatch.setattr("actors.live.fanout._LOOK_S", 0.05)
    with running() as own:
        _, monitor = token(own, "monitor")
        with (
            WebSocket(own.listen, "?after=", Authorization=monitor) as answers,
            WebSocket(own.listen, Authorization=monitor) as silent,
            ServerSent(own.listen, Authorization=monitor) as sse,
        ):
            kinds = set()
            while not counts(own).gone:  # the silent one, which came after the one that answers
                opcode, payload = answers.frame()
                kinds.add(opcode if opcode != 1 else json.loads(payload)["type"])
                if opcode == 9:
                    answers.send(10, payload)
                    publish(own, 1)  # it is never quiet for long
            assert {9, "hello", "heartbeat", "tree"} <= kinds
            assert silent.is_gone()
            assert sse.until(number=1), "a reader of server-sent events has nothing to answer with"
            assert counts(own).gone == 1


# -- what falls


@pytest.mark.parametrize("how", [Harm.RAISE, Harm.VANISH])
def test_killing_the_hub_loses_no_client_and_no_number(own: Controller, how: Harm) -> None:
    with WebSocket(own.listen, "?after=", Authorization=token(own, "monitor")[1]) as ws:
        ws.event()
        publish(own, 1)
        before = ws.until(number=1)
        assert own.system.harm("event_hub", how, 0)
        gap = ws.until(type="dropped")
        assert (gap["count"], gap["reason"]) == (None, "restart")
        publish(own, 2)
        after = ws.until(number=2)
        assert after["seq"] > gap["seq"] > before["seq"]
    with WebSocket(own.listen, f"?after={before['seq']}", Authorization=token(own, "monitor")[1]) as ws:
        numbers = [ws.event()["seq"] for _ in range(after["seq"] - before["seq"] + 1)]
        assert numbers == [before["seq"], *range(before["seq"] + 1, after["seq"] + 1)], "hello, and no gap"


def test_killing_the_server_or_what_looks_after_streams_ends_none(own: Controller) -> None:
    with WebSocket(own.listen, Authorization=token(own, "monitor")[1]) as ws:
        for name in ("web_server", "live_streams", "control_socket"):
            assert own.system.harm(name, Harm.RAISE, 0)
            ws.until(kind="tree.restarted", actor=name)
        eventually(lambda: counts(own).clients == 1)
        publish(own, 3)
        assert ws.until(number=3)
    eventually(partial(serves, own))


def test_when_the_loop_falls_its_streams_end_and_resume(own: Controller) -> None:
    with WebSocket(own.listen, "?after=", Authorization=token(own, "monitor")[1]) as ws:
        seq = ws.event()["seq"]
        publish(own, 1)
        assert own.system.harm("io_loop", Harm.RAISE, 0)
        assert ws.is_gone()
    publish(own, 2)
    eventually(lambda: own.system.tree() and counts(own).clients == 0)

    def resumed() -> list[int]:
        with WebSocket(own.listen, f"?after={seq}", Authorization=token(own, "monitor")[1]) as again:
            return [again.until(kind="tree.test")["number"] for _ in range(2)]

    assert eventually(resumed) == [1, 2]


def test_numbers_go_on_over_a_restart_of_the_daemon(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    last = 0
    for life in range(3):
        controller = Controller(state)
        controller.start()
        try:
            with WebSocket(str(controller.home / "control.sock"), f"?after={last or ''}") as ws:
                hello = ws.event()
                assert hello["last_seq"] > last
                if life:
                    assert ws.until(type="dropped")["count"] is None
                publish(controller, life)
                last = ws.until(number=life)["seq"]
        finally:
            controller.stop()
