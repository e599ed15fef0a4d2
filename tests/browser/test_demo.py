"""The newcomer's minute: ``tools/demo``, the address that it prints, and what one sees there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]
_SIGN = re.compile(r"Dashboard: (http://[\d.]+:\d+), as (\w+) with the password (\S+)")

_NOTE_COLOURS = """() => {
  window.colours = [];
  const look = () => {
    const red = document.querySelectorAll(".map .pin.bad").length > 0;
    if (red !== window.colours.at(-1)) window.colours.push(red);
  };
  new MutationObserver(look).observe(document.querySelector("main"), { childList: true, subtree: true });
  look();
}"""
"""Keeps whether a pin of the map was red, one entry per change: what heals fast is red only for a moment."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "tools/demo.py"), "--chaos", "--seconds", "170", "--nodes", "6", "--clients", "4"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as process:
        yield process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.timeout(300)
def test_a_newcomer_sees_a_fleet_that_heals(demo: subprocess.Popen[str], chromium: Browser) -> None:
    assert demo.stdout is not None
    sign = next(found for line in demo.stdout if (found := _SIGN.search(line)))
    began = time.monotonic()
    address, name, password = sign.groups()
    context = chromium.new_context(base_url=address, viewport={"width": 1280, "height": 1800})
    try:
        page = context.new_page()
        page.goto("/")
        page.get_by_label("User name").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#live")).to_have_text("Live")
        page.evaluate(_NOTE_COLOURS)
        expect(page.locator(".map .pin")).to_have_count(4, timeout=60_000)  # Amsterdam, Frankfurt and London share one
        expect(page.locator(".feed").get_by_text("connected to").first).to_be_visible(timeout=60_000)
        expect(page.locator(".feed").get_by_role("link", name=re.compile("-(phone|laptop)$"))).not_to_have_count(0)
        assert time.monotonic() - began < 60, "within a minute"
        eventually(lambda: page.evaluate("window.colours.includes(true)"), timeout=100, every=0.2)
        expect(page.locator(".feed").get_by_role("link", name="Node is down").first).to_be_visible(timeout=60_000)
        eventually(lambda: page.evaluate("!window.colours.at(-1)"), timeout=60, every=0.2)
        page.goto("/alerts?show=resolved")
        healed = page.get_by_role("article", name="Node is down").first
        expect(healed.get_by_text("resolved", exact=True)).to_be_visible(timeout=60_000)
        expect(healed.get_by_text("system")).to_be_visible()
    finally:
        context.close()
