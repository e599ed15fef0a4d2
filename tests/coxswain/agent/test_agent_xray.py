"""REALITY: what is remembered, what runs, what becomes of both when something fails (node-contract.md 4.5 to 4.10, 8)."""

import asyncio
import ipaddress
import json
import os
import random
import signal
import socket
import sys
from pathlib import Path

import grpc
import pytest

from coxswain.agent.dataplane import DataPlaneFailed
from coxswain.agent.identity import load_or_create_xray
from coxswain.agent.state import MemoryFiles, State, XrayClient, XrayConfig
from coxswain.agent.wireguard.commands import Runner
from coxswain.agent.xray import Stale, XrayInbound
from coxswain.agent.xray_engine import BLOCKED, XrayProcess, render_xray
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.support import free_port

Code = grpc.StatusCode
XRAY = pb.PROTOCOL_XRAY_REALITY
UUIDS = [f"0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c{n:02x}" for n in range(9)]

STAND_IN = """#!@PYTHON@
# What the agent needs of an xray: takes its configuration from standard input, checks it, listens.
import json, os, socket, sys, time
home = os.path.dirname(os.path.abspath(__file__))
document = json.load(open("/dev/stdin") if "-c" in sys.argv and sys.argv[-1] == "stdin:" else None)
inbound, = document["inbounds"]
print("Xray 26.3.27 (stand-in)", flush=True)
if os.path.exists(home + "/refuses"):
    sys.exit("Failed to start: main: failed to load config files: [stdin:] > it broke")
if "-test" in sys.argv:
    sys.exit(0)
with open(home + "/ran", "a") as file:
    file.write(json.dumps({"pid": os.getpid(), "document": document}) + "\\n")
if os.path.exists(home + "/dies"):
    sys.exit("Failed to start: app/proxyman/inbound: failed to listen > it died")
if os.path.exists(home + "/hangs"):
    time.sleep(600)
with socket.create_server(("", inbound["port"])) as listener:
    while True:
        listener.accept()[0].close()
"""


class Binary:
    """A directory with a stand-in ``xray`` that writes down what it ran."""

    def __init__(self, directory):
        self.directory = directory
        script = directory / "xray"
        script.write_text(STAND_IN.replace("@PYTHON@", sys.executable))
        script.chmod(0o755)

    def set(self, name, *, on=True):
        (self.directory / name).touch() if on else (self.directory / name).unlink()

    def ran(self):
        path = self.directory / "ran"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def binary(tmp_path, monkeypatch):
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return Binary(directory)


def config(port=443, clients=1, **fields):
    given = {"dest": "d.test:443", "server_names": ("d.test",), "short_ids": ("",)} | fields
    return XrayConfig(port, clients=tuple(XrayClient(uuid) for uuid in UUIDS[:clients]), **given)


def inbound(files, engine):
    async def save(write):
        write()

    state = State(files)
    return XrayInbound(state, save, engine, load_or_create_xray(files, random.Random(1)), state.xray())


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- what is run


def test_the_document_is_the_contracts_and_shuts_the_nodes_own_networks():
    flowing = XrayConfig(443, "d.test:443", ("d.test",), ("", "ab"), (XrayClient("a", "xtls-rprx-vision"), XrayClient("b")))
    document = json.loads(render_xray(flowing, "PRIVATE"))
    assert document["inbounds"] == [
        {
            "port": 443,
            "protocol": "vless",
            "settings": {"clients": [{"id": "a", "flow": "xtls-rprx-vision"}, {"id": "b"}], "decryption": "none"},
            "streamSettings": {
                "network": "tcp",
                "security": "reality",
                "realitySettings": {
                    "dest": "d.test:443", "serverNames": ["d.test"], "privateKey": "PRIVATE", "shortIds": ["", "ab"],
                },
            },
        }
    ]  # fmt: skip
    assert document["outbounds"][0]["protocol"] == "freedom"
    assert document["routing"]["rules"] == [{"type": "field", "ip": list(BLOCKED), "outboundTag": "blocked"}]
    assert document["log"]["access"] == "none"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.86.0.2", "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.168.1.1", "172.31.0.1", "::1",
     "fe80::1", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"],
)  # fmt: skip
def test_nothing_of_the_nodes_own_is_within_reach(address):
    networks = [ipaddress.ip_network(text) for text in BLOCKED]
    parsed = ipaddress.ip_address(address)
    assert any(parsed in network for network in networks if network.version == parsed.version)


