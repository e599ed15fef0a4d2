"""What a terminal gets: colours only where they are wanted, a clean screen afterwards, and nothing of a node's making."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from coxswain.cli.live import Picture, on_screen, render
from coxswain.cli.output import as_json_text, clean, columns, facts, table
from coxswain.messages.audit import Caller
from coxswain.messages.servers import PutServer
from tests.fleet import Controller
from tests.support import an_addr, eventually

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFfO0ZtHt4P2SJUA157w8YSDWtv2g0faqFpBtbTDCuIV"
ALT_SCREEN, MAIN_SCREEN, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """``cox`` on a terminal of its own."""

    def __init__(self, controller: Controller, *arguments: str, **environ: str) -> None:
        self._master, slave = pty.openpty()
        config = str(controller.home.parent / "cox.yaml")
        self.process = subprocess.Popen(
            # Where the tests run in the background, Ctrl-C is ignored, and children inherit that.
            ["env", "--default-signal=INT", sys.executable, "-m", "actors.main", *arguments, "--config", config],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=Path(__file__).resolve().parents[3],
            env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", **environ},
            start_new_session=True,
        )
        os.close(slave)
        self.screen = b""

    def read(self) -> bytes:
        """Takes in what was written since; returns everything so far."""
        while select.select([self._master], [], [], 0.02)[0]:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # the other side has closed it
                break
            if not chunk:
                break
            self.screen += chunk
        return self.screen

    def end(self, timeout: float = 20.0) -> int:
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.screen[-2000:]
            self.read()
        self.read()
        assert self.process.returncode is not None
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(controller: Controller, *arguments: str, **environ: str) -> Iterator[Terminal]:
    opened = Terminal(controller, *arguments, **environ)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def node(controller: Controller) -> str:
    if not any(n["name"] == "seen" for n in controller.client.get("/api/nodes")):
        controller.client.post("/api/nodes", {"name": "seen", "control_addr": an_addr()})
    return "seen"


@pytest.mark.usefixtures("node")
def test_colours_only_for_terminals_that_want_them(controller: Controller) -> None:
    with terminal(controller, "nodes", "list") as colourful:
        assert colourful.end() == 0
        assert b"\x1b[36mpending\x1b[0m" in colourful.screen
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with terminal(controller, "nodes", "list", **environ) as plain:
            assert plain.end() == 0
            assert b"pending" in plain.screen and b"\x1b" not in plain.screen


@pytest.mark.usefixtures("node")
def test_watch_shows_the_fleet_and_gives_the_screen_back(controller: Controller) -> None:
    with terminal(controller, "watch", "--seconds", "1") as watching:
        assert watching.end() == 0
        assert ALT_SCREEN in watching.screen
        assert b"seen" in watching.screen and b"sessions" in watching.screen
        assert MAIN_SCREEN in watching.screen.rpartition(ALT_SCREEN)[2]
        assert SHOW_CURSOR in watching.screen


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_watch_can_be_interrupted(controller: Controller, number: signal.Signals, code: int) -> None:
    with terminal(controller, "watch") as watching:
        eventually(lambda: b"seen" in watching.read())
        watching.process.send_signal(number)
        assert watching.end() == code
        after = watching.screen.rpartition(ALT_SCREEN)[2]
        assert MAIN_SCREEN in after and SHOW_CURSOR in after
        assert b"Traceback" not in watching.screen


def test_an_interrupt_while_the_screen_is_taken_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=30, legacy_windows=False)

    class Interrupted(Live):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, console=console, auto_refresh=False, **more)

        def refresh(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("coxswain.cli.live.Live", Interrupted)
    with pytest.raises(KeyboardInterrupt), on_screen(Picture(status(live=1), [node_row("a")])):
        pass
    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue().encode()
    assert MAIN_SCREEN in written.partition(ALT_SCREEN)[2] and SHOW_CURSOR in written


@pytest.mark.usefixtures("node")
def test_removing_asks_first(controller: Controller) -> None:
    controller.client.post("/api/nodes", {"name": "asked-about", "control_addr": "192.0.2.9"})
    with terminal(controller, "nodes", "remove", "asked-about") as asking:
        eventually(lambda: b"Remove asked-about (192.0.2.9:8444)? [y/N]" in asking.read())
        os.write(asking._master, b"n\n")
        assert asking.end() == 1
    assert controller.node("asked-about")
    with terminal(controller, "nodes", "remove", "asked-about") as asking:
        eventually(lambda: b"[y/N]" in asking.read())
        os.write(asking._master, b"y\n")
        assert asking.end() == 0
    assert "asked-about" not in {n["name"] for n in controller.client.get("/api/nodes")}


@pytest.mark.usefixtures("node")
def test_removing_a_machine_asks_first(controller: Controller) -> None:
    def machines(*hosts: str) -> list[str]:
        for host in hosts:
            put = PutServer(Caller("tests", "system"), host, 22, "root", HOST_KEY, name=f"m-{host}")
            controller.system.ask("servers", put, deadline=30)
        return [s["ssh_host"] for s in controller.client.get("/api/servers")]

    assert len(machines("192.0.2.50", "192.0.2.51")) == 2
    for answer, code, left in ((b"n\n", 1, 2), (b"y\n", 0, 1)):
        with terminal(controller, "servers", "rm", "m-192.0.2.50") as asking:
            eventually(lambda: b"Remove m-192.0.2.50 (192.0.2.50) from the inventory? [y/N]" in asking.read())
            os.write(asking._master, answer)
            assert asking.end() == code
        assert len(machines()) == left
    with terminal(controller, "servers", "rm", "m-192.0.2.51", "--yes") as silent:
        assert silent.end() == 0
    assert machines() == []


def test_whoever_is_asked_for_a_password_is_told_of_the_key(controller: Controller) -> None:
    """Unless it was asked for by ``--password``."""
    for more, is_told in (((), True), (("--password",), False)):
        host_key = f"SHA256:{'A' * 43}"
        with terminal(controller, "servers", "add", "192.0.2.70", "--host-key", host_key, *more) as asking:
            eventually(lambda: b"One-time password" in asking.read())
            assert (b"say --key" in asking.read()) is is_told
            asking.process.send_signal(signal.SIGINT)
            assert asking.end() == 1
    assert controller.client.get("/api/operations?kind=server.add") == []


def test_watch_for_programs_is_one_object_a_line(controller: Controller) -> None:
    command = [sys.executable, "-m", "actors.main", "watch", "--json", "--seconds", "1.2"]
    controller.client.post("/api/nodes", {"name": "told-of", "control_addr": an_addr()})
    config = str(controller.home.parent / "cox.yaml")
    done = subprocess.run([*command, "--config", config], capture_output=True, text=True, timeout=30, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(e.get("kind") == "node.changed" and e["name"] == "told-of" for e in events)
    assert [e["seq"] for e in events] == sorted({e["seq"] for e in events})
    without = subprocess.run(
        [*command[:-3], "--config", config],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert without.returncode == 2 and "cox watch --json" in without.stderr


def test_who_reads_only_the_beginning_gets_no_complaint(controller: Controller) -> None:
    config = str(controller.home.parent / "cox.yaml")
    line = f'"{sys.executable}" -m actors.main tree --json --config {config} | head -c 10'
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""


# -- pure functions from here on


HOSTILE = "\x1b]0;owned\x07\x9b31m\r\n[red]\u202e"


def test_control_sequences_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table(["A", "B"], [[HOSTILE, "x"], ["y", [HOSTILE]]])
    facts([("a", HOSTILE), ("b", [HOSTILE])])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert not set(out) & {"\x1b", "\x07", "\x9b", "\r", "\u202e"}
    assert "[red]" in out
    text = as_json_text({"name": HOSTILE, "other": "Zoë\x7f"}, indent=2)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert json.loads(text) == {"name": HOSTILE, "other": "Zoë\x7f"}
    assert clean("Zoë 渡し守") == "Zoë 渡し守"
    assert clean("it died:\nout of memory\r\n\n") == "it died: | out of memory"


def test_columns_stand_below_each_other_whatever_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["plain", "日本語", "🦊 fox", "e\u0301clair", "ثعلب"]
    table(["NAME", "STATUS"], [[name, "active"] for name in names])
    heading, *rows = capsys.readouterr().out.splitlines()
    places = {columns(row[: row.index("active")]) for row in rows}
    assert places == {heading.index("STATUS")}
    assert [columns(name) for name in names] == [5, 6, 6, 6, 4]


def status(**by_state: int) -> dict[str, Any]:
    nodes = sum(by_state.values())
    fleet = {"nodes": nodes, "in_sync": by_state.get("live", 0), "by_link_state": by_state}
    return {"fleet": fleet, "sessions": {"active": 5}, "restarts": 2}


def node_row(name: str, **more: Any) -> dict[str, Any]:
    row = {
        "id": f"nod_{name}",
        "name": name,
        "region": "fra",
        "status": "active",
        "link_state": "live",
        "applied_revision": 3,
        "config_revision": 4,
        "peers_online": 5,
        "peers_configured": 6,
        "link_reason": "",
        "findings": [],
    }
    return row | more


def drawn(picture: Picture, *, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"), color_system=None)  # noqa: SIM115, PTH123
    with console.file:
        console.print(render(picture))
        return console.export_text()


def test_a_frame_has_counts_nodes_and_events() -> None:
    nodes = [node_row("a"), node_row("b", link_state="backing_off", link_reason="connection refused")]
    picture = Picture(status(live=1, backing_off=1), nodes, events_per_s=12.3, feed_rows=20)
    at = "2026-01-02T03:04:05.678Z"
    events = [
        {
            "type": "PEER_CONNECTED",
            "at": at,
            "node_id": "nod_a",
            "device_id": "dev_1",
            "peer_id": "k",
            "source_endpoint": "1.2.3.4:5",
        },
        {
            "type": "PEER_DISCONNECTED",
            "at": at,
            "node_id": "nod_a",
            "peer_id": "keykeykey",
            "reason": "idle",
        },
        {"type": "dropped", "at": at, "count": None},
        {"type": "inventory", "kind": "inventory", "at": at, "action": "node.add", "object": "node", "id": "nod_b"},
        {
            "type": "audit",
            "kind": "audit",
            "at": at,
            "actor": "eve",
            "action": "node.add",
            "target_id": "nod_b",
            "result": "ok",
        },
        {
            "type": "status",
            "kind": "node.link",
            "at": at,
            "node_id": "nod_b",
            "link_state": "backing_off",
            "reason": "refused",
        },
        {"kind": "node.status", "at": at, "node_id": "nod_b", "was": "active", "status": "unreachable"},
        {"kind": "tree.crashed", "at": at, "actor": "fleet", "incarnation": 1, "reason": "boom"},
        {"kind": "tree.hung", "at": at, "actor": "node_link:nod_b", "incarnation": 1, "reason": "stuck"},
        {"kind": "tree.hung", "at": at, "actor": "node_link:nod_gone", "incarnation": 1, "reason": "stuck"},
        {"type": "dropped", "count": 12},
        {"kind": "of.tomorrow", "at": at},
    ]
    picture.take_events(events)
    text = drawn(picture)
    for said in (
        "2 nodes",
        "1 live",
        "1 backing off",
        "1 in sync",
        "5 sessions",
        "12 events/s",
        "3/4",
        "5/6",
        "connection refused",
        "03:04:05  PEER_CONNECTED    dev_1 from 1.2.3.4:5 on a",
        "03:04:05  PEER_DISCONNECTED keykeyke on a: idle",
        "some events may be missing",
        "node.add: node b",
        "eve: node.add b ok",
        "b: backing off: refused",
        "b: active → unreachable",
        "fleet: boom",
        "link of b: stuck",
        "node_link:nod_gone: stuck",
        "12 events came faster",
    ):
        assert said in text, said
    assert "of.tomorrow" not in text


def test_troubled_nodes_come_first_and_the_rest_are_counted() -> None:
    nodes = [node_row(f"n{i:03}") for i in range(50)] + [node_row("zz", link_state="degraded")]
    text = drawn(Picture(status(live=50, degraded=1), nodes, rows=3))
    lines = [line for line in text.splitlines() if "fra" in line]
    assert len(lines) == 3 and "zz" in lines[0] and "n000" in lines[1]
    assert "and 48 more: 48 live" in text
    assert lines[0].index("fra") < 12, "what is beside the table makes no column of it wider"


def test_where_to_log_in_is_whole_in_a_terminal_of_80_columns() -> None:
    note = "http://127.0.0.1:46639 · admin h4wilqxnvwjgfaqeiscmsee2"
    text = drawn(
        Picture(status(live=1), [node_row("a")], title="coxswain · demo, 1m 24s left · Ctrl-C ends", note=note), width=80
    )
    assert note in text and "Ctrl-C ends" in text


def test_a_node_cannot_draw_on_the_view() -> None:
    picture = Picture(status(live=1), [node_row("n", link_state="degraded", link_reason=HOSTILE, region="[bold]x")])
    picture.title = "[red]title"
    picture.take_events(
        [{"kind": "node.link", "at": None, "node_id": "?", "name": HOSTILE, "link_state": "live", "reason": ""}]
    )
    text = drawn(picture)
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\r", "\u202e"}
    assert "[bold]x" in text and "[red]title" in text


def test_a_frame_fits_any_terminal() -> None:
    nodes = [node_row("a-name-of-a-node-that-is-rather-long" * 2, link_reason="words " * 100)]
    for width in (20, 40, 80, 200):
        lines = drawn(Picture(status(live=1), nodes), width=width).splitlines()
        assert max(len(line) for line in lines) <= width
