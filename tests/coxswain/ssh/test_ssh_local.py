"""The controller's own machine: the same promises without SSH."""

from __future__ import annotations

import stat
import threading
from typing import Any

import pytest

from coxswain.errors import DeadlineExceeded, NodeFailure, NodeUnreachable
from coxswain.onboarding.access import facts_of
from coxswain.ssh import CommandFailed, LocalHost, SentFile


class Begun(LocalHost):
    """Its login shell does something before each command, as start-up files have it."""

    def __init__(self, rc: str) -> None:
        super().__init__()
        self._rc = rc

    def execute(self, command: str, **how: Any) -> Any:
        return super().execute(f"{self._rc}\n{command}", **how)


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


def test_files_and_what_follows_them_are_one_command(tmp_path):
    host, made, ran = LocalHost(), tmp_path / "made here", []
    execute = host.execute
    host.execute = lambda command, **how: ran.append(command) or execute(command, **how)
    contents = {"one": b"1\n\0" * 70_000, "it's two": b"no line end", "none": b"", "three": b"3"}
    files = [SentFile(f"{made}/{name}", content, 0o640) for name, content in contents.items()]
    done = host.put_and_run(files, f"echo one; umask; cat '{made}/three' >&2", what="showing them")
    assert (done.code, done.stdout, done.stderr) == (0, "one\n0022\n", "3")
    assert {path.name: path.read_bytes() for path in made.iterdir()} == contents
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {0o640}
    assert len(ran) == 1
    assert host.put_and_run([], "echo nothing before it").stdout == "nothing before it\n"


def test_what_a_login_shell_prints_before_a_command_is_none_of_its_output(tmp_path):
    greeting = "echo Welcome to example.net; echo 'arch=z80'; echo complaint >&2; printf 'no end of line'"
    host, path = Begun(greeting), tmp_path / "x"
    assert host.run("echo out").stdout == host.ask("echo out").stdout == "out\n"
    host.put(str(path), b"content", 0o600)
    assert host.read(str(path)) == b"content"
    assert host.put_and_run([SentFile(str(path), b"other", 0o600)], "echo done").stdout == "done\n"
    with pytest.raises(CommandFailed, match="trying it out failed"):
        host.put_and_run([SentFile(str(path), b"x", 0o600)], "exit 45", what="trying it out")
    host.absent = set()
    facts = facts_of(host)
    assert facts["user"] == "root" and facts["arch"] != "z80"


def test_a_login_shell_that_runs_nothing_says_why(tmp_path):
    host = Begun("echo This account is currently not available.; exit 1")
    with pytest.raises(CommandFailed, match=r"it failed \(exit code 1\): This account is currently not available\.$"):
        host.run("true", what="it")
    with pytest.raises(NodeFailure, match="This account is currently not available"):
        facts_of(host)


def test_directories_that_are_made_for_files_are_for_everybody(tmp_path):
    """``/usr/local/bin``, say: agents run as users of their own."""
    Begun("umask 077").put(f"{tmp_path}/a/b/secret", b"x", 0o600)
    assert [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b", "a/b/secret")] == [0o755, 0o755, 0o600]


@pytest.mark.parametrize("lacking", ["sha256sum", "openssl"])
@pytest.mark.parametrize("size", [9, 2_000_000])
def test_one_program_that_makes_digests_is_enough(tmp_path, lacking, size):
    (tmp_path / lacking).write_text(f"#!/bin/sh\necho {lacking}: not found >&2; exit 127\n")
    (tmp_path / lacking).chmod(0o755)
    host, path = Begun(f"PATH={tmp_path}:$PATH"), tmp_path / "file"
    host.put(str(path), b"x" * size, 0o600)
    assert path.stat().st_size == size
    damaged = SentFile(str(path), b"y" * size, 0o600)
    damaged.digest = "0" * 64
    with pytest.raises(NodeFailure, match="did not arrive whole"):
        host.put_and_run([damaged])
    assert path.read_bytes()[:1] == b"x"


def test_roots_tools_are_found_by_a_shell_that_does_not_look_where_they_are():
    host = Begun("PATH=/usr/bin:/bin")
    assert host.run("command -v useradd").stdout == "/usr/sbin/useradd\n"
    assert host.ask("command -v sh").stdout in {"/usr/bin/sh\n", "/bin/sh\n"}, "its own come first"


def test_what_follows_fails_in_its_own_name_and_the_files_stay(tmp_path):
    host, path = LocalHost(), tmp_path / "x"
    with pytest.raises(CommandFailed, match=r"this machine: trying it out failed \(exit code 45\): not so$"):
        host.put_and_run([SentFile(str(path), b"x", 0o600)], "echo not so; exit 45", what="trying it out")
    assert path.read_bytes() == b"x"


def test_of_several_files_none_is_there_before_all_arrived_whole(tmp_path):
    host, ran = LocalHost(), tmp_path / "ran"
    files = [SentFile(f"{tmp_path}/{name}", name.encode() * 9, 0o600) for name in ("a", "b")]
    files[1].digest = "0" * 64
    with pytest.raises(NodeFailure, match=r"a, .*/b did not arrive whole: 9 of 9 bytes, and the SHA-256 is"):
        host.put_and_run(files, f"touch {ran}")
    assert list(tmp_path.iterdir()) == []


def test_deadline_and_close():
    host = LocalHost()
    with pytest.raises(DeadlineExceeded):
        host.execute("sleep 30", deadline=0.2)
    with pytest.raises(DeadlineExceeded, match=r"^this machine: 'sleep 30; true' took longer than 0\.2 s$"):
        host.run("sleep 30; true", deadline=0.2)
    threading.Timer(0.2, host.close).start()
    with pytest.raises(NodeUnreachable, match="closed"):
        host.execute("sleep 30")
    with pytest.raises(NodeUnreachable, match="closed"):
        host.execute("true")
