"""Onboarding over SSH: one host, and twenty at once, on real sshds with a program of 40 MB.

Three times: over loopback, where controller and hosts share this machine's processors, and nothing else is scarce; with a
line of 100 Mbit/s in front of each host, as rented machines have them; and with a processor for each host alone, of a tenth
of the speed of one of this machine's. Hosts and controller have a network namespace to themselves: the lines are not for
the rest of the machine, and are gone with the bench, however it ends.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig import Daemon, RigError, scratch, usage, wait_until

from benches.fleet import Bench

if TYPE_CHECKING:
    from tests.machines import Machine

_AT_ONCE = 20
_BYTES = 40_000_000
_LINE = "100mbit"
_PROCESSOR = 0.1
_PERIOD_US = 20_000
_CLONE_NEWNET = 0x40000000
_OVER = ("failed", "undone", "cancelled", "waiting")


def onboarding(bench: Bench) -> None:
    """One host over SSH, then twenty at once; each has an sshd and an agent of its own."""
    from tests.machines import PASSWORD, Machine, agent_file  # noqa: PLC0415 - tests' hosts, with their sshd

    if os.geteuid() != 0 or shutil.which("tc") is None:
        raise RigError("onboarding: hosts are namespaces with lines between them, which need root and iproute2")
    with _own_network(), scratch("onboard") as home, ExitStack() as stack:
        daemon = Daemon(home)
        daemon.init()
        daemon.start()
        stack.callback(daemon.stop)
        client = daemon.client()
        machines = []
        for number in range(_AT_ONCE + min(3, bench.scale.runs)):
            directory = home / f"host{number}"
            directory.mkdir()
            machines.append(stack.enter_context(Machine(directory, f"127.0.9.{number + 1}", warm=True)))
        agent = str(agent_file(home / "agent", pad=_BYTES, warm=True))
        for machine in machines:
            body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint}
            machine.server = client.post("/api/servers", body)["id"]
            wait_until("its interpreter is warm", lambda m=machine: m.path("/run/warm").exists(), 60)
        _measure(bench, daemon, machines, agent, "")
        _clear(client, machines)
        with _lines(machines):
            _measure(bench, daemon, machines, agent, f", lines of {_LINE}")
        _clear(client, machines)
        try:
            stack.enter_context(_processors(machines))
        except OSError as error:
            bench.say(f"hosts with a processor each are not measured: no control group for them can be made here ({error})")
            return
        _measure(bench, daemon, machines, agent, ", a processor each")


def _measure(bench: Bench, daemon: Daemon, machines: Sequence[Machine], agent: str, how: str) -> None:
    client = daemon.client()
    took = []
    for machine in machines[_AT_ONCE:]:
        took.append(_onboard(client, [machine.server], agent))
        bench.report.note(f"onboard one host over SSH, 40 MB{how}", took[-1])
    one = sorted(took)[len(took) // 2]
    before, everything = usage(daemon.pid).cpu_s, _processors_busy_s()
    many = _onboard(client, [machine.server for machine in machines[:_AT_ONCE]], agent)
    bench.report.note(f"onboard 20 hosts at once{how}", many)
    bench.report.note(f"onboard 20 hosts at once, against one{how}", many / one)
    bench.report.note(f"onboard 20 hosts at once{how}: CPU of the controller", usage(daemon.pid).cpu_s - before)
    bench.report.note(f"onboard 20 hosts at once{how}: CPU of the whole machine", _processors_busy_s() - everything)


def _processors_busy_s() -> float:
    """Of all processors together, since the machine started (proc(5): user, nice, system, irq, softirq)."""
    user, nice, system, _idle, _waiting, irq, softirq = Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def _onboard(client: Any, servers: list[str], agent: str) -> float:
    """Returns the seconds from the first request to the last link being live, by the journal: asking often enough to measure
    that here would take a tenth of the processors.
    """
    began = time.time()
    body = {"role": "node", "binary_path": agent}
    begun = {client.begin(f"/api/servers/{server}/deploy", body)["id"] for server in servers}
    _wait(client, "node.add", begun)
    ends = (client.get(f"/api/operations/{operation}")["finished_at"] for operation in begun)
    return max(dt.datetime.fromisoformat(end).timestamp() for end in ends) - began


def _clear(client: Any, machines: Sequence[Machine]) -> None:
    """Nothing of the first time is left on any host."""
    nodes = [node["id"] for node in client.get("/api/nodes?limit=100")]
    _wait(client, "node.remove", {client.begin(f"/api/nodes/{node}/remove", {})["id"] for node in nodes})
    for machine in machines:
        machine.configure()


def _wait(client: Any, kind: str, left: set[str]) -> None:
    def over() -> bool:
        going = {o["id"]: o for o in client.get(f"/api/operations?kind={kind}&open=true&limit=100")}
        failed = [o["error"] for o in going.values() if o["id"] in left and o["state"] in _OVER]
        if failed:
            raise RigError(f"{kind} failed: {failed[0]}")
        return not going.keys() & left

    wait_until(f"{kind} is over", over, 300, 0.5)


@contextmanager
def _own_network() -> Iterator[None]:
    """The calling thread, and every process that it starts, has a loopback of its own meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: Any, *arguments: int) -> None:
        if function(*arguments) != 0:
            raise OSError(ctypes.get_errno(), function.__name__)

    with Path("/proc/thread-self/ns/net").open("rb") as before:
        call(libc.unshare, _CLONE_NEWNET)
        try:
            _run("ip link set lo up")
            yield
        finally:
            call(libc.setns, before.fileno(), _CLONE_NEWNET)


@contextmanager
def _lines(machines: Sequence[Machine]) -> Iterator[None]:
    """What goes to a host goes there at the speed of its line; the rest of the loopback is as before."""
    _run("tc qdisc add dev lo root handle 1: htb")
    try:
        for number, machine in enumerate(machines, 16):
            _run(f"tc class add dev lo parent 1: classid 1:{number:x} htb rate {_LINE} burst 256k quantum 60000")
            goes_there = f"match ip dst {machine.address}/32 flowid 1:{number:x}"
            _run(f"tc filter add dev lo protocol ip parent 1: prio 1 u32 {goes_there}")
        yield
    finally:
        _run("tc qdisc del dev lo root")


@contextmanager
def _processors(machines: Sequence[Machine]) -> Iterator[None]:
    """Each host has its share of a processor meanwhile, whatever the others do. Raises ``OSError`` where that cannot be."""
    groups, period, quota = Path("/sys/fs/cgroup"), f"{_PERIOD_US}", f"{_PERIOD_US * _PROCESSOR:.0f}"
    limit = {"cpu.max": f"{quota} {period}"}
    if (groups / "cpu").exists():  # version 1, with a tree for each controller
        groups, limit = groups / "cpu", {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota}
    with ExitStack() as stack:
        for number, machine in enumerate(machines):
            group = groups / f"cox-bench-{os.getpid()}-{number}"
            group.mkdir()
            stack.callback(_give_up, group)
            for name, value in limit.items():
                (group / name).write_text(value)
            for pid in _tree(machine.pid):
                (group / "cgroup.procs").write_text(f"{pid}")
        yield


def _give_up(group: Path) -> None:
    """Its processes, of which there may be new ones meanwhile, are no part of it any more."""
    while pids := (group / "cgroup.procs").read_text().split():
        for pid in pids:
            with suppress(OSError):  # it has ended
                (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()


def _tree(pid: int) -> list[int]:
    """A process and all that came of it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"{command}: {done.stderr.strip()}")