def test_the_internet_is_within_reach():
    networks = [ipaddress.ip_network(text) for text in BLOCKED]
    for address in ("1.1.1.1", "198.51.100.7", "203.0.113.9", "2606:4700::1111", "223.255.255.255"):
        parsed = ipaddress.ip_address(address)
        assert not any(parsed in network for network in networks if network.version == parsed.version)


# -- the program


async def test_it_runs_listens_and_ends(binary):
    engine, port = XrayProcess(Runner()), free_port()
    assert XrayProcess.installed()
    await engine.check(b'{"inbounds": [{"port": 1}]}', port)
    document = render_xray(config(port), "SECRET")
    await engine.swap(document, port)
    assert engine.running
    (first,) = binary.ran()
    assert first["document"] == json.loads(document)
    assert "SECRET" not in command_line(first["pid"]), "never by argv"
    await engine.swap(render_xray(config(port, 2), "SECRET"), port)
    assert not alive(first["pid"])
    await engine.stop()
    assert not engine.running
    assert not alive(binary.ran()[1]["pid"])


async def test_a_refused_configuration_leaves_the_running_one(binary):
    engine, port = XrayProcess(Runner()), free_port()
    await engine.swap(render_xray(config(port), "K"), port)
    binary.set("refuses")
    with pytest.raises(DataPlaneFailed, match=r"xray refuses the configuration: .*it broke"):
        await engine.check(b'{"inbounds": [{"port": 1}]}', port)
    binary.set("refuses", on=False)
    with socket.create_server(("", 0)) as other, pytest.raises(DataPlaneFailed, match="Address already in use"):
        await engine.check(b'{"inbounds": [{"port": 1}]}', other.getsockname()[1])
    assert engine.running
    await engine.stop()


async def test_one_that_dies_or_hangs_at_its_start_leaves_nothing(binary, monkeypatch):
    monkeypatch.setattr("coxswain.agent.xray_engine.START_TIMEOUT_S", 1.0)
    engine, port = XrayProcess(Runner()), free_port()
    for how in ("dies", "hangs"):
        binary.set(how)
        with pytest.raises(DataPlaneFailed, match=f"does not serve on port {port}"):
            await engine.swap(render_xray(config(port), "K"), port)
        assert not engine.running
        assert "does not serve" in engine.trouble
        assert ("it died" in engine.trouble) == (how == "dies"), engine.trouble
        binary.set(how, on=False)
    assert not [run["pid"] for run in binary.ran() if alive(run["pid"])]


async def test_one_that_ends_by_itself_is_started_again(binary, monkeypatch, t):
    monkeypatch.setattr("coxswain.agent.xray_engine.RESTART_S", (0.05, 0.1))
    engine, port = XrayProcess(Runner()), free_port()
    await engine.swap(render_xray(config(port), "K"), port)
    binary.set("dies")
    os.kill(binary.ran()[0]["pid"], signal.SIGKILL)
    await t.eventually(lambda: len(binary.ran()) > 2)
    assert not engine.running
    assert engine.trouble
    binary.set("dies", on=False)
    await t.eventually(lambda: engine.running and not engine.trouble)
    await engine.stop()


