"""Where ``cox`` is run is not always kind: full disks, closed streams, odd encodings, devices as files, empty variables."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from tests.fleet import Controller

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cox(controller: Controller) -> Callable[..., Result]:
    def run(*words: str, code: int = 0) -> Result:
        config = ("--config", str(controller.home.parent / "cox.yaml"))
        result = CliRunner().invoke(cli, [*words, *config], prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


def shell(controller: Controller, line: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """``cox`` as a process, where ``line`` sends its streams."""
    line = line.replace("cox", f"{sys.executable} -m actors.main", 1)
    environ = {"PATH": os.environ["PATH"], "COX_CONFIG": str(controller.home.parent / "cox.yaml"), **environ}
    return subprocess.run(["bash", "-c", line], cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False)


# -- files that are written


@pytest.fixture(params=["audit export", "sessions export", "export"])
def writes(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param.split()
    return words


def test_what_is_no_file_stays_what_it_is(cox: Callable[..., Result], writes: list[str], tmp_path: Path) -> None:
    """A device was replaced by a file; a pipe needs no root to show it, and nothing is lost if it is again."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        cox(*writes, "--out", str(pipe))
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_full_device_is_named(cox: Callable[..., Result], writes: list[str]) -> None:
    first, second = cox(*writes, "--out", "/dev/full", code=7).stderr.splitlines()
    assert first == "cox: /dev/full: No space left on device"
    assert "Make room" in second


def test_what_a_link_leads_to_is_written_and_its_mode_kept(
    cox: Callable[..., Result], writes: list[str], tmp_path: Path
) -> None:
    target, link = tmp_path / "kept", tmp_path / "link"
    target.touch(mode=0o600)
    link.symlink_to(target)
    others = tmp_path / "kept.part"
    others.write_text("somebody's")
    if os.geteuid() == 0:
        os.chown(target, 1234, 1235)
    cox(*writes, "--out", str(link))
    assert others.read_text() == "somebody's"
    if os.geteuid() == 0:
        assert (target.stat().st_uid, target.stat().st_gid) == (1234, 1235)
    others.unlink()
    assert link.is_symlink() and target.stat().st_size > 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [target, link]


@pytest.mark.parametrize(
    ("out", "means"),
    [
        ("", "out: no name is given"),
        (".", "'.' is a directory"),
        ("/nowhere/to/be", "out: /nowhere/to is no directory"),
        ("long" * 100, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_is_bad_input(cox: Callable[..., Result], writes: list[str], out: str, means: str) -> None:
    assert means in cox(*writes, "--out", out, code=2).stderr


@pytest.mark.parametrize("words", [("enroll",), ("profile", "export"), ("devices", "issue")])
def test_a_name_that_is_too_long_for_a_file_changes_nothing(
    cox: Callable[..., Result], controller: Controller, words: tuple[str, ...]
) -> None:
    before = controller.client.get("/api/audit?limit=1")
    first, second = cox(*words, "somebody", "--out", "x" * 300, code=2).stderr.splitlines()
    assert first.endswith("File name too long") and second == "     Name another place."
    assert controller.client.get("/api/audit?limit=1") == before


# -- streams


@pytest.mark.parametrize("line", ["cox status", "cox status --json", "cox --help", "cox nodes --help", "cox --version"])
def test_a_full_disk_behind_the_output_is_told(controller: Controller, line: str) -> None:
    done = shell(controller, f"{line} >/dev/full")
    assert done.stderr.startswith(b"cox: the output: No space left on device")
    assert b"Traceback" not in done.stderr
    assert done.returncode == 7


@pytest.mark.parametrize(
    "line", ["cox tree", "cox doctor --quick", "cox audit export", "cox audit head --qr", "cox --version"]
)
def test_streams_may_be_closed(controller: Controller, line: str) -> None:
    done = shell(controller, f"{line} <&- >&-")
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1 if "doctor" in line else 0)
    assert shell(controller, f"{line} 2>&-").returncode == done.returncode


def test_whoever_reads_may_go_away(controller: Controller) -> None:
    for line in ("cox tree", "cox --help", "cox --version"):
        assert shell(controller, f"{line} | true").stderr == b""


@pytest.mark.parametrize(
    "environ", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(controller: Controller, environ: dict[str, str]) -> None:
    if not controller.client.get("/api/users?q=fuchs@example.org"):
        controller.client.post("/api/users", {"name": "ثعلب 🦊", "email": "fuchs@example.org"})
    done = shell(controller, "cox users show fuchs@example.org", **environ)
    assert done.returncode == 0 and b"fuchs@example.org" in done.stdout, done.stderr
    as_json = shell(controller, "cox users show fuchs@example.org --json", **environ)
    assert json.loads(as_json.stdout)["name"] == "ثعلب 🦊"
    exported = shell(controller, "cox export", **environ)
    assert "ثعلب 🦊" in exported.stdout.decode(), "what a program reads is UTF-8, and nothing in it is escaped"


# -- words


@pytest.mark.parametrize(
    "line", ["nodes show", "nodes remove", "users remove --yes", "devices suspend", "paths rm", "alerts show"]
)
def test_an_empty_variable_means_nothing(cox: Callable[..., Result], line: str) -> None:
    first, second = cox(*line.split(), "", code=2).stderr.splitlines()
    assert "the name or id in it is empty" in first and second == "     Say which one is meant."


@pytest.mark.parametrize(
    "line",
    ["sessions export --user", "audit --target", "operations list --target", "alerts --device", "devices list --user"],
)
def test_an_empty_filter_is_not_no_filter(cox: Callable[..., Result], line: str) -> None:
    assert ": is empty\n     Say which one is meant, or leave it out." in cox(*line.split(), "", code=2).stderr


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("--url = nodes list", 2, "--url is empty; say what is meant"),
        ("--token-file = nodes list", 2, "--token-file is empty"),
        ("nodes list --config =", 2, "config: is empty"),
        ("nodes add host --addr =", 2, "addr: is empty"),
        ("paths add = --hops a,b", 2, "name: is empty"),
        ("profiles list --device nobody", 4, "there is no device with the id or name 'nobody'"),
        ("relays remove embedded --yes", 4, "a part of the daemon"),
        ("users edit nobody", 2, "nothing to change: one of --name, --email, --phone, --status is needed"),
        ("devices edit nobody", 2, "nothing to change: one of --name, --platform is needed"),
        ("profiles edit nobody", 2, "nothing to change: one of --name, --node, --path, --entry-ips, --protocol is needed"),
        ("profiles edit nobody --node =", 2, "node: is empty"),
    ],
)
def test_what_is_empty_or_nothing_is_not_taken_for_something_else(
    controller: Controller, line: str, code: int, says: str
) -> None:
    """``=`` is an empty word, as of a variable that is not set."""
    words = ["" if word == "=" else word for word in line.split()]
    config = () if "--config" in words else ("--config", str(controller.home.parent / "cox.yaml"))
    result = CliRunner().invoke(cli, [*words, *config], prog_name="cox")
    assert (result.exit_code, result.stdout) == (code, "") and says in result.stderr, result.output


def test_bytes_that_are_no_text_are_refused(controller: Controller) -> None:
    done = shell(controller, r"cox users show $'\xff'")
    assert done.returncode == 2
    assert done.stderr == b"cox: '\\udcff' holds bytes that are no text\n     Type it in UTF-8.\n"


def test_a_slash_in_a_name_has_a_way_out(cox: Callable[..., Result]) -> None:
    assert "asked for by its id" in cox("users", "show", "a/b@example.org", code=4).stderr
