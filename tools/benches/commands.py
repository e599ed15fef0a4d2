"""The command line as it is shipped: the zipapp, on the same Python, second run each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from rig import ROOT, Daemon, scratch

from benches.fleet import Bench


def commands(bench: Bench) -> None:
    """``cox --version``, ``cox nodes list``, ``cox serve`` until ready, and the size of the file."""
    with scratch("bench-zipapp") as box:
        pyz = box / "cox.pyz"
        bench.say("making the zipapp")
        subprocess.run([ROOT / "tools" / "zipapp", "--output", pyz], check=True, capture_output=True, cwd=ROOT)
        bench.report.note("size of the zipapp", pyz.stat().st_size / 1e6)
        daemon = bench.fleet().daemon
        nodes_list = ["nodes", "list", "--config", str(daemon.config)]
        _timed(box, pyz, "--version")  # unpacks
        for _ in range(max(3, bench.scale.runs)):
            bench.report.note("cox --version, from the zipapp", _timed(box, pyz, "--version") * 1e3)
            bench.report.note("cox nodes list, from the zipapp", _timed(box, pyz, *nodes_list) * 1e3)
        for _ in range(max(2, bench.scale.runs)):
            bench.report.note("cox serve ready, from the zipapp", _serve_ready(box, pyz))


def _command(pyz: Path, *arguments: str) -> list[str]:
    return [sys._base_executable, str(pyz), *arguments]  # type: ignore[attr-defined]  # noqa: SLF001


def _environment(box: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(box), "SHIV_ROOT": str(box / "unpacked")}


def _timed(box: Path, pyz: Path, *arguments: str) -> float:
    began = time.monotonic()
    command = _command(pyz, *arguments)
    subprocess.run(command, check=True, capture_output=True, cwd=box, env=_environment(box))
    return time.monotonic() - began


def _serve_ready(box: Path, pyz: Path) -> float:
    with scratch("bench-serve") as home:
        daemon = Daemon(home)
        daemon.init()
        log = daemon.log_path.open("ab")
        began = time.monotonic()
        command = _command(pyz, "serve", "--config", str(daemon.config))
        daemon.process = subprocess.Popen(command, cwd=box, env=_environment(box), stdout=log, stderr=log)
        log.close()
        try:
            daemon.wait_ready()
            return time.monotonic() - began
        finally:
            daemon.stop()
