"""The SIEM stream with real gRPC clients: the contract, who may have it, slow consumers, gaps, crashes, the end."""

from __future__ import annotations

import functools
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.siem import MonitorServer
from actors.supervision import Harm
from coxswain.config import load
from coxswain.errors import InvalidInput
from coxswain.messages.sessions import GetSessionCounts
from coxswain.messages.siem import GetSiemCounts, SiemCounts
from coxswain.siem.cursor import Cursor
from tests.file_server import make_certificate
from tests.fleet import PERSONAL, Controller, Daemon, lone_controller
from tests.siem import ALERT, METHOD, Consumer, connect, disconnect, existing_event, publish, refusal
from tests.support import an_addr, eventually, free_port
from tests.web import Web

Start = Callable[..., Controller]
DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a controller with a SIEM stream at ``controller.siem``; ``keys``: of the configuration."""
    running: list[Controller] = []

    def make(**keys: Any) -> Controller:
        home = tmp_path / "state"
        if not home.exists():
            home.mkdir(mode=0o700)
        recheck, with_rules = keys.pop("recheck_s", 60.0), keys.pop("with_rules", False)
        siem = {"listen": f"127.0.0.1:{free_port()}"} | keys
        lines = "".join(f"  {name}: {json.dumps(str(value))}\n" for name, value in siem.items())
        # Alerts are the tests' own, but where they say otherwise.
        rules = f"analytics: {{disabled: {str(not with_rules).lower()}, interval_seconds: 1}}\n"
        (tmp_path / "cox.yaml").write_text(f"posture: personal\nstate_dir: ./state\n{rules}siem:\n{lines}")
        controller = Controller(home, live_recheck_s=recheck, web=True)
        controller.start()
        running.append(controller)
        controller.siem = siem["listen"]  # type: ignore[attr-defined]
        eventually(lambda: counts(controller).listening)
        return controller

    yield make
    for controller in running:
        controller.stop()


@pytest.fixture
def controller(start: Start) -> Controller:
    return start()


def address(controller: Controller) -> str:
    found: str = controller.siem  # type: ignore[attr-defined]
    return found


def counts(controller: Controller) -> SiemCounts:
    found: SiemCounts = controller.system.ask("siem_stream", GetSiemCounts(), deadline=30)
    return found


def token(controller: Controller, scope: str = "monitor", expires: str = "") -> tuple[str, str]:
    """Id and secret."""
    made = controller.client.post("/api/tokens", {"name": f"a {scope}", "scope": scope, "expires": expires})
    return made["id"], made["secret"]


def consumer(controller: Controller, *kinds: str, **more: Any) -> Consumer:
    return Consumer(address(controller), token(controller)[1], kinds, **more)


def audited(controller: Controller) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = controller.client.get("/api/audit?action=siem.subscribe")
    return found


def recorded(controller: Controller, count: int) -> None:
    """Waits until there are so many records, and they are told; what is published then comes after them."""
    eventually(lambda: len(controller.client.get("/api/sessions?limit=1000")) == count)
    controller.system.ask("session_tracker", GetSessionCounts(), deadline=30)


def pairs(events: list[Any]) -> list[tuple[str, str]]:
    return [(event.type, event.session.peer_id) for event in events]


# -- the contract


def test_events_are_those_of_the_contract(controller: Controller) -> None:
    with consumer(controller) as siem:
        siem.ready()
        connect(controller, "p1")
        disconnect(controller, "p1")
        recorded(controller, 2)
        publish(controller, "alert", node_id="", alert=ALERT)
        publish(controller, "alert_updated", node_id="", alert=ALERT)
        publish(controller, "tree.test")
        publish(controller, "alert", node_id="", alert=ALERT | {"detail": {}, "id": "alr_2"})
        came, left, alert, second = siem.take(4)
    for event in (came, left, alert, second):
        known = existing_event(event.SerializeToString())
        assert (known.type, known.at.seconds) == (event.type, event.at.seconds)
        assert known.HasField("session") != known.HasField("alert"), "exactly one of both"
    assert (came.type, came.session.event_type, came.session.node_id) == ("connect", "connect", "nod_a")
    assert (came.session.protocol, came.session.source_ip) == ("AMNEZIAWG", "198.51.100.7")
    assert came.session.source_endpoint == "198.51.100.7:4000"
    assert (came.session.rx_bytes, came.session.tx_bytes, came.session.bytes_unknown) == (0, 0, False)
    assert (left.type, left.session.reason, left.session.rx_bytes, left.session.tx_bytes) == ("disconnect", "", 50, 100)
    assert abs(left.at.seconds - time.time()) < 60
    assert (alert.type, alert.alert.id, alert.alert.kind) == ("alert", ALERT["id"], "new_geo")
    assert (alert.alert.severity, list(alert.alert.source_ips)) == ("warning", ALERT["source_ips"])
    assert json.loads(alert.alert.detail_json) == {"country": "FR"} and second.alert.detail_json == "{}"
    assert (alert.alert.device_id, alert.alert.user_id, alert.alert.node_id) == ("dev_1", "usr_1", "nod_1")
    assert (alert.at.seconds, alert.at.nanos) == (1, 500_000_000)
    assert (second.type, second.alert.id) == ("alert", "alr_2"), "an alert's changes and the tree are for who asks for them"


def test_what_the_rules_find_comes_as_it_is_in_the_api(start: Start) -> None:
    controller = start(with_rules=True)
    with consumer(controller, "alert") as siem:
        siem.ready()
        token(controller, "admin")
        (event,) = siem.take(1)
    found = controller.client.get(f"/api/alerts/{event.alert.id}")
    assert (found["kind"], found["severity"]) == (event.alert.kind, event.alert.severity)
    assert found["source_ips"] == list(event.alert.source_ips)
    assert (found["detail"] or {}) == json.loads(event.alert.detail_json)


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        (("connect",), ["connect"]),
        (("disconnect", "nonsense"), ["disconnect"]),
        (("alert",), ["alert"]),
        (("", ""), ["connect", "disconnect", "alert"]),
        (("alert_updated", "tree"), ["alert_updated", "tree"]),
    ],
)
def test_kinds_choose(controller: Controller, kinds: tuple[str, ...], wanted: list[str]) -> None:
    with consumer(controller, *kinds) as siem:
        told = siem.ready()
        assert told.get("cox-unknown-kinds", "") == ("nonsense" if "nonsense" in kinds else "")
        connect(controller, "p1")
        disconnect(controller, "p1")
        recorded(controller, 2)
        publish(controller, "alert", alert=ALERT)
        publish(controller, "alert_updated", alert=ALERT)
        publish(controller, "tree.test", number=7)
        found = siem.take(len(wanted))
    assert [event.type for event in found] == wanted
    if "tree" in kinds:
        assert json.loads(found[-1].frame_json)["number"] == 7


def test_a_typing_error_is_no_silent_empty_stream(controller: Controller) -> None:
    code, text = refusal(address(controller), token(controller)[1], ["Connect", "alerts"])
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "Connect" in text and "disconnect" in text
    code, text = refusal(address(controller), token(controller)[1], cursor="7")
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "cursor" in text
    assert audited(controller) == [], "nothing began"


def test_bytes_that_are_no_request_are_refused_and_hurt_nobody(controller: Controller) -> None:
    metadata = (("authorization", f"Bearer {token(controller)[1]}"),)
    with grpc.insecure_channel(address(controller)) as channel:
        for method, code in ((METHOD, grpc.StatusCode.INVALID_ARGUMENT), ("/x/Y", grpc.StatusCode.UNIMPLEMENTED)):
            call = channel.unary_stream(method, request_serializer=bytes, response_deserializer=bytes)
            for content in (b"\xff", b"\x0a\xff", b"\x0a\x02\xc3\x28", b"\xa2\x06\x01x"):
                with pytest.raises(grpc.RpcError) as caught:
                    next(call(content, metadata=metadata, timeout=10))
                assert caught.value.code() is code  # type: ignore[attr-defined]  # a Call as well
            with pytest.raises(grpc.RpcError) as caught:
                next(call(bytes(100_000), metadata=metadata, timeout=10))
    with consumer(controller) as siem:
        siem.ready()


# -- who may


def test_who_has_no_good_token_stays_out_and_is_recorded(controller: Controller) -> None:
    good = token(controller)
    controller.client.call("DELETE", f"/api/tokens/{good[0]}")
    expired = token(controller, expires="1ms")[1]
    time.sleep(0.01)  # its life
    answers = {
        secret: refusal(address(controller), secret)
        for secret in ("", "nonsense", "cox_mon_" + "a" * 43, good[1], expired, token(controller, "readonly")[1])
    }
    codes = [code for code, _ in answers.values()]
    assert codes == [UNAUTHENTICATED] * 5 + [DENIED]
    assert len({answers[secret][1] for secret in ("cox_mon_" + "a" * 43, good[1], expired)}) == 1, "it says no more"
    found = audited(controller)
    assert [e["result"] for e in found] == ["error"] * 6
    assert found[0]["actor"] == "a readonly" and "monitor" in found[0]["error"]
    assert {e["source_ip"] for e in found} == {"127.0.0.1"}
    assert good[1] not in json.dumps(found)


def test_a_subscription_is_recorded_before_it_begins(controller: Controller) -> None:
    with Consumer(address(controller), token(controller, "admin")[1], ["connect"]) as siem:
        siem.ready()
        (record,) = audited(controller)
    assert (record["actor"], record["actor_kind"], record["target_type"]) == ("a admin", "token", "siem")
    assert record["detail"]["kinds"] == ["connect"]


def test_what_admins_alone_may_read_needs_an_admins_token(controller: Controller) -> None:
    code, text = refusal(address(controller), token(controller)[1], ["audit"])
    assert code is DENIED and "audit" in text
    with Consumer(address(controller), token(controller, "admin")[1], ["audit"]) as siem:
        siem.ready()
        controller.client.post("/api/nodes", {"name": "watched", "control_addr": an_addr()})
        actions = (json.loads(event.frame_json).get("action") for event in siem)
        assert "node.add" in iter(actions)


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_token_that_is_not_good_any_more_ends_its_stream(start: Start, how: str) -> None:
    controller = start(recheck_s=0.3)
    token_id, secret = token(controller, expires="6s" if how == "expired" else "")
    with Consumer(address(controller), secret) as siem, consumer(controller) as other:
        siem.ready()
        other.ready()
        if how == "revoked":
            controller.client.call("DELETE", f"/api/tokens/{token_id}")
        assert siem.end() == (UNAUTHENTICATED, "the token is not good any more")
        connect(controller, "p1")
        assert other.take(1)[0].type == "connect", "others stay"


def test_a_consumer_that_reads_nothing_is_cut_off_when_its_token_is_revoked(start: Start) -> None:
    controller = start(recheck_s=0.3)
    token_id, secret = token(controller)
    with Consumer(address(controller), secret, ["tree"]) as siem:
        siem.ready()
        publish(controller, "tree.big", 400, text="x" * 10_000)
        controller.client.call("DELETE", f"/api/tokens/{token_id}")
        assert siem.end()[0] is UNAUTHENTICATED
    eventually(lambda: counts(controller).consumers == 0)


# -- TLS


def test_tls_and_certificates_of_clients(start: Start, tmp_path: Path) -> None:
    ca = make_certificate(tmp_path / "pki", "ca", ca=True)
    cert, key = make_certificate(tmp_path / "pki", "server", ca)
    key.chmod(0o600)
    client = make_certificate(tmp_path / "pki", "client", ca)
    stranger = make_certificate(tmp_path / "pki", "stranger")
    controller = start(tls_cert=cert, tls_key=key, client_ca=ca[0])
    secret = token(controller)[1]

    def credentials(pair: tuple[Path, Path] | None) -> grpc.ChannelCredentials:
        files = (None, None) if pair is None else (pair[1].read_bytes(), pair[0].read_bytes())
        return grpc.ssl_channel_credentials(ca[0].read_bytes(), *files)

    with Consumer(address(controller), secret, credentials=credentials(client)) as siem:
        siem.ready()
        connect(controller, "p1")
        assert siem.take(1)[0].type == "connect"
    for pair in (None, stranger):
        assert refusal(address(controller), secret, credentials=credentials(pair))[0] is grpc.StatusCode.UNAVAILABLE
    assert refusal(address(controller), secret)[0] is grpc.StatusCode.UNAVAILABLE, "not encrypted"
    assert refusal(address(controller), "", credentials=credentials(client))[0] is UNAUTHENTICATED, "it needs both"


def test_a_renewed_certificate_is_used_without_a_restart(start: Start, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path / "pki")
    key.chmod(0o600)
    controller = start(tls_cert=cert, tls_key=key)
    old = grpc.ssl_channel_credentials(cert.read_bytes())
    secret = token(controller)[1]
    with Consumer(address(controller), secret, credentials=old) as siem:
        siem.ready()
        fresh = make_certificate(tmp_path / "fresh")
        fresh[1].chmod(0o600)
        fresh[0].replace(cert)
        fresh[1].replace(key)
        new = grpc.ssl_channel_credentials(cert.read_bytes())
        unshared = (("grpc.use_local_subchannel_pool", 1),)
        with Consumer(address(controller), secret, credentials=new, options=unshared) as second:
            second.ready()
        assert refusal(address(controller), secret, credentials=old, options=unshared)[0] is grpc.StatusCode.UNAVAILABLE
        connect(controller, "p1")
        assert siem.take(1)[0].type == "connect", "who is there stays"


@pytest.mark.parametrize("wrong", ["missing", "loose", "other"])
def test_files_that_are_no_good_are_said_and_tried_again(
    tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.siem.server._RETRY_S", 0.2)
    cert, key = make_certificate(tmp_path / "pki")
    key.chmod(0o644 if wrong == "loose" else 0o600)
    good = key.read_bytes()
    if wrong == "missing":
        key.unlink()
    elif wrong == "other":
        key.write_bytes(make_certificate(tmp_path / "other")[1].read_bytes())
    config = f"{PERSONAL}siem: {{listen: '127.0.0.1:{free_port()}', tls_cert: '{cert}', tls_key: '{key}'}}\n"
    with lone_controller(tmp_path, config=config) as controller:
        problem = eventually(lambda: counts(controller).problem)
        assert "siem.tls_key" in problem and not counts(controller).listening
        controller.client.get("/api/nodes")  # everything else works
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(good)
        eventually(lambda: counts(controller).listening)
        assert counts(controller).problem == ""


def test_not_encrypted_is_for_loopback_alone(tmp_path: Path) -> None:
    def check(siem: str) -> None:
        (tmp_path / "c.yaml").write_text(f"posture: personal\nstate_dir: ./state\nsiem: {siem}\n")
        load(tmp_path / "c.yaml", {})

    for good in ("{listen: '127.0.0.1:9443'}", "{listen: '[::1]:9443'}", "{listen: ':9443', tls_cert: a, tls_key: b}"):
        check(good)
    for bad in ("{listen: ':9443'}", "{listen: '0.0.0.0:9443'}", "{listen: '10.0.0.1:9443'}"):
        with pytest.raises(InvalidInput, match=r"siem\.listen"):
            check(bad)
    with pytest.raises(InvalidInput, match=r"siem\.tls_key is missing"):
        check("{listen: ':9443', tls_cert: a}")
    with pytest.raises(InvalidInput, match=r"siem\.client_ca"):
        check("{listen: '127.0.0.1:9443', client_ca: a}")


def test_a_port_that_is_taken_harms_nobody_else_and_is_tried_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.siem.server._RETRY_S", 0.2)
    controller = start()
    controller.stop()
    host, _, port = address(controller).rpartition(":")
    with socket.create_server((host, int(port))):
        controller.start()
        assert "port taken" in eventually(lambda: counts(controller).problem)
        controller.client.get("/api/nodes")
    eventually(lambda: counts(controller).listening)


# -- coming back, and falling behind


def test_who_comes_back_with_a_cursor_misses_nothing_and_gets_nothing_twice(controller: Controller) -> None:
    with consumer(controller) as siem:
        siem.ready()
        connect(controller, "p1", "p2")
        recorded(controller, 2)
        publish(controller, "alert", alert=ALERT)
        first = siem.take(3)
    disconnect(controller, "p1")
    recorded(controller, 3)
    publish(controller, "alert", alert=ALERT | {"id": "alr_later"})
    recorded(controller, 3)
    for position, event in enumerate(first):
        with consumer(controller, cursor=event.cursor) as again:
            rest = again.take(len(first) - position - 1 + 2)
        assert rest[-2].session.peer_id + rest[-2].alert.id + rest[-1].session.peer_id + rest[-1].alert.id
        assert {e.alert.id for e in rest} >= {"alr_later"} and ("disconnect", "p1") in pairs(rest)
        assert rest[: len(first) - position - 1] == first[position + 1 :]


def test_the_first_cursor_comes_before_any_event(controller: Controller) -> None:
    with consumer(controller) as siem:
        cursor = siem.ready()["cox-cursor"]
    connect(controller, "p1")
    with consumer(controller, cursor=cursor) as siem:
        assert pairs(siem.take(1)) == [("connect", "p1")]


def test_connects_and_disconnects_of_while_the_daemon_was_down_come_from_the_store(start: Start) -> None:
    controller = start()
    with consumer(controller) as siem:
        siem.ready()
        connect(controller, "p0")
        (last,) = siem.take(1)
    connect(controller, *(f"q{n}" for n in range(700)))
    recorded(controller, 701)
    controller.stop()
    controller.start()
    eventually(lambda: counts(controller).listening)
    with consumer(controller, cursor=last.cursor, marks=True) as siem:
        told = siem.take(701)
        assert told[0].type == "gap" and told[0].gap.reason == "restart" and told[0].gap.count_unknown, "for alerts"
        assert pairs(told[1:]) == [("connect", f"q{n}") for n in range(700)]
        half = told[350].cursor
        connect(controller, "after")
        assert pairs(siem.take(1)) == [("connect", "after")]
    with consumer(controller, "connect", cursor=half) as siem:
        assert pairs(siem.take(351)) == [*(("connect", f"q{n}") for n in range(350, 700)), ("connect", "after")]


def test_a_consumer_that_does_not_read_costs_nothing_and_is_told_what_it_missed(controller: Controller) -> None:
    with (
        consumer(controller, "connect", "tree", marks=True) as slow,
        consumer(controller, "connect") as quick,
    ):
        slow.ready()
        quick.ready()
        published = 0
        for _ in range(20):
            publish(controller, "tree.big", 1_000, text="x" * 1_000)
            published += 1_000
        connect(controller, *(f"p{n}" for n in range(30)))
        assert pairs(quick.take(30)) == [("connect", f"p{n}") for n in range(30)], "nobody waits for the slow one"
        publish(controller, "tree.end")
        told, dropped, peers = 0, 0, []
        for event in slow:
            if event.type == "gap":
                assert event.gap.reason == "behind" and not event.gap.count_unknown
                dropped += event.gap.dropped
            elif event.type == "connect":
                peers.append(event.session.peer_id)
            elif json.loads(event.frame_json)["kind"] == "tree.end":
                break
            else:
                told += 1
        assert dropped > 0 and told + dropped == published, "each was told or counted"
        if len(peers) < 30:  # those that come from the ring come after it
            peers += [event.session.peer_id for event in slow.take(30 - len(peers))]
        assert peers == [f"p{n}" for n in range(30)], "what the store has is never dropped"
    assert counts(controller).dropped == dropped
    status = controller.client.get("/api/analytics/status")
    assert status["siem_events_dropped"] == status["dropped"]["siem"] == dropped


def test_existing_consumers_never_see_marks(start: Start) -> None:
    controller = start()
    with consumer(controller) as plain, consumer(controller, marks=True) as modern:
        plain.ready()
        modern.ready()
        publish(controller, "dropped", count=None, reason="restart")
        connect(controller, "p1")
        assert [event.type for event in modern.take(2)] == ["gap", "connect"]
        assert [event.type for event in plain.take(1)] == ["connect"]


def test_a_quiet_stream_shows_that_it_lives(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.tree.MonitorServer", functools.partial(MonitorServer, heartbeat_s=0.1))
    controller = start()
    with consumer(controller, marks=True) as siem:
        cursor = siem.ready()["cox-cursor"]
        beats = siem.take(2)
    assert [event.type for event in beats] == ["heartbeat"] * 2
    assert Cursor.parse(beats[0].cursor).seq >= Cursor.parse(cursor).seq
    assert not beats[0].HasField("session") and not beats[0].HasField("alert")


# -- failure, and the end


@pytest.mark.parametrize("how", ["raise", "exit", "vanish", "fail_start"])
def test_streams_live_on_when_the_actor_falls(controller: Controller, how: str) -> None:
    with consumer(controller) as siem:
        siem.ready()
        before = _incarnation(controller)
        if how == "fail_start":
            controller.system.fail_next_start("siem_stream")
        assert controller.system.harm("siem_stream", Harm.RAISE if how == "fail_start" else Harm(how))
        eventually(lambda: _incarnation(controller) > before)
        connect(controller, "p1")
        assert siem.take(1)[0].type == "connect"
    with consumer(controller) as siem:
        siem.ready()


def _incarnation(controller: Controller) -> int:
    found = [c for c in controller.client.get("/api/tree")["children"] if c["id"] == "siem_stream"]
    return int(found[0]["incarnation"]) if found and found[0]["state"] == "running" else 0


def test_a_new_loop_means_a_new_server_and_consumers_resume(controller: Controller) -> None:
    with consumer(controller) as siem:
        siem.ready()
        connect(controller, "p1")
        (seen,) = siem.take(1)
        assert controller.system.harm("io_loop", Harm.RAISE)
        assert siem.end()[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
    eventually(lambda: counts(controller).listening)
    connect(controller, "p2")
    with consumer(controller, cursor=seen.cursor) as siem:
        assert pairs(siem.take(1)) == [("connect", "p2")]


def test_the_hub_restarts_and_nothing_that_is_in_the_store_is_missed(controller: Controller) -> None:
    with consumer(controller, "connect", "disconnect") as siem:
        siem.ready()
        for turn in range(3):
            assert controller.system.harm("event_hub", Harm.RAISE)
            connect(controller, *(f"p{turn}-{n}" for n in range(50)))
        told = siem.take(150)
    assert pairs(told) == [("connect", f"p{turn}-{n}") for turn in range(3) for n in range(50)]


def test_only_so_many_consumers(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.siem.server._MOST", 2)
    with consumer(controller) as first, consumer(controller) as second:
        first.ready()
        second.ready()
        code, text = refusal(address(controller), token(controller)[1])
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "2" in text
    eventually(lambda: counts(controller).consumers == 0)
    with consumer(controller) as again:
        again.ready()


def test_there_is_no_actor_and_no_figure_without_an_address(tmp_path: Path) -> None:
    with lone_controller(tmp_path) as controller:
        assert "siem_stream" not in {c["id"] for c in controller.client.get("/api/tree")["children"]}


def test_figures(controller: Controller) -> None:
    with consumer(controller) as siem:
        siem.ready()
        connect(controller, "p1")
        siem.take(1)
        found = eventually(lambda: counts(controller).sent == 1 and _metrics(controller))
    assert "coxswain_siem_listening 1.0" in found and "coxswain_siem_consumers 1.0" in found
    assert "coxswain_siem_events_total 1.0" in found and "coxswain_siem_events_dropped_total 0.0" in found


def _metrics(controller: Controller) -> str:
    web = Web(controller.listen)
    web.token = token(controller)[1]
    return web.get("/metrics").body.decode()


def test_sigterm_ends_open_streams_and_the_daemon(tmp_path: Path) -> None:
    """The existing controller hangs here (management-plane.md 5)."""
    daemon = Daemon(tmp_path)
    listen = f"127.0.0.1:{free_port()}"
    path = tmp_path / "cox.yaml"
    path.write_text(path.read_text() + f"siem:\n  listen: {listen}\n")
    daemon.start()
    try:
        client = daemon.client()
        secret = client.post("/api/tokens", {"name": "siem", "scope": "monitor"})["secret"]
        with Consumer(listen, secret) as reading, Consumer(listen, secret) as idle:
            reading.ready()
            idle.ready()
            began = time.monotonic()
            assert daemon.stop() in (0, 128 + signal.SIGTERM)
            assert time.monotonic() - began < 30
            code, text = reading.end()
            assert code is grpc.StatusCode.UNAVAILABLE and "come back" in text
        client.close()
    finally:
        daemon.kill()
