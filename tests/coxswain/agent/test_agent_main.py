"""``cox-node`` as a process: command line, configuration, start, stop, certificates (node-contract.md 2, 3)."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

import coxswain
from coxswain.agent.config import AgentConfig, load_config
from coxswain.agent.dataplane import DataPlaneFailed
from coxswain.agent.identity import new_csr
from coxswain.agent.node import Agent
from coxswain.agent.simulated import SimulatedPlane
from coxswain.agent.state import DirectoryFiles, State
from coxswain.clock import SystemClock
from coxswain.errors import InvalidInput, Refused
from coxswain.wire.node_control import RpcFailed
from coxswain.wire.pharos.node.v1 import control_pb2 as pb
from tests.support import free_port

COMMAND = [sys.executable, "-m", "coxswain.agent.main"]


def cox_node(*arguments, **environment):
    command, environment = [*COMMAND, *map(str, arguments)], {**os.environ, **environment}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def config_dir(tmp_path, authority):
    """An enrolled node's directory."""
    directory = tmp_path / "node"
    _, csr, _ = cox_node("gen-csr", "--config-dir", directory)
    (directory / "node.crt").write_bytes(authority.sign_node(csr.encode()))
    (directory / "ca.crt").write_bytes(authority.anchor)
    return directory


@contextlib.asynccontextmanager
async def running(directory, config=None, plane=None, **options):
    """An agent in this process, on a free port of loopback."""
    config = config or AgentConfig(listen_addr="127.0.0.1:0", stop_grace_s=1.0)
    agent = Agent(directory, config, lambda _: plane or SimulatedPlane(SystemClock()), **options)
    await agent.start()
    try:
        yield agent, f"127.0.0.1:{agent.port}"
    finally:
        await agent.stop()


# -- command line


def test_version():
    assert cox_node("version") == (0, f"{coxswain.__version__}\n", "")
    assert cox_node("runs-as") == (0, "cox-node\n", "")
    assert cox_node("--version") == (0, f"node version {coxswain.__version__}\n", "")


def test_version_imports_nothing_heavy():
    script = (
        "import sys; sys.argv[1:] = ['version']\n"
        "from coxswain.agent.main import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'grpc', 'cryptography', 'google', 'yaml', 'asyncio'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.splitlines() == [coxswain.__version__, "[]"]


def test_help_and_completion():
    for arguments in (["help"], ["--help"], ["help", "run"]):
        code, out, err = cox_node(*arguments)
        assert (code, err) == (0, "")
        assert "Usage:" in out
    assert "--config-dir" in cox_node("help", "run")[1]
    for shell in ("bash", "zsh", "fish"):
        code, out, err = cox_node("completion", shell)
        assert (code, err) == (0, "")
        assert "_NODE_COMPLETE" in out


def test_gen_csr_splits_its_output(tmp_path):
    directory = tmp_path / "etc" / "node"
    code, first, told = cox_node("gen-csr", "--config-dir", directory)
    assert (code, told) == (0, f"made a new key: {directory}/node.key\n")
    assert first.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert first.endswith("-----END CERTIFICATE REQUEST-----\n")
    code, second, told = cox_node("gen-csr", "--config-dir", directory)
    assert (code, told) == (0, f"using the existing key: {directory}/node.key\n")
    keys = [x509.load_pem_x509_csr(text.encode()).public_key() for text in (first, second)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["frobnicate"], {}, "frobnicate"),
        (["help", "frobnicate"], {}, "frobnicate"),
        (["completion", "tcsh"], {}, "tcsh"),
        (["run", "--nope"], {}, "--nope"),
        (["gen-csr", "extra"], {}, "extra"),
        (["run", "--config-dir", "DIR", "--data-plane", "simulated"], {}, "node.key"),
        (["run", "--config-dir", "DIR"], {"NODE_LOG": "debug"}, "NODE_LOG"),
        (["run", "--config-dir", "DIR"], {"NODE_LOG__LEVEL": "loud"}, "log.level"),
        (["gen-csr", "--config-dir", "/proc/nope"], {}, "/proc/nope"),
    ],
)
def test_errors_are_one_line_and_exit_1(tmp_path, arguments, environment, named):
    arguments = [str(tmp_path) if word == "DIR" else word for word in arguments]
    code, out, err = cox_node(*arguments, **environment)
    assert (code, out) == (1, "")
    assert err.startswith("node: ")
    assert named in err
    assert err.count("\n") == 1


# -- configuration


def test_later_sources_win(tmp_path):
    assert load_config(tmp_path, {}) == AgentConfig(":8444", "info", frozenset(), 10.0)
    (tmp_path / "node.yaml").write_text(
        "control: {listen_addr: '127.0.0.1:1', allowed_clients: [a, b]}\nlog: {level: warn}\nx: 1\n"
    )
    assert load_config(tmp_path, {}) == AgentConfig("127.0.0.1:1", "warn", frozenset({"a", "b"}))
    environment = {"NODE_CONTROL__LISTEN_ADDR": "[::1]:2", "NODE_ENV": "x", "NODE_CONTROL__ALLOWED_CLIENTS": "c, d"}
    assert load_config(tmp_path, environment) == AgentConfig("[::1]:2", "warn", frozenset({"c", "d"}))


