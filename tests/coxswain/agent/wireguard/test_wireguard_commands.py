"""Running tools: what they get, what they may cost, what is told of them."""

import asyncio
import os
import sys

import pytest

from coxswain.agent.wireguard import commands
from coxswain.agent.wireguard.commands import Outcome, Runner, ToolFailed, ToolMissing

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


async def test_streams_and_status():
    ended = await Runner()("sh", "-c", "cat /dev/stdin; echo no >&2; exit 3", stdin="in\n")
    assert (ended.ok, ended.status, ended.output, ended.errors) == (False, 3, "in\n", "no\n")
    assert (await Runner()("cat")).output == "", "nothing to read unless it is given"


async def test_a_large_input_and_output_pass():
    text = "x" * 3_000_000
    assert (await Runner()("cat", "/dev/stdin", stdin=text)).output == text


async def test_a_missing_tool_is_named(tmp_path):
    with pytest.raises(ToolMissing, match="no-such-tool"):
        await Runner()("no-such-tool")
    (tmp_path / "data").write_text("no program")
    with pytest.raises(ToolMissing, match="data"):
        await Runner()(str(tmp_path / "data"))


async def test_a_hung_tool_is_ended_with_all_that_it_started(t, tmp_path):
    child = tmp_path / "child"
    ended = await Runner()("sh", "-c", f"sleep 600 & echo $! > {child}; wait", timeout=2)
    assert not ended.ok
    assert "ended after" in ended.complaint()
    pid = int(child.read_text())
    await t.eventually(lambda: not _runs(pid))


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - procfs
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_tool_that_floods_is_ended(monkeypatch):
    monkeypatch.setattr(commands, "OUTPUT_LIMIT", 100_000)
    ended = await Runner()("sh", "-c", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")
    assert not ended.ok
    assert len(ended.output) == 100_000
    assert "bytes of output" in ended.complaint()


async def test_a_daemon_that_keeps_the_streams_open_does_not_hold_up_the_end(monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "LINGER_S", 0.05)
    pid = tmp_path / "pid"
    async with asyncio.timeout(30):
        ended = await Runner()("sh", "-c", f"sleep 600 & echo $! > {pid}; echo started")
    assert (ended.ok, ended.output) == (True, "started\n")
    os.kill(int(pid.read_text()), 9)


async def test_a_caller_that_goes_away_leaves_the_tool_to_its_end(tmp_path):
    runner, go, done = Runner(), tmp_path / "go", tmp_path / "done"
    task = asyncio.create_task(runner("sh", "-c", f"while [ ! -e {go} ]; do sleep 0.02; done; echo > {done}"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.write_text("")
    await runner.close()
    assert done.exists()


async def test_a_signal_to_the_agents_group_does_not_reach_a_tool():
    ended = await Runner()(sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())")
    assert ended.output == "True\n"


def test_complaints_hold_no_keys_and_are_short():
    argv = ("awg", "set", "awg0", "peer", KEY, "preshared-key", "/dev/stdin", "allowed-ips", "10.7.0.2/32")
    errors = (
        f"[#] awg setconf\nPresharedKey = {KEY}\nprivate key: {KEY}\nKey is not the correct length: `{KEY}'\n{'x y ' * 1000}"
    )
    with pytest.raises(ToolFailed) as caught:
        Outcome(argv, 1, "", errors).check()
    text = str(caught.value)
    assert text.startswith("awg set awg0 peer AAAAAAAA… allowed-ips 10.7.0.2/32: exit status 1: ")
    assert KEY not in text
    assert len(text) < 600
    assert KEY not in repr(Outcome(("awg",), 1, KEY, KEY))
    assert "signal 9" in Outcome(("awg",), -9).complaint()
    short = Outcome(argv, 1, "", f"[#] trace\nPresharedKey = {KEY}\nKey is bad: `{KEY}'\n").complaint()
    assert short.endswith("exit status 1: (withheld) Key is bad: `AAAAAAAA…'")
