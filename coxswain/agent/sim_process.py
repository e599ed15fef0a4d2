"""The fleet simulator as a process of its own: ``tools/fleet-sim`` (DESIGN 2.6; issue: benchmarks and demo).

``csr`` makes keys and requests, the caller signs them, ``run`` serves. While it runs it takes one JSON object per line on
standard input and answers each with one line on standard output; it ends at ``{"cmd": "quit"}``, at the end of its input
and on SIGTERM. ``COMMANDS`` below is the list of what it takes.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import grpc

from coxswain.agent.fleet_sim import SimFleet
from coxswain.agent.identity import load_or_create_node_key, new_csr
from coxswain.agent.knobs import ANY, Swapped, garbled, repeated, swallowed
from coxswain.agent.sim_node import SimNode
from coxswain.agent.simulated import Behaviour
from coxswain.agent.state import DirectoryFiles, State
from coxswain.errors import CoxswainError, InvalidInput, Refused

__all__ = ["Conductor", "main"]

Answer = dict[str, Any]


def node_directory(directory: Path, index: int) -> Path:
    """Where node ``index`` has its request and its certificate."""
    return directory / f"node-{index:05d}"


class Conductor:
    """Carries out commands on a fleet."""

    def __init__(self, fleet: SimFleet, install: Callable[[SimNode], None]) -> None:
        self._fleet = fleet
        self._install_files = install
        self._known: dict[str, Callable[[Answer], Awaitable[Answer]]] = {
            name: getattr(self, f"_{name}") for name in COMMANDS
        }

    async def do(self, command: Answer) -> Answer:
        """Returns the answer; ``ok`` tells whether it was done, ``error`` why not."""
        tag = {"id": command["id"]} if "id" in command else {}
        name = command.get("cmd")
        try:
            if not isinstance(name, str) or name not in self._known:
                raise InvalidInput(f"cmd: {name!r} is none of {', '.join(sorted(self._known))}")
            return {**tag, "ok": True, "cmd": name, **await self._known[name](command)}
        except (CoxswainError, KeyError, TypeError, ValueError) as error:
            return {**tag, "ok": False, "cmd": name, "error": f"{type(error).__name__}: {error}"}

    def _nodes(self, command: Answer) -> list[SimNode]:
        """``node``: an index, a list of them, or ``"all"``."""
        which = command["node"]
        if which == "all":
            return list(self._fleet)
        indices = which if isinstance(which, list) else [which]
        for index in indices:
            if not isinstance(index, int) or not 0 <= index < len(self._fleet):
                raise InvalidInput(f"node: {index!r} is no node; 0 to {len(self._fleet) - 1}, a list, or 'all'")
        return [self._fleet[index] for index in indices]

    async def _each(self, command: Answer, action: Callable[[SimNode], Coroutine[Any, Any, object]]) -> Answer:
        nodes = self._nodes(command)
        await asyncio.gather(*(action(node) for node in nodes))
        return {"nodes": len(nodes), "at": time.monotonic()}

    async def _kill(self, command: Answer) -> Answer:
        return await self._each(command, SimNode.kill)

    async def _stop(self, command: Answer) -> Answer:
        return await self._each(command, SimNode.stop)

    async def _start(self, command: Answer) -> Answer:
        return await self._each(command, SimNode.start)

    async def _restart(self, command: Answer) -> Answer:
        forget = bool(command.get("forget_xray", False))
        return await self._each(command, lambda node: node.restart(forget_xray=forget))

    async def _reboot(self, command: Answer) -> Answer:
        forget = bool(command.get("forget_xray", False))
        up = bool(command.get("links_up", False))
        return await self._each(command, lambda node: node.reboot(forget_xray=forget, links_up=up))

    async def _off(self, command: Answer) -> Answer:
        return await self._each(command, SimNode.power_off)

    async def _anew(self, command: Answer) -> Answer:
        return await self._each(command, SimNode.set_up_anew)

    async def _install(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            self._install_files(node)
        return await self._restart(command)

    async def _cut(self, command: Answer) -> Answer:
        return {"streams": sum(node.cut_streams() for node in self._nodes(command))}

    async def _inject(self, command: Answer) -> Answer:
        changed: list[str] = []
        for node in self._nodes(command):
            if "connect" in command:
                changed += node.connect(command["connect"])
            if "disconnect" in command:
                changed += node.disconnect(command["disconnect"])
            if "peer" in command:
                names = ("handshake", "endpoint", "rx", "tx")
                node.plane.set_live(command["peer"], **{name: command[name] for name in names if name in command})
                changed.append(command["peer"])
        return {"peers": len(changed), "keys": changed[:100]}

    async def _connect(self, command: Answer) -> Answer:
        return {"peers": self._fleet.connect(int(command["peers"]))}

    async def _rate(self, command: Answer) -> Answer:
        handshakes = bool(command.get("handshakes", False))
        await self._fleet.generator.rate(float(command["events_per_s"]), handshakes=handshakes)
        return {}

    async def _burst(self, command: Answer) -> Answer:
        rate, seconds = float(command["events_per_s"]), float(command["seconds"])
        start = time.monotonic()
        handshakes = bool(command.get("handshakes", False))
        self._fleet.generator.spared = frozenset(command.get("spare", ()))
        events = await self._fleet.generator.run(rate, seconds, handshakes=handshakes)
        return {"events": events, "behind": self._fleet.generator.behind, "seconds": time.monotonic() - start}

    async def _stall(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.stall(command.get("method", ANY))
        return {}

    async def _release(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.release(command.get("method"))
        return {}

    async def _delay(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.delay(command.get("method", ANY), float(command["seconds"]))
        return {}

    async def _fail(self, command: Answer) -> Answer:
        code = grpc.StatusCode[command.get("code", "INTERNAL")]
        for node in self._nodes(command):
            node.knobs.fail_next(
                command["method"], code, int(command.get("times", 1)), after=bool(command.get("after", False))
            )
        return {}

    async def _garbage(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.garbage(command.get("method", ANY), int(command.get("times", 1)))
        return {}

    async def _future(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.future_revision = command["revision"]
        return {}

    async def _misname(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.misnames = command["name"]
        return {}

    async def _mangle(self, command: Answer) -> Answer:
        ways: dict[str, Callable[[], Any]] = {
            "none": lambda: None,
            "repeat": lambda: repeated,
            "swap": Swapped,
            "swallow": lambda: swallowed,
            "garble": lambda: garbled,
        }
        for node in self._nodes(command):
            node.hub.mangle = ways[command["mode"]]()
        return {}

    async def _clear(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.clear()
            node.hub.mangle = None
        return {}

    async def _stats(self, command: Answer) -> Answer:
        if "node" in command:
            return {"stats": [{"node": node.index, **node.stats()} for node in self._nodes(command)]}
        usage = resource.getrusage(resource.RUSAGE_SELF)
        figures: Answer = {
            **self._fleet.stats(),
            "generated": self._fleet.generator.emitted,
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "rss_mb": rss_mb(),
        }
        return {"stats": figures}

    async def _pushes(self, command: Answer) -> Answer:
        """The last pushes of each node; times are CLOCK_MONOTONIC, which all processes of a machine share."""
        since = float(command.get("since", 0.0))
        found = [
            {"node": node.index, "at": push.at, "wall": push.wall, "protocol": push.protocol,
             "revision": push.revision, "reloaded": push.reloaded}
            for node in self._nodes({"node": "all", **command})
            for push in node.knobs.pushes
            if push.at >= since
        ]  # fmt: skip
        return {"pushes": found}

    async def _sessions(self, command: Answer) -> Answer:
        return {"sessions": {node.index: sorted(node.sessions) for node in self._nodes(command)}}

    async def _peers(self, command: Answer) -> Answer:
        """The peers that one node has. Never shows a preshared key: only whether there is one."""
        (node,) = self._nodes(command)
        found = [
            {
                "public_key": peer.config.public_key,
                "allowed_ips": list(peer.config.allowed_ips),
                "has_preshared_key": bool(peer.config.preshared_key),
                "connected": peer.connected,
            }
            for peer in node.plane.peers.values()
        ]
        return {"peers": found}

    async def _link_down(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.plane.link_down(command["interface"])
        return {}

    async def _ipv6(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.plane.carries_ipv6 = bool(command["on"])
        return {}

    async def _ports(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.plane.maps_ports = bool(command["on"])
        return {}

    async def _network(self, command: Answer) -> Answer:
        """The policy in force and the inner links that are up, with their counters."""
        return {"network": [{"node": node.index, **network_of(node)} for node in self._nodes(command)]}

    async def _drop_peer(self, command: Answer) -> Answer:
        """Somebody removes a peer by hand."""
        for node in self._nodes(command):
            del node.plane.peers[command["peer"]]
        return {}

    async def _drop_key(self, command: Answer) -> Answer:
        """Somebody edits the conf: a peer has no preshared key any more."""
        for node in self._nodes(command):
            peer = node.plane.peers[command["peer"]]
            peer.config = replace(peer.config, preshared_key="")
        return {}

    async def _hide_keys(self, command: Answer) -> Answer:
        for node in self._nodes(command):
            node.knobs.hides_keys = bool(command["on"])
        return {}

    async def _commands(self, command: Answer) -> Answer:
        ran = [" ".join(argv) for node in self._nodes(command) for argv in node.plane.commands or ()]
        return {"commands": ran}

    async def _calls(self, command: Answer) -> Answer:
        """Times are CLOCK_MONOTONIC."""
        found = [
            {"node": node.index, "at": call.at, "method": call.method}
            for node in self._nodes(command)
            for call in node.knobs.calls or ()
        ]
        return {"calls": sorted(found, key=lambda call: call["at"])}

    async def _ping(self, _: Answer) -> Answer:
        return {"at": time.monotonic()}


COMMANDS = {
    "kill": "node: its agent dies; breaks its connections and closes its port",
    "off": "node: its host is switched off: kill, and nothing goes through it any more; start boots it",
    "stop": "node: stops it cleanly",
    "start": "node: starts it again, with its files",
    "restart": "node, forget_xray: stop and start",
    "install": "node: takes the certificate that now lies in its directory, and restarts",
    "anew": "node: another host in its place: other keys and obfuscation, nothing configured",
    "reboot": "node, forget_xray, links_up: kill, lose interfaces and counters, start",
    "cut": "node: breaks its event streams only",
    "inject": "node; connect: n or keys; disconnect: n or keys; or peer, handshake, endpoint, rx, tx",
    "connect": "peers: opens so many clients' sessions, spread over the fleet",
    "rate": "events_per_s, handshakes: until told otherwise; 0 stops",
    "burst": "events_per_s, seconds, handshakes, spare (nodes left alone): answered when it is over",
    "stall": "node, method: calls are not answered any more",
    "release": "node, method: ends stalls",
    "delay": "node, method, seconds",
    "fail": "node, method, code, times, after",
    "garbage": "node, method, times: answers that cannot be decoded",
    "future": "node, revision: reported as applied; null: the truth",
    "misname": "node, name: of the policy and the inbound that it says to hold; empty: the truth",
    "mangle": "node, mode: none, repeat, swap, swallow, garble: what becomes of events",
    "clear": "node: honest again",
    "stats": "node: figures of nodes; without: of the fleet and this process",
    "pushes": "node, since: answered PushConfig calls",
    "sessions": "node: public keys of connected peers",
    "peers": "node: what peers it has",
    "link_down": "node, interface: takes an inner link away",
    "ipv6": "node, on: whether the agent serves clients' IPv6",
    "ports": "node, on: whether the agent maps ports",
    "network": "node: policy with its transits, inner links with their counters",
    "drop_peer": "node, peer: as if somebody removed it by hand",
    "drop_key": "node, peer: as if somebody took its preshared key away by hand",
    "hide_keys": "node, on: whether preshared keys are left out of what it shows",
    "commands": "node: what a real data plane would have run last; needs --record",
    "calls": "node: the last calls that it got; needs --record",
    "ping": "answers",
}


def network_of(node: SimNode) -> Answer:
    """One node's policy (None: none), links, peers in order, and XRay inbound (None: none), as JSON has them."""
    links: Answer = {}
    for interface in node.plane.links:
        state = node.plane.link_state(interface)
        if state is not None:
            config, traffic = state.config, state.traffic
            links[interface] = {
                "listen_port": config.listen_port,
                "mtu": config.mtu,
                "exit": config.exit.public_key,
                "allowed_ips": list(config.exit.allowed_ips),
                "endpoint": config.exit.endpoint,
                "obfuscation": asdict(config.obfuscation),
                "revision": State(node.files).link_revision(interface),
                "rx_bytes": traffic.rx_bytes,
                "tx_bytes": traffic.tx_bytes,
            }
    xray = node.service.xray.config
    return {
        "policy": asdict(node.plane.policy) if node.plane.policy is not None else None,
        "links": links,
        "peers": [[peer.config.public_key, list(peer.config.allowed_ips)] for peer in node.plane.peers.values()],
        "xray": None if xray is None else asdict(xray) | {"revision": node.service.xray.revision},
    }