@pytest.mark.parametrize(
    "text",
    ["[", "- a", "log: debug", "log: {level: 3}", "control: {listen_addr: ''}", "control: {listen_addr: 'host'}",
     "control: {listen_addr: ':70000'}", "control: {listen_addr: '::1:80'}", "control: {allowed_clients: 7}",
     "control: {stop_grace_s: soon}"],
)  # fmt: skip
def test_bad_configuration_is_named(tmp_path, text):
    (tmp_path / "node.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=r"node\.yaml|log|control"):
        load_config(tmp_path, {})


# -- a whole life as a process


async def test_a_process_serves_restarts_and_stops(config_dir, authority, t):
    port = free_port()
    environment = {**os.environ, "NODE_CONTROL__LISTEN_ADDR": f"127.0.0.1:{port}"}
    arguments = [*COMMAND, "run", "--config-dir", str(config_dir), "--data-plane", "simulated"]
    control = authority.control(f"127.0.0.1:{port}")

    def spawn():
        return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)

    async def serving():
        call = control._channel.unary_unary("/pharos.node.v1.NodeControl/GetStatus")
        return pb.GetStatusResponse.FromString(await call(b"", timeout=30, wait_for_ready=True))

    agent = spawn()
    try:
        first = await serving()
        await control.push_config(t.awg_push(5, [t.peer(1, preshared_key="A" * 43 + "=")]))
        stream = control.watch_events()
        await stream.initial_metadata()
        agent.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(stream.read(), 30) is grpc.aio.EOF
        assert await stream.code() == grpc.StatusCode.OK
        out, err = await asyncio.to_thread(agent.communicate, timeout=30)
        assert (agent.returncode, out) == (0, b"")
        assert b"level=INFO" in err
        agent = spawn()
        second = await serving()
        assert (second.applied_revision, second.amneziawg, second.xray) == (5, first.amneziawg, first.xray)
        assert second.services[0].peer_count == 1
    finally:
        agent.kill()
        await asyncio.to_thread(agent.communicate)


async def test_a_taken_port_ends_the_start(config_dir, authority):
    async with running(config_dir) as (_, address):
        config = AgentConfig(listen_addr=address)
        with pytest.raises(Refused, match="cannot listen on"):
            await Agent(config_dir, config, lambda _: SimulatedPlane(SystemClock())).start()
        assert await authority.control(address).get_status()


async def test_the_other_agents_state_directory_is_taken_over(config_dir, authority):
    """Files as the existing agent leaves them (node-contract.md 3.4, 7.6): ours goes on where it stopped."""
    (config_dir / "awg-revision").write_text("17\n")
    (config_dir / "awg1-revision").write_text("4\n")
    down = [["iptables", "-D", "FORWARD", "-i", "awg0", "-j", "ACCEPT"]]
    policy = {"Forwarding": True, "Masquerade": False, "Isolation": False, "Transits": None}
    (config_dir / "netpolicy.json").write_text(json.dumps({"policy": policy, "down": down}, indent=2))
    plane = SimulatedPlane(SystemClock(), record=True)
    async with running(config_dir, plane=plane) as (_, address):
        status = await authority.control(address).get_status()
        assert status.applied_revision == 17
    commands = [" ".join(argv) for argv in plane.commands]
    assert commands[0] == "iptables -D FORWARD -i awg0 -j ACCEPT"  # the stored teardown comes first
    assert "iptables -A FORWARD -o awg0 -j ACCEPT" in commands
    assert len(State(DirectoryFiles(config_dir)).policy().down) == 2


async def test_a_start_whose_policy_and_links_fail_serves_and_tells(config_dir, authority):
    order = []

    class Broken(SimulatedPlane):
        async def restore_links(self):
            order.append("links")
            return ["awg1 not restored: awg-quick: exit status 1"]

        async def apply_policy(self, policy, previous, journal, *, restoring=False):
            order.append("policy")
            raise DataPlaneFailed("ip route replace default dev awg1 table 7101: exit status 1")

        async def up(self):
            order.append("awg0")
            raise DataPlaneFailed("awg-quick up: exit status 1")

    policy = {"Forwarding": True, "Masquerade": False, "Isolation": False, "Transits": None}
    (config_dir / "netpolicy.json").write_text(json.dumps({"policy": policy, "down": None}))
    async with running(config_dir, plane=Broken(SystemClock())) as (_, address):
        detail = (await authority.control(address).get_status()).services[0].detail
        assert order == ["links", "policy", "awg0"]
        for part in ("awg0 not up; awg1 not restored", "network policy not applied: ip route", "awg-quick up: exit"):
            assert part in detail


async def test_a_defect_in_a_restore_does_not_keep_the_port_shut(config_dir, authority):
    class Broken(SimulatedPlane):
        async def restore_links(self):
            raise ZeroDivisionError

    async with running(config_dir, plane=Broken(SystemClock())) as (_, address):
        detail = (await authority.control(address).get_status()).services[0].detail
    assert detail == "awg0 not up; inner links not restored: a defect of the agent: ZeroDivisionError"