async def test_it_does_not_outlive_an_agent_that_is_killed(binary, t):
    port = free_port()
    program = (
        "import asyncio, os, signal\n"
        "from coxswain.agent.wireguard.commands import Runner\n"
        "from coxswain.agent.xray_engine import XrayProcess\n"
        f"document = {render_xray(config(port), 'K')!r}\n"
        "async def main():\n"
        f"    await XrayProcess(Runner()).swap(document, {port})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    await t.eventually(lambda: not alive(binary.ran()[0]["pid"]))


# -- what is remembered


async def test_configuration_and_clients_survive_a_restart(binary):
    files, port = MemoryFiles(), free_port()
    one = inbound(files, XrayProcess(Runner()))
    assert await one.push(3, lambda: config(port))
    await one.add(XrayClient(UUIDS[5]))
    await one._engine.stop()
    again = inbound(files, XrayProcess(Runner()))
    assert (again.revision, [c.id for c in again.clients], again.running) == (3, [UUIDS[0], UUIDS[5]], False)
    await again.restart()
    assert again.running
    assert binary.ran()[-1]["document"]["inbounds"][0]["settings"]["clients"] == [{"id": UUIDS[0]}, {"id": UUIDS[5]}]
    assert await again.push(3, lambda: config(port)) is False
    with pytest.raises(Stale):
        await again.push(2, lambda: config(port))
    await again._engine.stop()
    assert await again.push(3, lambda: config(port)), "an equal revision starts what does not run"
    await again._engine.stop()


async def push(lab, revision, port=443, clients=1, **fields):
    peers = [pb.Peer(protocol=XRAY, public_key=uuid) for uuid in UUIDS[:clients]]
    given = {"dest": "d.test:443", "server_names": ["d.test"], "short_ids": [""]} | fields
    message = pb.XRayRealityConfig(peers=peers, port=port, **given)
    request = pb.PushConfigRequest(protocol=XRAY, revision=revision, config=message.SerializeToString())
    return await lab.control.push_config(request)


async def test_a_failure_while_building_leaves_the_old_one_in_force(authority, t):
    async with t.one_node(authority) as lab:
        await push(lab, 1)
        engine = lab.node.plane.xray
        engine.failures["check"] = ["infra/conf: it broke"]
        assert (await t.refused(push(lab, 2, 8443)))[0] == Code.INTERNAL
        status = (await lab.control.get_status()).services[1]
        assert (status.running, status.peer_count, status.detail) == (True, 1, "REALITY :443")
        assert (await push(lab, 1)).reloaded is False
        assert (await push(lab, 2, 8443)).reloaded


async def test_a_failure_while_starting_leaves_it_down_and_the_old_one_remembered(authority, t):
    async with t.one_node(authority) as lab:
        await push(lab, 1)
        engine = lab.node.plane.xray
        engine.failures["swap"] = ["bind: address already in use"]
        assert (await t.refused(push(lab, 2, 8443)))[0] == Code.INTERNAL
        status = (await lab.control.get_status()).services[1]
        assert (status.running, status.listening) == (False, False)
        assert status.detail == "REALITY :443 not running: bind: address already in use"
        assert (await lab.control.restart_service(XRAY)).restarted
        assert (await lab.control.get_status()).services[1].detail == "REALITY :443"
        assert (await push(lab, 1)).reloaded is False
        engine.failures["check"] = ["no"]
        assert (await t.refused(lab.control.restart_service(XRAY)))[0] == Code.INTERNAL


async def test_a_client_whose_swap_fails_stays_in_the_list_and_a_removed_one_is_out(authority, t):
    async with t.one_node(authority) as lab:
        await push(lab, 1)
        engine = lab.node.plane.xray
        engine.failures["check"] = ["no"]
        client = pb.Peer(protocol=XRAY, public_key=UUIDS[4])
        assert (await t.refused(lab.control.add_peer(client)))[0] == Code.INTERNAL
        assert engine.running
        assert len((await lab.control.list_peers(XRAY)).peers) == 2
        assert (await lab.control.add_peer(client)).applied is False
        engine.failures["check"] = ["no"]
        assert (await t.refused(lab.control.remove_peer(XRAY, UUIDS[0])))[0] == Code.INTERNAL
        assert not engine.running, "what would let a revoked client in does not run"
        await lab.control.restart_service(XRAY)
        assert [c["id"] for c in json.loads(engine.document)["inbounds"][0]["settings"]["clients"]] == [UUIDS[4]]


async def test_an_agent_restart_brings_it_back_and_a_failure_is_told(authority, t):
    async with t.one_node(authority) as lab:
        await push(lab, 1)
        await lab.node.restart()
        assert (await lab.control.get_status()).services[1].running
        lab.node.plane.xray.failures["swap"] = ["no such luck"]
        await lab.node.restart()
        status = await lab.control.get_status()
        assert status.services[1].detail == "REALITY :443 not running: no such luck"
        assert status.services[0].detail == "awg0 not up"
        await lab.node.restart(forget_xray=True)
        assert (await lab.control.get_status()).services[1].detail == "not configured"


async def test_a_full_disk_does_not_make_a_configuration_look_applied(authority, t):
    async with t.one_node(authority) as lab:
        await push(lab, 1)
        original = lab.node.files.write

        def full(name, content, mode):
            raise OSError(28, "No space left on device", name)

        lab.node.files.write = full
        assert (await t.refused(push(lab, 2, clients=2)))[0] == Code.INTERNAL
        lab.node.files.write = original
        assert (await push(lab, 2, clients=2)).reloaded, "pushed again it is saved"
        await lab.node.restart()
        assert (await lab.control.get_status()).services[1].peer_count == 2
