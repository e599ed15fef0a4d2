"""The one file that is shipped, as an operator meets it: an empty environment, another directory, another user."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import coxswain
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


def _interpreter() -> str:
    """This Python without the virtual environment; the system's, if it is the same version, as operators have that one."""
    system = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    return system if Path(system).exists() else sys._base_executable


def _other_user() -> dict[str, Any]:
    """Arguments of ``subprocess`` for another user than the one who built the file, where that is possible."""
    if os.geteuid() != 0:
        return {}
    other: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    try:
        subprocess.run([_interpreter(), "-c", "pass"], check=True, capture_output=True, **other)
    except (PermissionError, subprocess.CalledProcessError):  # a Python in root's home
        return {}
    return other


class Box:
    """A directory with cox.pyz and a user's scratch space in it, and a way to run the one in the other."""

    def __init__(self, where: Path) -> None:
        self.pyz = where / "cox.pyz"
        self.home = where / "home"
        self._user = _other_user()
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str, program: str = "cox.pyz") -> list[str]:
        return [_interpreter(), str(self.pyz.with_name(program)), *arguments]

    def run(
        self, *arguments: str, program: str = "cox.pyz", fails: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments, program=program),
            cwd=self.home,
            env={"HOME": str(self.home), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **self._user,
        )
        assert done.returncode == fails, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: str, program: str = "cox.pyz", **environment: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(*arguments, program=program),
                cwd=self.home,
                env={"HOME": str(self.home), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._user,
            )
        self._started.append(process)
        return process

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file of the user who runs all this."""
        path = self.home / name
        path.write_text(text)
        path.chmod(mode)
        if self._user:
            shutil.chown(path, self._user["user"], self._user["group"])
        return path

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """A directory that everybody may read, with the file in it. Not below pytest's, which is root's alone."""
    where = Path(tempfile.mkdtemp(prefix="cox-zipapp-"))
    where.chmod(0o755)
    try:
        subprocess.run([ROOT / "tools/zipapp", "--output", where / "cox.pyz"], check=True, capture_output=True, timeout=300)
        for name in ("cox-node", "node", "node.new", "cox-relay", "relay", "relay.new"):
            (where / name).symlink_to("cox.pyz")
        yield where
    finally:
        shutil.rmtree(where)


@pytest.fixture
def box(built: Path) -> Iterator[Box]:
    box = Box(built)
    box.home.mkdir(mode=0o700)
    if box._user:
        shutil.chown(box.home, box._user["user"], box._user["group"])
    yield box
    box.close()
    shutil.rmtree(box.home)


def test_it_fits_and_is_the_same_whenever_it_is_made(built, tmp_path):
    size = (built / "cox.pyz").stat().st_size
    assert size <= 32 * MIB
    told = re.search(r"in one file \((\d+) MB\)", (ROOT / "docs/operating.md").read_text())
    assert told and 0.8 < int(told[1]) * 1e6 / size < 1.2, (told, size)  # without strip, or on another Python, it is another
    again = tmp_path / "again.pyz"
    command = [ROOT / "tools/zipapp", "--output", again]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert again.read_bytes() == (built / "cox.pyz").read_bytes()
    says_how_it_becomes_the_command(said, str(again), tmp_path / "cox")


def says_how_it_becomes_the_command(said: str, file: str, command: Path) -> None:
    """Who built it, or reads where that is told, is one line from the command that all pages speak of."""
    how = next(line.partition("cox: ")[2] for line in said.splitlines() if "As the command cox: " in line)
    assert how == f"install -m 755 {file} /usr/local/bin/cox"
    subprocess.run([*how.split()[:-1], command], check=True)
    environment = {"SHIV_ROOT": str(command.with_name("unpacked")), "PATH": os.environ["PATH"]}
    version = [_interpreter(), command, "version"]
    assert subprocess.check_output(version, env=environment, text=True).strip() == coxswain.__version__
    assert os.access(command, os.X_OK)
    for page in ("README.md", "docs/operating.md"):
        text = (ROOT / page).read_text()
        assert how.replace(file, "dist/cox.pyz") in text, page
        assert "Python 3.11 or later" in " ".join(text.split()), page


def test_one_file_is_all_ends(box):
    # The names without cox- are those under which onboarding installs it.
    for name in ("cox-node", "node", "node.new", "cox-relay", "relay", "relay.new"):
        assert box.run("--version").stdout == box.run("version", program=name).stdout
    assert "Serve until SIGTERM" in box.run("run", "--help", program="cox-node").stdout
    assert "BEGIN CERTIFICATE REQUEST" in box.run("gen-csr", "--config-dir", "etc", program="cox-relay").stdout
    assert "--tunnel-addr" in box.run("run", "--help", program="relay").stdout


def test_a_fleet_lives_from_this_file_alone(box):
    box.run("init", "--personal")
    assert "fine" in box.run("config", "check").stdout
    assert "Start it with" in box.run("status", fails=3).stderr
    daemon = box.start("serve")
    eventually((box.home / "state/control.sock").exists, timeout=30)
    assert box.json("nodes", "list") == []

    request = box.run("gen-csr", "--config-dir", "node", program="cox-node").stdout
    box.write("node.csr", request)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    box.run("nodes", "add", "ams-1", "--addr", f"127.0.0.1:{port}", "--public-ip", "203.0.113.7")
    box.run("nodes", "enroll", "ams-1", "--csr", "node.csr", "--out", "node")
    agent = box.start(
        "run", "--config-dir", "node", "--data-plane", "simulated", program="cox-node",
        NODE_CONTROL__LISTEN_ADDR=f"127.0.0.1:{port}",
    )  # fmt: skip
    eventually(lambda: [(n["link_state"], n["in_sync"]) for n in box.json("nodes", "list")] == [("live", True)], timeout=30)

    assert "intact" in box.run("audit", "verify").stdout, "which starts a process of its own"
    for process in (agent, daemon):
        process.send_signal(signal.SIGTERM)
    assert (agent.wait(30), daemon.wait(30)) == (0, 0)
    box.run("status", fails=3)


def test_the_daemon_deletes_what_earlier_builds_of_the_same_name_unpacked(built, box):
    shutil.copyfile(built / "cox.pyz", built / "cox")  # the name under which docs/operating.md installs it
    cache = box.home / ".cache/coxswain"
    box.run("init", program="cox")
    [mine] = cache.glob("cox_*")
    others = [f"cox_{'0' * 64}", f"cox-node_{'0' * 64}", f"cox_{'1' * 64}.tmp", "cox_notes"]
    for name in others:
        (cache / name / "site-packages").mkdir(parents=True)
    if box._user:
        for path in cache.rglob("*"):
            shutil.chown(path, box._user["user"], box._user["group"])
    box.start("serve", program="cox")
    eventually((box.home / "state/control.sock").exists, timeout=30)
    assert {path.name for path in cache.iterdir() if path.is_dir()} == {mine.name, *others[1:]}


def test_code_that_others_could_have_written_is_not_run(box):
    cache = box.home / "cache"
    box.run("--version", SHIV_ROOT=str(cache))
    assert cache.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o777)
    assert "others may write" in box.run("--version", SHIV_ROOT=str(cache), fails=1).stderr


def test_a_user_without_a_home_gets_a_private_place_to_unpack(box):
    box.run("--version", HOME="/nonexistent", TMPDIR=str(box.home))
    (place,) = box.home.glob("coxswain-*")
    assert place.stat().st_mode & 0o777 == 0o700
    assert any(place.iterdir())


def test_another_python_is_told_which_one_it_needs():
    starter = (ROOT / "tools/zipapp_main.py").read_text().replace('"@PYTHON@"', '"3.99"')
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("cox: this file is for Python 3.99 ")
    assert "python3.99" in done.stderr
