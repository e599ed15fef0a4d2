"""The demonstration behind ``tools/demo``: a real daemon with SQLite in a scratch directory, and simulated nodes in a
process of their own. With ``--chaos`` things are killed and stalled while one watches, and what healed, and how fast, is
reported.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rig import (
    REGIONS,
    Daemon,
    RigError,
    Simulator,
    end_at_sigterm,
    enrol,
    make_csrs,
    peers_for,
    record_id,
    scratch,
    wait_until,
)

from coxswain.cli.live import Picture, on_screen, render
from coxswain.cli.names import Names
from coxswain.cli.output import duration
from coxswain.cli.stream import Follower
from coxswain.cli.watch import Watcher
from tests.support import free_port, some_ports

_SHORT_S, _LONG_S = 45.0, 300.0
"""Somebody who watches looks into the dashboard as well, and ends it with Ctrl-C."""

PEOPLE = ("Amara Okafor", "Bruno Conti", "Chiara Weiss", "Dmitri Halonen", "Esi Mensah", "Farid Karimi", "Greta Lindqvist",
          "Hana Sato", "Ines Moreau", "Jonas Berg", "Katya Novak", "Liam Byrne")  # fmt: skip
GADGETS = ("phone", "laptop", "tablet", "desktop")
PUBLIC_IPS = tuple(f"203.0.113.{number}" for number in range(1, 9))
"""Of the first nodes, so that paths can lead over them."""

HEAL_TIMEOUT_S = 60.0
FIRST_HARM_S = 4.0
BETWEEN_HARMS_S = 3.0


@dataclass
class Harm:
    """One thing that was broken on purpose. Times are monotonic seconds."""

    what: str
    at: float
    healed: Callable[[], bool]
    healed_at: float | None = None


@dataclass
class Chaos:
    """Breaks things, one after the other, and looks whether they heal."""

    daemon: Daemon
    simulator: Simulator
    nodes: list[dict[str, Any]]
    rng: random.Random
    harms: list[Harm] = field(default_factory=list)
    next_at: float = 0.0
    undo: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    turn: int = 0

    def step(self, now: float, *, last_at: float, tell: Callable[[str, str], None]) -> None:
        """Called a few times a second; breaks nothing any more after ``last_at``."""
        for due, action in [u for u in self.undo if u[0] <= now]:
            self.undo.remove((due, action))
            action()
        for harm in self.harms:
            if harm.healed_at is None and now - harm.at > 0.5 and harm.healed():
                harm.healed_at = now
                tell("chaos", f"healed after {now - harm.at:.1f} s: {harm.what}")
        waiting = any(h.healed_at is None for h in self.harms)
        if now < self.next_at or now > last_at or waiting:
            return
        harm = self._break_something(now)
        self.harms.append(harm)
        self.next_at = now + BETWEEN_HARMS_S
        tell("chaos", harm.what)

    def _break_something(self, now: float) -> Harm:
        ways = (self._kill_node, self._crash_link, self._hang_link, self._crash_actor, self._stall_node, self._cut_streams)
        way = ways[self.turn % len(ways)]
        self.turn += 1
        return way(now)

    def _pick(self) -> tuple[int, dict[str, Any]]:
        index = self.rng.randrange(len(self.nodes))
        return index, self.nodes[index]

    def _kill_node(self, now: float) -> Harm:
        index, node = self._pick()
        self.simulator.command("kill", node=index)
        self.undo.append((now + 2.0, lambda: self.simulator.command("start", node=index)))
        return Harm(f"the agent of {node['name']} was killed, and comes back in 2 s", now, self._live(node, after=2.0))

    def _stall_node(self, now: float) -> Harm:
        index, node = self._pick()
        self.simulator.command("stall", node=index)
        self._operator_looks(node)
        self.undo.append((now + 4.0, lambda: self.simulator.command("release", node=index)))
        return Harm(f"the agent of {node['name']} answers nothing for 4 s", now, self._live(node, after=4.0))

    def _cut_streams(self, now: float) -> Harm:
        index, node = self._pick()
        self.simulator.command("cut", node=index)
        return Harm(f"the event stream of {node['name']} was cut", now, self._live(node))

    def _crash_link(self, now: float) -> Harm:
        _, node = self._pick()
        self._harm(f"node_link:{node['id']}", "raise")
        return Harm(f"the link actor of {node['name']} was crashed", now, self._live(node))

    def _hang_link(self, now: float) -> Harm:
        _, node = self._pick()
        self._harm(f"node_link:{node['id']}", "hang")
        return Harm(f"the link actor of {node['name']} hangs", now, self._live(node, after=3.5))

    def _crash_actor(self, now: float) -> Harm:
        name = self.rng.choice(["session_tracker", "fleet", "audit_writer", "io_loop", "certificate_authority"])
        self._harm(name, "raise")

        def healed() -> bool:
            status = self.daemon.client().get("/api/status")
            return bool(status["fleet"]["in_sync"] == status["fleet"]["nodes"])

        return Harm(f"the actor {name} was crashed", now, healed)

    def _harm(self, actor: str, how: str) -> None:
        self.daemon.client().post("/api/chaos", {"actor": actor, "how": how})

    def _operator_looks(self, node: dict[str, Any]) -> None:
        """A stalled agent is noticed by the next poll; an interested operator makes that now."""
        self.daemon.client().post(f"/api/nodes/{node['id']}/look")

    def _live(self, node: dict[str, Any], after: float = 0.0) -> Callable[[], bool]:
        begun = time.monotonic()

        def healed() -> bool:
            if time.monotonic() - begun < after:
                return False
            found = self.daemon.client().get(f"/api/nodes/{node['id']}")
            return bool(found["link_state"] == "live" and found["in_sync"])

        return healed

    def report(self) -> dict[str, Any]:
        times = [h.healed_at - h.at for h in self.harms if h.healed_at is not None]
        return {
            "failures_injected": len(self.harms),
            "healed": len(times),
            "heal_seconds_max": round(max(times), 2) if times else 0.0,
        }


def peopled(body: dict[str, Any]) -> dict[str, Any]:
    """The peers that ``peers_for`` made, with people whose devices they are."""
    users = [
        {"id": record_id("usr", number), "name": name, "email": f"{name.split()[0].lower()}@example.org"}
        for number, name in enumerate(PEOPLE)
    ]
    for number, device in enumerate(body["devices"]):
        turn, owner = divmod(number, len(users))
        again, gadget = divmod(turn, len(GADGETS))
        name = f"{users[owner]['email'].partition('@')[0]}-{GADGETS[gadget]}" + (f"-{again + 1}" if again else "")
        device |= {"user_id": users[owner]["id"], "name": name}
    return body | {"users": users[: len(body["devices"])]}


@click.command()
@click.option("--nodes", type=click.IntRange(1, 5000), default=8, show_default=True, help="How many nodes.")
@click.option("--clients", type=click.IntRange(0, 200), default=6, show_default=True, help="Devices on each node.")
@click.option("--seconds", type=click.FloatRange(min=1), help="How long it runs.  [default: 300 on a terminal, else 45]")
@click.option("--chaos", is_flag=True, help="Kill and stall things, and report what healed, and how fast.")
@click.option("--json", "as_json", is_flag=True, help="No live view; print one JSON object at the end.")
@click.option("--seed", type=int, default=7, show_default=True, help="Same seed, same misfortunes.")
def main(*, nodes: int, clients: int, seconds: float | None, chaos: bool, as_json: bool, seed: int) -> None:
    """Show a fleet at work."""
    end_at_sigterm()
    live = not as_json and sys.stdout.isatty()
    seconds = seconds or (_LONG_S if live else _SHORT_S)

    def say(text: str) -> None:
        if not as_json:
            click.echo(text)

    try:
        with scratch("demo") as home:
            result = _run(home, nodes, clients, seconds, seed, chaos=chaos, live=live, say=say)
    except RigError as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _tell_result(result)
    sys.exit(0 if result["live"] == nodes and result["healed"] == result["failures_injected"] else 1)


def _run(
    home: Path,
    nodes: int,
    clients: int,
    seconds: float,
    seed: int,
    *,
    chaos: bool,
    live: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    relay = f"127.0.0.1:{free_port()}"
    daemon = Daemon(home, {"relay.client_listen": relay, "relay.public_endpoint": relay})
    fleet_dir = home / "fleet"
    fleet_dir.mkdir()
    say(f"Making a fleet in {home}")
    base_port = some_ports(nodes)
    simulator = Simulator(fleet_dir, base_port)
    try:
        daemon.init()
        daemon.start(chaos=chaos)
        say(f"Dashboard: http://{daemon.listen}, as admin with the password {daemon.password}")
        say(f"Enrolling {nodes} nodes")
        make_csrs(fleet_dir, nodes)
        names = [f"{REGIONS[i % len(REGIONS)]}-{i // len(REGIONS) + 1}" for i in range(nodes)]
        enrolled = enrol(daemon.client(), fleet_dir, names, base_port, PUBLIC_IPS)
        ids = [node["id"] for node in enrolled]
        if clients:
            daemon.client().post("/api/peers", peopled(peers_for(ids, clients)))
        say("Starting the agents")
        began = time.monotonic()
        simulator.start("--lively", "--seed", str(seed))
        status = wait_until(
            "every node is live and in sync",
            lambda: (s := daemon.client().get("/api/status"))["fleet"]["in_sync"] == nodes and s,
            60 + nodes / 20,
        )
        up_s = time.monotonic() - began
        _make_paths(daemon, ids)
        say(f"All {nodes} nodes live and in sync after {up_s:.1f} s")
        say(f"In another terminal: COX_CONFIG={daemon.config} {_cox()} nodes list")
        simulator.command("connect", peers=nodes * clients // 2)
        trouble = Chaos(daemon, simulator, enrolled, random.Random(seed), next_at=time.monotonic() + FIRST_HARM_S)  # noqa: S311
        _show(daemon, trouble if chaos else None, seconds, live=live, say=say)
        status = daemon.client().get("/api/status")
    finally:
        try:
            simulator.stop()
            code = daemon.stop()
        finally:
            daemon.kill()
    return {
        "nodes": nodes,
        "live": status["fleet"]["by_link_state"].get("live", 0),
        "in_sync": status["fleet"]["in_sync"],
        "all_live_seconds": round(up_s, 2),
        "sessions_opened": status["sessions"]["opened"],
        "sessions_active": status["sessions"]["active"],
        "node_events": status["sessions"]["events"],
        "restarts": status["restarts"],
        "clean_stop": code == 0,
        **trouble.report(),
    }


def _make_paths(daemon: Daemon, ids: list[str]) -> None:
    """One of two hops and one of three, where there are as many nodes; both at once."""
    client, some = daemon.client(), ids[: len(PUBLIC_IPS)]
    paths = {"two-hops": some[1::-1], "three-hops": [some[0], some[len(some) // 2], some[-1]]}
    bodies = [{"name": name, "node_ids": hops} for name, hops in paths.items() if 1 < len(hops) == len(set(hops))]
    began = [client.begin("/api/paths", body)["id"] for body in bodies]
    wait_until("the paths are there", lambda: all(client.get(f"/api/operations/{o}")["state"] == "done" for o in began), 60)
    wait_until("every node is in sync", lambda: client.get("/api/status")["fleet"]["in_sync"] == len(ids), 60)


def _cox() -> str:
    """The command line of this checkout, as short as it can be typed here."""
    there = Path(sys.executable).with_name("cox")
    return str(there.relative_to(Path.cwd()) if there.is_relative_to(Path.cwd()) else there)


def _show(daemon: Daemon, trouble: Chaos | None, seconds: float, *, live: bool, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    end = began + seconds
    last_harm = end - min(15.0, seconds / 3)
    watcher = Watcher(daemon.client())
    if not live:
        while not _over(end, trouble):
            if trouble is not None:
                trouble.step(time.monotonic(), last_at=last_harm, tell=lambda _kind, text: say(f"  {text}"))
            time.sleep(0.2)
        return
    status, nodes, _ = watcher.look()
    picture = Picture(status, nodes, names=Names(daemon.client()))
    follower = Follower(daemon.client())

    def tell(kind: str, text: str) -> None:
        picture.feed.append((time.strftime("%H:%M:%S", time.gmtime()), kind, text))

    with on_screen(picture) as view:
        while not _over(end, trouble):
            time.sleep(0.25)
            if trouble is not None:
                trouble.step(time.monotonic(), last_at=last_harm, tell=tell)
            height = view.console.size.height
            picture.rows = max(3, (height - 9) // 2)
            picture.feed_rows = max(3, height - 9 - picture.rows)
            picture.status, picture.nodes, picture.events_per_s = watcher.look()
            picture.take_events(follower.take())
            left = duration(max(0.0, end - time.monotonic()))
            picture.title = f"coxswain · demo, {left} left · Ctrl-C ends"
            picture.note = f"http://{daemon.listen} · admin {daemon.password}"
            view.update(render(picture))


def _over(end: float, trouble: Chaos | None) -> bool:
    """The time is up, and what was broken is whole again (or will not be)."""
    now = time.monotonic()
    if now < end:
        return False
    open_harms = [h for h in trouble.harms if h.healed_at is None] if trouble is not None else []
    return not open_harms or now > end + HEAL_TIMEOUT_S


def _tell_result(result: dict[str, Any]) -> None:
    click.echo(
        f"{result['live']} of {result['nodes']} nodes live, {result['in_sync']} in sync; all were after "
        f"{result['all_live_seconds']} s\n{result['sessions_opened']} sessions opened, {result['sessions_active']} active "
        f"at the end; {result['node_events']} items from nodes"
    )
    if result["failures_injected"]:
        broken = result["failures_injected"]
        click.echo(
            f"{broken} {'thing was' if broken == 1 else 'things were'} broken, {result['healed']} healed, the slowest after "
            f"{result['heal_seconds_max']} s; {result['restarts']} of them cost a service a restart"
        )
    click.echo("Stopped, and nothing left behind." if result["clean_stop"] else "The daemon did not stop in good order.")


if __name__ == "__main__":
    main(prog_name="tools/demo")