async def test_the_observer_looks_on_its_own(config_dir, authority, t):
    plane = SimulatedPlane(SystemClock())
    async with running(config_dir, plane=plane, poll_s=0.01) as (agent, address):
        control = authority.control(address)
        await control.push_config(t.awg_push(1, [t.peer(1)]))
        await t.eventually(lambda: agent._observer._memory is not None)  # the silent baseline
        stream = control.watch_events()
        await stream.initial_metadata()
        plane.fail_next("dump", "a defect")
        assert (await t.read_events(stream, 1))[0].message == "a defect"
        plane.connect(t.key(1))
        assert [e.peer_id for e in await t.read_events(stream, 2)] == [t.key(1)] * 2


async def test_a_stop_does_not_wait_for_a_hung_tool(config_dir, authority, t):
    hung = asyncio.Event()

    class Hung(SimulatedPlane):
        async def replace_peers(self, peers):
            hung.set()
            await asyncio.Event().wait()

    config = AgentConfig(listen_addr="127.0.0.1:0", stop_grace_s=0.1)
    async with asyncio.timeout(60):
        async with running(config_dir, config, Hung(SystemClock())) as (_, address):
            call = asyncio.create_task(authority.control(address).push_config(t.awg_push(1, [])))
            await hung.wait()
        with pytest.raises(RpcFailed):
            await call


# -- who gets in


async def test_only_the_anchors_clients_get_in(config_dir, authority, t):
    """Section 2.3: foreign chain, server-only purpose, expired: refused; no purpose extension: accepted."""
    async with running(config_dir) as (_, address):
        foreign = t.Authority(cn="Other CA")
        refused = [foreign.client(), authority.client(eku=[Eku.SERVER_AUTH]), authority.client(days=-1)]
        for client in refused:
            assert (await t.refused(authority.control(address, client=client).get_status()))[
                0
            ] == grpc.StatusCode.UNAVAILABLE
        for client in (authority.client(), authority.client(cn="anything"), authority.client(eku=())):
            assert await authority.control(address, client=client).get_status()
        options = [("grpc.ssl_target_name_override", "node.test")]
        for credentials in (grpc.ssl_channel_credentials(authority.anchor), None):
            channel = (
                grpc.aio.secure_channel(address, credentials, options) if credentials else grpc.aio.insecure_channel(address)
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/pharos.node.v1.NodeControl/GetStatus")(b"", timeout=5)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            await channel.close()


async def test_names_of_clients_can_be_limited(config_dir, authority, t):
    config = AgentConfig(listen_addr="127.0.0.1:0", allowed_clients=frozenset({"coxswain-controller"}))
    async with running(config_dir, config) as (_, address):
        assert await authority.control(address).get_status()
        other = authority.control(address, client=authority.client(cn="relay"))
        assert (await t.refused(other.get_status()))[0] == grpc.StatusCode.PERMISSION_DENIED
        stream = other.watch_events()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_certificates_are_reloaded_and_running_connections_stay(config_dir, authority, t):
    new = t.Authority(cn="New CA")
    async with running(config_dir) as (_, address):
        old = authority.control(address)
        await old.get_status()
        _, csr, _ = await asyncio.to_thread(cox_node, "gen-csr", "--config-dir", config_dir)
        (config_dir / "ca.crt").write_bytes(new.anchor)
        (config_dir / "node.crt").write_bytes(new.sign_node(csr.encode()))
        assert await new.control(address).get_status()
        assert await old.get_status()
        assert (await t.refused(authority.control(address).get_status()))[0] == grpc.StatusCode.UNAVAILABLE
        (config_dir / "ca.crt").write_text("not a certificate")
        assert await new.control(address).get_status()  # the last good ones stay in force
        (config_dir / "ca.crt").write_bytes(new.anchor)
        good = (config_dir / "node.crt").read_bytes()
        stranger = new_csr(ec.generate_private_key(ec.SECP256R1()))
        # Half of a file, as an upload leaves it for a moment, and a certificate of another key.
        for bad in (good[: len(good) // 2], new.sign_node(stranger)):
            (config_dir / "node.crt").write_bytes(bad)
            assert await new.control(address).get_status()
        (config_dir / "node.crt").write_bytes(good)
        assert await new.control(address).get_status()


@pytest.mark.parametrize(
    ("name", "content"), [("node.crt", None), ("ca.crt", None), ("ca.crt", "junk"), ("node.key", "junk")]
)
async def test_unusable_certificates_end_the_start(config_dir, name, content):
    (config_dir / name).unlink()
    if content is not None:
        (config_dir / name).write_text(content)
        (config_dir / name).chmod(0o600)
    with pytest.raises(Refused, match=name):
        await Agent(config_dir, AgentConfig("127.0.0.1:0"), lambda _: SimulatedPlane(SystemClock())).start()
    assert (config_dir / "awg-node.json").exists()  # identities come first (node-contract.md 3.5)


def test_without_a_command_it_shows_its_help():
    code, out, err = cox_node()
    assert code == 0 and not err
    assert "Commands:" in out.splitlines()
