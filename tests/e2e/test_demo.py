"""``tools/demo`` as a newcomer runs it: it heals what it breaks, ends by itself, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from coxswain.cli.client import Client, socket_path
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]


def start(scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    """The demo itself, without the set-up of ``tools/demo``, which has happened when tests run."""
    return subprocess.Popen(
        [sys.executable, ROOT / "tools/demo.py", *arguments],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=scratch,
    )


def on_a_terminal(scratch: Path, *arguments: str) -> tuple[int, str]:
    """The demo as most people meet it. Returns its exit status and all that it wrote."""
    master, slave = pty.openpty()
    demo = subprocess.Popen(
        [sys.executable, ROOT / "tools/demo.py", *arguments],
        env={**os.environ, "TMPDIR": str(scratch), "TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=scratch,
    )
    os.close(slave)
    written = b""
    try:
        while chunk := _read(master):
            written += chunk
        return demo.wait(60), written.decode(errors="replace")
    finally:
        demo.kill()
        demo.wait()
        os.close(master)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:  # the other side has closed it
        return b""


def of(scratch: Path) -> list[str]:
    """Command lines of processes that work in ``scratch``."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{scratch}/" in words:
            lines.append(words)
    return lines


def test_it_shows_what_broke_and_healed_and_leaves_nothing(tmp_path: Path) -> None:
    demo = start(tmp_path, "--json", "--chaos", "--nodes", "3", "--seconds", "14", "--seed", "3")
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, err
    result = json.loads(out)
    assert result["nodes"] == result["live"] == 3
    assert result["sessions_opened"] > 0
    assert result["failures_injected"] > 0
    assert result["healed"] == result["failures_injected"]
    assert 0 < result["heal_seconds_max"] < 30
    assert list(tmp_path.iterdir()) == [] and of(tmp_path) == []


def test_on_a_terminal_it_draws_the_fleet_and_what_happens(tmp_path: Path) -> None:
    status, written = on_a_terminal(tmp_path, "--chaos", "--nodes", "2", "--seconds", "14", "--seed", "3")
    assert status == 0, written[-3_000:]
    assert "Traceback" not in written
    drawn, _, after = written.rpartition("\x1b[?1049l")
    for shown in ("ams-1", "fra-1", "REVISION", "2 in sync", "node.link", "PEER_CONNECTED", "chaos"):
        assert shown in drawn, shown
    assert "2 of 2 nodes live" in after and "nothing left behind" in after, "the screen is given back first"
    assert list(tmp_path.iterdir()) == [] and of(tmp_path) == []


def test_ended_at_any_moment_it_takes_everything_with_it(tmp_path: Path) -> None:
    demo = start(tmp_path, "--json", "--nodes", "2", "--seconds", "60")
    eventually(lambda: any(" serve " in line for line in of(tmp_path)), timeout=30)
    time.sleep(0.2)  # a moment like any other: the daemon is there and does not answer yet
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == [] and of(tmp_path) == []


def test_two_at_once_do_not_meet_and_cox_reaches_either(tmp_path: Path) -> None:
    demos = [start(tmp_path, "--nodes", str(nodes), "--seconds", "120") for nodes in (2, 3)]
    try:
        for nodes, demo in zip((2, 3), demos, strict=True):
            assert demo.stdout is not None
            lines: list[str] = []
            while not lines or not lines[-1].startswith("In another terminal: "):
                line = demo.stdout.readline()
                assert line, (lines, demo.communicate())
                lines.append(line)
            command = f"{lines[-1].removeprefix('In another terminal: ').strip()} --json"
            asked = command.replace("nodes list", "doctor")
            doctor = subprocess.run(asked, shell=True, capture_output=True, text=True, check=False, cwd=tmp_path)
            found = {finding["check"]: finding["level"] for finding in json.loads(doctor.stdout)["findings"]}
            assert found["dashboard"] == "ok", doctor.stdout
            listed = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, cwd=tmp_path)
            assert [node["in_sync"] for node in json.loads(listed.stdout)] == [True] * nodes
            there = inhabitants(lines[-1].partition("COX_CONFIG=")[2].split()[0])
            assert there == {"users": 12, "devices": 6 * nodes, "paths": [2, 3][: nodes - 1], "relay": ["listening"]}
    finally:
        for demo in demos:
            demo.send_signal(signal.SIGTERM)
            demo.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == [] and of(tmp_path) == []


def inhabitants(config: str) -> dict[str, object]:
    """Who and what is in a demo's fleet besides its nodes."""
    client = Client(socket_path(Path(config)))
    return {
        "users": len(client.get("/api/users")),
        "devices": len(client.get("/api/devices")),
        "paths": sorted(len(path["hops"]) for path in client.get("/api/paths")),
        "relay": [relay["tunnel"] for relay in client.get("/api/relays")],
    }


def test_it_is_called_as_people_call_it(tmp_path: Path) -> None:
    demo = start(tmp_path, "--nodes", "0")
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert "Usage: tools/demo " in err and "1<=x<=5000" in err
