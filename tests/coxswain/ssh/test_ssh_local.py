"""The controller's own machine: the same promises without SSH."""

from __future__ import annotations

import stat
import threading

import pytest

from coxswain.errors import DeadlineExceeded, NodeUnreachable
from coxswain.ssh import CommandFailed, LocalHost


def test_commands_and_files(tmp_path):
    host = LocalHost()
    assert host.run("echo out; echo err >&2").stdout == "out\n"
    with pytest.raises(CommandFailed, match="this machine: it failed"):
        host.run("exit 3", what="it")
    assert host.run("wc -c", stdin=b"x" * 500_000).stdout.strip() == "500000"
    path = tmp_path / "a dir/it's"
    host.put(str(path), b"content", 0o640)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"content", 0o640)
    assert host.read(str(path)) == b"content"
    assert host.read(str(tmp_path / "none")) is None
    assert [p.name for p in path.parent.iterdir()] == ["it's"]


def test_deadline_and_close():
    host = LocalHost()
    with pytest.raises(DeadlineExceeded):
        host.execute("sleep 30", deadline=0.2)
    threading.Timer(0.2, host.close).start()
    with pytest.raises(NodeUnreachable, match="closed"):
        host.execute("sleep 30")
    with pytest.raises(NodeUnreachable, match="closed"):
        host.execute("true")