def rss_mb() -> float:
    """Resident memory of this process in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Simulates a fleet of VPN nodes in one process."""


@main.command()
@click.option("--nodes", type=click.IntRange(1, 20_000), required=True, help="How many nodes.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), required=True, help="Where to put them.")
@click.option("--shared-key", is_flag=True, help="One key for all nodes: quicker, and good enough for a simulation.")
def csr(nodes: int, directory: Path, *, shared_key: bool) -> None:
    """Makes keys and certificate requests: DIR/node-00000/node.csr and so on.

    Sign each as node.crt beside it, and put the trust anchors in ca.crt there, or once in DIR/ca.crt.
    """
    request = b""
    for index in range(nodes):
        files = DirectoryFiles(node_directory(directory, index))
        if not request or not shared_key:
            key, _ = load_or_create_node_key(DirectoryFiles(directory) if shared_key else files)
            request = new_csr(key)
        files.directory.mkdir(parents=True, exist_ok=True)
        (files.directory / "node.csr").write_bytes(request)


@main.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--nodes", type=click.IntRange(1, 20_000), help="How many; default: all that are in DIR.")
@click.option("--first", type=click.IntRange(0), default=0, help="Index of the first node, to share DIR among processes.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--base-port", type=click.IntRange(1, 65_535), default=20_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--lively", is_flag=True, help="Clients come, roam and go on their own.")
@click.option("--observer/--no-observer", default=True, help="Whether nodes look for changes every 5 s.")
@click.option("--buffer", type=click.IntRange(1), default=256, show_default=True, help="Events per subscriber.")
@click.option("--existing-agent", is_flag=True, help="Nodes forget what the existing agent forgets.")
@click.option("--record", is_flag=True, help="Keep the calls that nodes get, for the command calls.")
@click.option("--stdin/--no-stdin", "commands", default=True, help="Whether to take commands, and end with them.")
def run(directory: Path, nodes: int | None, first: int, base_port: int, *, commands: bool, **options: Any) -> None:
    """Serves node FIRST+i on port BASE_PORT+FIRST+i, until told to quit."""
    started = time.monotonic()
    count = nodes if nodes is not None else len(list(directory.glob("node-*"))) - first
    fleet = SimFleet(
        count,
        host=options["host"],
        base_port=base_port + first,
        seed=options["seed"] + first,
        behaviour=Behaviour() if options["lively"] else None,
        observe=options["observer"],
        buffer=options["buffer"],
        existing_agent=options["existing_agent"],
        record=options["record"],
    )
    try:
        for node in fleet:
            _install(node, directory, first)
        conductor = Conductor(fleet, lambda node: _install(node, directory, first))
        asyncio.run(_serve(fleet, conductor if commands else None, started))
    except CoxswainError as error:
        raise click.ClickException(str(error)) from None


def _install(node: SimNode, directory: Path, first: int) -> None:
    own = node_directory(directory, first + node.index)
    anchors = own / "ca.crt" if (own / "ca.crt").exists() else directory / "ca.crt"
    key = own / "node.key" if (own / "node.key").exists() else directory / "node.key"
    try:
        node.install((own / "node.crt").read_bytes(), anchors.read_bytes(), key=key.read_bytes())
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}") from None


async def _serve(fleet: SimFleet, conductor: Conductor | None, started: float) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    async with fleet:
        _say({"event": "ready", "nodes": len(fleet), "seconds": round(time.monotonic() - started, 3), "rss_mb": rss_mb()})
        reader = asyncio.create_task(_read(conductor, over)) if conductor is not None else None
        await over.wait()
        if reader is not None:
            reader.cancel()


async def _read(conductor: Conductor, over: asyncio.Event) -> None:
    stream = asyncio.StreamReader(limit=4 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
    running: set[asyncio.Task[None]] = set()
    while line := await stream.readline():
        if not line.strip():
            continue
        try:
            command = json.loads(line)
        except ValueError as error:
            _say({"ok": False, "error": f"not JSON: {error}"})
            continue
        if not isinstance(command, dict):
            _say({"ok": False, "error": "not a JSON object"})
            continue
        if command.get("cmd") == "quit":
            break
        task = asyncio.create_task(_answer(conductor, command))
        running.add(task)
        task.add_done_callback(running.discard)
    over.set()


async def _answer(conductor: Conductor, command: Answer) -> None:
    _say(await conductor.do(command))


def _say(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
