"""A short command imports what it needs and no more; completion works in a real shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from actors.main import cli
from coxswain import __version__
from tests.fleet import Controller

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("apsw", "cryptography", "falcon", "grpc", "paramiko", "psycopg", "pykka", "rich", "waitress", "yaml")

IMPORTED = """
import sys
from actors.main import main
sys.argv = ["cox", *sys.argv[1:]]
try:
    main()
finally:
    print("\\nIMPORTED", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def imported(*arguments: str) -> tuple[list[str], str]:
    """Which of the heavy packages a command loads, and what it prints."""
    code = IMPORTED.replace("{heavy!r}", repr(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.rpartition("IMPORTED")[2].split(), done.stdout


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("version",)])
def test_what_needs_nothing_loads_nothing(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments)[0] == []


def test_the_version_is_told_without_the_command_line() -> None:
    code = "import sys; from actors.main import main; sys.argv = ['cox', '--version']; main(); print('click' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [__version__, "False"]
    assert CliRunner().invoke(cli, ["--version"]).output == f"{__version__}\n", "the command line says the same"


@pytest.mark.parametrize("line", ["nodes list", "nodes show light", "status", "tree", "sessions", "ca show", "audit"])
def test_queries_load_the_standard_library_only(controller: Controller, line: str) -> None:
    if not controller.client.get("/api/nodes"):
        controller.client.post("/api/nodes", {"name": "light", "control_addr": "192.0.2.1"})
    found, out = imported(*line.split(), "--config", str(controller.home.parent / "cox.yaml"))
    assert found == []
    assert out


def complete(line: str, environ: dict[str, str]) -> list[str]:
    """What bash offers after ``line``, with the script that operators load."""
    script = CliRunner().invoke(cli, ["completion", "bash"], prog_name="cox").stdout
    words = line.split(" ")
    quoted = " ".join(f'"{w}"' for w in words)
    drive = f"\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\n_cox_completion cox\n"
    command = ["bash", "-c", script + drive + "printf '%s\\n' \"${COMPREPLY[@]}\""]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    (tmp_path / "cox").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m actors.main "$@"\n')
    (tmp_path / "cox").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    assert complete("cox no", environ) == ["nodes"]
    assert set(complete("cox nodes en", environ)) == {"enable", "endpoints", "enroll"}
    assert complete("cox init --per", environ) == ["--personal"]
    assert "serve" in complete("cox ", environ)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell: str) -> None:
    out = CliRunner().invoke(cli, ["completion", shell], prog_name="cox").stdout
    assert "_COX_COMPLETE" in out and f"{shell}_complete" in out
    assert CliRunner().invoke(cli, ["completion", "cmd.exe"], prog_name="cox").exit_code == 2
