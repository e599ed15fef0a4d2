"""The dashboard in a real browser: from a node's event to the pixels that tell of it, and what pages weigh and cost."""

from __future__ import annotations

import http.client
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright
from rig import Daemon, RigError

from benches.fleet import Bench, BenchFleet, percentile

_PASSWORD = "measured in the browser"  # noqa: S105 - of a controller that lives for a minute
_DEVICES = 10_000
_BACKGROUND = 100
_WATCHED = 8
_LATE_S = 10.0

_WATCH = """
() => {
  window.drawn = [];
  const tell = (what) => requestAnimationFrame(() => setTimeout(() => window.drawn.push([what, Date.now()]), 0));
  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const added of change.addedNodes) {
        if (added.dataset?.row) tell(`row ${added.dataset.row}`);
        else if (added.localName === "li") tell(`feed ${added.textContent}`);
      }
    }
  }).observe(document.querySelector("main"), { childList: true, subtree: true });
}
"""
"""Notes what appeared, and when the frame with it in was done: the callback of a frame runs before it is painted, and a
timer set there fires after."""


def dashboard(bench: Bench) -> None:
    """From a node's event to changed pixels in a browser; what pages weigh and cost with 10,000 devices."""
    fleet = bench.fleet()
    fleet.daemon.client().post("/api/admins/admin/password", {"new_password": _PASSWORD})
    fleet.settled_boundaries()
    with _browser(fleet.daemon) as page:
        for _ in range(max(1, min(3, bench.scale.runs))):
            _pixels(bench, fleet, page, samples=60 if bench.scale.nodes >= 1000 else 20)
        cookie = "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies())
    _fill_up(fleet)
    _weigh(bench, fleet, cookie)


@contextmanager
def _browser(daemon: Daemon) -> Iterator[Page]:
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary is None:
        raise RigError("no Chromium here; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        try:
            context = browser.new_context(base_url=f"http://{daemon.listen}", viewport={"width": 1280, "height": 1800})
            page = context.new_page()
            page.goto("/login")
            page.get_by_label("User name").fill("admin")
            page.get_by_label("Password").fill(_PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(lambda url: "/login" not in url)
            yield page
        finally:
            browser.close()


def _pixels(bench: Bench, fleet: BenchFleet, page: Page, samples: int) -> None:
    """Clients come and go on nodes whose rows can be seen, while all the others tell of theirs, a hundred times a second."""
    page.goto("/")
    page.get_by_text("Live", exact=True).wait_for()
    rows = page.locator("tbody [data-row]")
    rows.first.scroll_into_view_if_needed()
    shown = [str(row.get_attribute("data-row")) for row in rows.all()[:_WATCHED]]
    page.evaluate(_WATCH)
    # What comes and goes on a watched node at the same moment may add up to nothing, and then nothing is drawn.
    spare = [fleet.ids.index(node_id) for node_id in shown]
    fleet.simulator.send("burst", events_per_s=_BACKGROUND, seconds=samples * 0.5 + 2, spare=spare)
    took: list[float] = []
    for number in range(samples):
        node_id = shown[number % len(shown)]
        page.evaluate("window.drawn = []")
        began = time.time()
        way = "connect" if number // len(shown) % 2 == 0 else "disconnect"
        fleet.simulator.send("inject", node=fleet.ids.index(node_id), **{way: 1})
        took.append((_appeared(page, f"row {node_id}", began) - began) * 1e3)
        time.sleep(max(0.0, began + bench.rng.uniform(0.3, 0.5) - time.time()))
    bench.say(f"{len(took)} events to pixels: median {percentile(took, 0.5):.0f} ms, worst {max(took):.0f} ms")
    bench.report.note("dashboard, 100 events/s: node event to changed pixel, median", percentile(took, 0.5))
    bench.report.note("dashboard, 100 events/s: node event to changed pixel, p95", percentile(took, 0.95))


def _appeared(page: Page, what: str, began: float) -> float:
    """When something was drawn for the first time since ``began``; epoch seconds."""
    found: Any = page.wait_for_function(
        "([what, began]) => window.drawn.find(([text, at]) => text === what && at >= began)",
        arg=[what, began * 1e3],
        timeout=_LATE_S * 1e3,
    ).json_value()
    return float(found[1]) / 1e3


def _fill_up(fleet: BenchFleet) -> None:
    client = fleet.daemon.client()
    missing = _DEVICES - client.get("/api/status")["fleet"]["devices"]
    if missing > 0:
        client.post("/api/peers", fleet.new_peers(fleet.ids[: min(100, fleet.nodes)], -(-missing // min(100, fleet.nodes))))
    fleet.wait_in_sync()


def _weigh(bench: Bench, fleet: BenchFleet, cookie: str) -> None:
    """Each page, and what it loads with it, as the browser gets them."""
    from coxswain.web.table import PAGES  # noqa: PLC0415 - the rig must be imported first

    client = fleet.daemon.client()
    device = client.get("/api/devices?limit=1")[0]
    keys = {"/nodes/{key}": fleet.ids[0], "/users/{key}": device["user_id"], "/devices/{key}": device["id"]}
    scripts = ("app.css", "app.js", "live.js", "feed.js", "palette.js", "charts.js", "html.js", "theme.js", "icon.svg")
    statics = sum(len(_get(fleet, f"/static/{name}", cookie)[0]) for name in scripts)
    heaviest, slowest = 0.0, 0.0
    for route in PAGES:
        if route.path.startswith("/ui/") or route.path == "/login" or ("{key}" in route.path and route.path not in keys):
            continue
        path = route.path.replace("{key}", keys.get(route.path, ""))
        got = [_get(fleet, path, cookie) for _ in range(7)]
        weight = len(got[0][0]) + statics + (len(_get(fleet, "/static/world.svg", cookie)[0]) if path == "/" else 0)
        took = statistics.median(seconds for _, seconds in got) * 1e3
        bench.say(f"{path:<28} {weight / 1e3:6.0f} KB  {took:6.1f} ms")
        heaviest, slowest = max(heaviest, weight / 1e3), max(slowest, took)
    bench.report.note("dashboard, 10,000 devices: heaviest page, with all it loads", heaviest)
    bench.report.note("dashboard, 10,000 devices: slowest page, median time of the server", slowest)


def _get(fleet: BenchFleet, path: str, cookie: str) -> tuple[bytes, float]:
    host, _, port = fleet.daemon.listen.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.connect()
        began = time.perf_counter()
        connection.request("GET", path, headers={"Cookie": cookie, "Accept": "text/html"})
        answer = connection.getresponse()
        raw = answer.read()
        if answer.status != 200:
            raise RigError(f"GET {path}: {answer.status}")
        return raw, time.perf_counter() - began
    finally:
        connection.close()
