"""``cox-relay`` as a process: commands, output, files, log lines, and the end (relay-contract.md 7)."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import coxswain
from coxswain.control_path import onion
from coxswain.onboarding.units import egress_unit, onion_unit
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.contexts import client_context
from coxswain.relay.main import cli
from coxswain.relay.onion_layers import decode_key
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.yamux import Session
from tests.relays import Pki, relay_program
from tests.support import eventually, free_port


def relay(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coxswain.relay.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def test_gen_csr_makes_a_key_once_and_prints_nothing_but_the_request(tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "relay"
    first, second = (relay("gen-csr", "--config-dir", str(directory)) for _ in range(2))
    path = directory / "relay.key"
    assert first.stderr == f"relay: generated relay key at {path}\n"
    assert second.stderr == f"relay: reusing existing relay key at {path}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in directory.iterdir()] == ["relay.key"]
    keys = set()
    for done in (first, second):
        request = x509.load_pem_x509_csr(done.stdout.encode())
        assert done.stdout.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
        assert request.is_signature_valid and len(list(request.subject)) == 1
        assert request.signature_hash_algorithm is not None and request.signature_hash_algorithm.name == "sha256"
        keys.add(
            request.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    assert len(keys) == 1
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_onion_key_prints_the_public_half(tmp_path: Path) -> None:
    first, second = (CliRunner().invoke(cli, ["onion-key", "--config-dir", str(tmp_path)]) for _ in range(2))
    assert first.stdout == second.stdout and len(base64.b64decode(first.stdout)) == 32
    assert (first.stderr, second.stderr) == tuple(
        f"relay: {word} onion key at {tmp_path / 'onion.key'}\n" for word in ("generated", "reusing existing")
    )
    content = (tmp_path / "onion.key").read_bytes()
    assert len(content) == 45 and content.endswith(b"\n") and len(base64.b64decode(content)) == 32
    assert (tmp_path / "onion.key").stat().st_mode & 0o777 == 0o600


def test_versions_and_help() -> None:
    assert CliRunner().invoke(cli, ["version"]).output == f"{coxswain.__version__}\n"
    assert CliRunner().invoke(cli, ["--version"]).output == f"relay version {coxswain.__version__}\n"
    bare = relay()
    assert bare.returncode == 0 and "egress" in bare.stdout


@pytest.mark.parametrize("command", ["run", "egress"])
def test_missing_or_wrong_material_is_named(tmp_path: Path, command: str) -> None:
    missing = relay(command, "--config-dir", str(tmp_path))
    assert missing.returncode == 1
    assert missing.stderr.startswith("relay: read relay material: No such file or directory: ")
    for name in ("relay.crt", "relay.key", "fleet-ca.crt", "device-ca.crt"):
        (tmp_path / name).write_text("not PEM")
    wrong = relay(command, "--config-dir", str(tmp_path))
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("relay: read relay material: ") and wrong.stderr.count("\n") == 1


def test_what_cannot_be_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "relay.key").write_text("secret that is no key")
    (tmp_path / "onion.key").write_text("secret that is no key")
    for arguments in (
        ["gen-csr"],
        ["onion-key"],
        ["onion", "--listen", ":x"],
        ["onion", "--listen", ":0", "--allow", "a:b"],
        ["nothing"],
    ):
        done = relay(*arguments, *(["--config-dir", str(tmp_path)] if arguments != ["nothing"] else []))
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"relay: .*\n", done.stderr) and "secret" not in done.stderr


@pytest.mark.parametrize("command", ["egress", "onion"])
def test_a_relay_of_ours_that_nobody_told_where_it_may_connect_does_not_start_and_says_what_to_give(
    tmp_path: Path, command: str
) -> None:
    """The variable is what our units have, and those of existing controllers have not."""
    pki = Pki.make()
    pki.write_relay(tmp_path)
    assert all("\nEnvironment=COX_RELAY_POLICY=required\n" in unit(8456) for unit in (egress_unit, onion_unit))
    done = relay(command, "--config-dir", str(tmp_path), COX_RELAY_POLICY="required")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    for said in ("targets.policy", "cox relays renew", "--allow TARGET", "--allow-any"):
        assert said in done.stderr
    (tmp_path / "targets.policy").write_bytes(b"{}")
    assert "is none" in relay(command, "--config-dir", str(tmp_path)).stderr
    (tmp_path / "targets.policy").write_bytes(pki.policy("192.0.2.1", 1))
    assert "is for '192.0.2.1', and this is 127.0.0.1" in relay(command, "--config-dir", str(tmp_path)).stderr
    both = relay(command, "--allow", "a:1", "--allow-any", "--config-dir", str(tmp_path))
    assert both.returncode == 1 and "allow-any" in both.stderr


def test_the_log_says_what_existing_relays_say(tmp_path: Path) -> None:
    pki = Pki.make()
    pki.write_relay(tmp_path)
    port, tunnel = free_port(), free_port()
    arguments = ["run", "--client-addr", f":{port}", "--tunnel-addr", f":{tunnel}", "--config-dir", str(tmp_path)]

    async def connect() -> None:
        stream = SocketStream(*await asyncio.open_connection("127.0.0.1", tunnel))
        over = await tls_over(stream, client_context(pki.relay()), server_name="127.0.0.1")
        async with Session(over, client=False) as session:
            await session.ping()

    with relay_program(*arguments) as (process, log):
        stamp = r"(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[relay\] "
        assert re.search(stamp + f"remote relay ready — caravel clients on :{port}, coxswain tunnel on :{tunnel}$", log())
        with socket.create_connection(("127.0.0.1", tunnel)):
            pass
        asyncio.run(connect())
        eventually(lambda: "awaiting reconnect" in log())
        assert log().count("coxswain tunnel connected") == 1  # who merely connects is no tunnel
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert re.search(stamp + "shutdown signal received$", log())
    assert "Traceback" not in log()


def test_egress_and_onion_run_and_end(tmp_path: Path) -> None:
    pki = Pki.make()
    pki.write_relay(tmp_path)
    (tmp_path / "device-ca.crt").unlink()  # not read by these
    for arguments, said in (
        (
            ["egress", "--tunnel-addr", "127.0.0.1:0", "--allow-any"],
            "egress relay ready — coxswain egress tunnel on 127.0.0.1:",
        ),
        (["onion", "--listen", "127.0.0.1:0", "--allow", "10.0.0.0/8"], "onion relay ready on 127.0.0.1:"),
    ):
        with relay_program(*arguments, "--config-dir", str(tmp_path)) as (process, log):
            assert said in log()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        done = relay("onion", "--listen", at, "--allow-any", "--config-dir", str(tmp_path))
    assert done.returncode == 1 and "in use" in done.stderr


def test_an_onion_relay_carries_a_controller_of_a_thousand_nodes_that_lost_its_line(tmp_path: Path) -> None:
    """All circuits come from one address, and come again before the dead ones are missed; each is two descriptors."""
    done = CliRunner().invoke(cli, ["onion-key", "--config-dir", str(tmp_path)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    listening = ("onion", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1", "--config-dir", str(tmp_path))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # the relay inherits it, as it does of systemd
    try:
        with relay_program(*listening) as (_, log):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            found = re.search(r"ready on (\S+)", log())
            assert found is not None, log()
            asyncio.run(_through_a_crowd(found[1], decode_key(done.stdout.strip()), 2_200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _through_a_crowd(relay_at: str, key: bytes, count: int) -> None:
    host, _, port = relay_at.rpartition(":")
    server = await asyncio.start_server(lambda _, writer: writer.write(b"hello"), host, 0)
    target = f"{host}:{server.sockets[0].getsockname()[1]}"
    crowd = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(count)]
    setup, keys = onion.build([(relay_at, key)], target)
    stream = SocketStream(*await asyncio.open_connection(host, int(port)))
    await stream.write(setup)
    async with asyncio.timeout(30):
        assert await onion.veil(stream, keys).read() == b"hello"
    for writer in crowd:
        writer.transport.abort()
    stream.abort()
    server.close()
